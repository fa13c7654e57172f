#!/usr/bin/env python3
"""The asyncio design's ingestion: 10 documents and 50 embedding calls at a time, in one process.

    asyncio_ingest.py --upstream http://127.0.0.1:8100 --documents DIR [--batch 32]

Cuts each file of a folder into chunks of 500 characters that overlap by 50, embeds them in batches,
writes each batch to the vector store, and prints {"documents", "chunks", "seconds",
"chunks_per_s", "cpu_seconds"}.
"""

import argparse
import asyncio
import time
import uuid
from pathlib import Path

import orjson

import pipeline
import serving

SIZE = 500
OVERLAP = 50
DOCUMENTS_AT_A_TIME = 10
EMBEDDINGS_AT_A_TIME = 50
ENDS = ("\n\n", ". ", " ")


def cut(text):
    """Chunks of at most SIZE characters that end at a paragraph, a sentence or a word where one
    ends in the last third of the chunk."""
    chunks, at = [], 0
    while at < len(text):
        end = at + SIZE
        if end < len(text):
            found = (text.rfind(mark, at + SIZE * 2 // 3, end) for mark in ENDS)
            end = next((place + 1 for place in found if place >= 0), end)
        if chunk := text[at:end].strip():
            chunks.append(chunk)
        if end >= len(text):
            break
        at = end - OVERLAP
    return chunks


class Ingestion:
    def __init__(self, upstreams, batch):
        self._up, self._batch = upstreams, batch
        self._documents = asyncio.Semaphore(DOCUMENTS_AT_A_TIME)
        self._embeddings = asyncio.Semaphore(EMBEDDINGS_AT_A_TIME)

    async def document(self, path, doc_id):
        """How many chunks the document has."""
        async with self._documents:
            chunks = cut(path.read_text(encoding="utf-8", errors="replace"))
            await asyncio.gather(*(
                self._write(doc_id, first, chunks[first:first + self._batch])
                for first in range(0, len(chunks), self._batch)))
            return len(chunks)

    async def _write(self, doc_id, first, texts):
        async with self._embeddings:
            vectors = await self._up.embed(texts)
        await self._up.upsert([
            point(doc_id, index, text, vector)
            for index, (text, vector) in enumerate(zip(texts, vectors, strict=True), first)])


def point(doc_id, index, text, vector):
    chunk_id = f"{doc_id}_{index}"
    payload = {**pipeline.SCOPE, "doc_id": doc_id, "chunk_id": chunk_id, "chunk_index": index,
               "text": text, "metadata": {}, "version": 1}
    return {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, chunk_id)), "vector": vector,
            "payload": payload}


async def main(options):
    root = Path(options.documents)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    upstreams = pipeline.Upstreams(options.upstream)
    try:
        ingestion = Ingestion(upstreams, options.batch)
        began, cpu = time.monotonic(), time.process_time()
        counts = await asyncio.gather(*(
            ingestion.document(path, str(path.relative_to(root))) for path in paths))
        seconds = time.monotonic() - began
    finally:
        await upstreams.close()
    print(orjson.dumps({
        "documents": len(paths), "chunks": sum(counts), "seconds": round(seconds, 3),
        "chunks_per_s": round(sum(counts) / seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 3)}).decode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, metavar="URL", help="of models and stores")
    parser.add_argument("--documents", required=True, metavar="DIR")
    parser.add_argument("--batch", type=int, default=32, help="texts in one embedding call; 1 is a "
                        "call for each chunk")
    serving.run(main(parser.parse_args()))
