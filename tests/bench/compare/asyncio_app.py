#!/usr/bin/env python3
"""The asyncio design: the whole pipeline in one process, a coroutine for each question.

    asyncio_app.py --upstream http://127.0.0.1:8100 [--port 0] [--limit 5000]

POST /v1/query with {"query": "..."} streams the answer as the gateway does.
"""

import argparse
import asyncio
from contextlib import aclosing

import pipeline
import serving


class Pipeline:
    """The steps of a question, each under the semaphore of its upstream."""

    def __init__(self, upstreams, limit):
        self._up = upstreams
        self._embed, self._vector, self._keyword, self._rerank, self._chat = (
            asyncio.Semaphore(limit) for _ in range(5))

    async def answer(self, question, write):
        text, history = question
        events = pipeline.Events(pipeline.new_id())
        try:
            async with asyncio.timeout(pipeline.QUESTION_SECONDS):
                sources = await self._retrieve(text)
                await write(events.sources(sources))
                async with self._chat, aclosing(self._up.chat(text, history, sources)) as pieces:
                    async for piece in pieces:
                        await write(events.delta(piece))
        except pipeline.FAILURES as error:
            await write(pipeline.error_of(events, error), False)
        else:
            await write(events.done(), False)

    async def _retrieve(self, text):
        async with self._embed:
            [vector] = await self._up.embed([text])
        hits = pipeline.fuse_found(*await asyncio.gather(
            self._search(self._vector, self._up.search_vector, vector),
            self._search(self._keyword, self._up.search_keyword, text), return_exceptions=True))
        async with self._rerank:
            return await self._up.rerank(text, hits)

    @staticmethod
    async def _search(semaphore, search, what):
        async with semaphore:
            return await search(what)


async def main(options):
    upstreams = pipeline.Upstreams(options.upstream)
    try:
        steps = Pipeline(upstreams, options.limit)
        await serving.serve(
            options.port, serving.StreamEndpoint(pipeline.read_question, steps.answer))
    finally:
        await upstreams.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="of the listener; 0 takes a free one")
    parser.add_argument("--upstream", required=True, metavar="URL", help="of models and stores")
    parser.add_argument("--limit", type=int, default=5000, help="calls in flight, each upstream")
    serving.run(main(parser.parse_args()))
