"""Documents to ingest, and whether a store holds exactly their chunks.

Each sentence of a document has its own number, so that a chunk has one place in its source. The
chunks must then be numbered without gaps, stand in the source one after the other, and leave out
nothing of it but white space: that is checked against the source, not against the chunker.
"""

import collections
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile

import offsets
import results
from cluster import BIN, ROOT

WORDS = ("heron", "water", "reed", "night", "stands", "shallow", "fish", "wind", "stone", "mirror")


def text_of(document, sentences):
    return " ".join(f"Sentence {document}.{n} says that the {WORDS[n % 10]} and the "
                    f"{WORDS[n // 10 % 10]} are at rest." + "\n\n" * (n % 7 == 6)
                    for n in range(sentences)) + "\n"


class Documents:
    """A folder of documents, and a SQLite store for them, in the directory `store` if given."""

    def __init__(self, sentences, store=None):
        self._own = tempfile.mkdtemp(prefix="sluice-documents-")
        self.root = os.path.join(self._own, "files")
        os.mkdir(self.root)
        self.texts = {f"d{n}.md": text_of(n, count) for n, count in enumerate(sentences)}
        for name, text in self.texts.items():
            with open(os.path.join(self.root, name), "w", encoding="utf-8") as f:
                f.write(text)
        self.path = os.path.join(store or self._own, "store.db")
        url = "sqlite://" + self.path
        local = os.environ.get("SLUICE_LOCAL", os.path.join(ROOT, ".local"))
        self.environment = {"SLUICE_VECTOR_URL": url, "SLUICE_KEYWORD_URL": url,
                            "SLUICE_SQLITE_VEC": os.path.join(local, "lib", "vec0.so")}

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        shutil.rmtree(self._own, ignore_errors=True)

    def rewrite(self, sources):
        """New texts for some: {name: (document, sentences)}, as text_of has them."""
        for name, source in sources.items():
            self.texts[name] = text_of(*source)
            with open(os.path.join(self.root, name), "w", encoding="utf-8") as f:
                f.write(self.texts[name])

    def begin(self, cluster):
        """`sluice ingest` of them all, as a process."""
        return subprocess.Popen([os.path.join(BIN, "sluice"), "ingest", self.root],
                                env=cluster.environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def _query(self, sql):
        if not os.path.exists(self.path):
            return []
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30) as db:
            try:
                return db.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # Before the first write.
                    return []
                raise

    def stored(self):
        """Chunks in the store now."""
        return sum(row[0] for row in self._query("SELECT count(*) FROM chunks"))

    def problems(self, told, changed=None):
        """What is wrong with the store, one line each; `told` is what `sluice ingest` said, of which
        all documents but those `changed` were skipped."""
        changed = self.texts if changed is None else changed
        rows = self._query("SELECT doc_id, version, chunk_index, text FROM chunks ORDER BY 1, 2, 3")
        chunks = collections.defaultdict(list)
        for doc_id, version, index, text in rows:
            chunks[doc_id, version].append((index, text))
        if sorted(doc for doc, _ in chunks) != sorted(self.texts):
            yield f"documents and versions in the store: {sorted(chunks)}"
        if told is None:
            yield f"sluice ingest did not end, {len(rows)} chunks are stored"
        elif told != {"processed": len(changed), "failed": 0,
                      "skipped": len(self.texts) - len(changed),
                      "total_chunks": sum(row[0] in changed for row in rows)}:
            yield f"{len(rows)} chunks are stored, sluice ingest said {told}"
        for (doc_id, _), found in chunks.items():
            problem = misplaced(self.texts[doc_id], found)
            if problem:
                yield f"{doc_id}: {problem}"
        ids = {row[0] for row in self._query("SELECT id FROM chunks")}
        for index in ("chunks_vec_rowids", "chunks_fts_docsize"):
            column = "rowid" if index == "chunks_vec_rowids" else "id"
            if {row[0] for row in self._query(f"SELECT {column} FROM {index}")} != ids:
                yield f"{index} does not hold the same rows as chunks"
        check = self._query("PRAGMA integrity_check")
        if check != [("ok",)]:
            yield f"the file is damaged: {check[:3]}"


def misplaced(source, chunks):
    """What is wrong with one document's [(index, text)], or None."""
    if [index for index, _ in chunks] != list(range(len(chunks))):
        return f"chunks {[index for index, _ in chunks]}"
    end = begun = 0
    for index, text in chunks:
        at = source.find(text, begun)
        if at < 0:
            return f"chunk {index} is not in the source behind the one before"
        if source[end:at].strip():
            return f"{source[end:at]!r} before chunk {index} is in no chunk"
        begun, end = at + 1, at + len(text)
    return f"{source[end:]!r} at its end is in no chunk" if source[end:].strip() else None


def _batches(cluster, topic):
    for record in cluster.consume(topic):
        batch = results.decode(record["payload"])
        yield record, (batch["doc_id"], batch["version"], batch["first"]), len(batch["texts"])


def account(cluster):
    """The offsets.Account of ingestion. A document is done with when its last batch of chunks is
    out, a batch of chunks when its vectors are; when vectors are stored only the store could say."""
    times = {topic: {(r.partition, r.offset): r.at_ms for r in offsets.records(cluster, topic)}
             for topic in ("documents", "chunks", "vectors")}
    out, again, documents = {}, 0, {}
    for record, key, _ in _batches(cluster, "vectors"):
        at_ms = times["vectors"][record["partition"], record["offset"]]
        again += key in out
        out[key] = min(out.get(key, at_ms), at_ms)
    done = []
    for record, key, _ in _batches(cluster, "chunks"):
        at = record["partition"], record["offset"]
        done.append((offsets.Record("chunks", *at, times["chunks"][at], str(key)), out.get(key)))
        first = documents.setdefault(key[0], {})
        first[key] = min(first.get(key, times["chunks"][at]), times["chunks"][at])
    for record in cluster.consume("documents"):
        at = record["partition"], record["offset"]
        doc_id = results.decode(record["payload"]).get("doc_id")
        if doc_id in documents:
            done.append((offsets.Record("documents", *at, times["documents"][at], doc_id),
                         max(documents[doc_id].values())))
    ends = {(topic, partition): max(o for p, o in times[topic] if p == partition) + 1
            for topic in times for partition in {p for p, _ in times[topic]}}
    return offsets.Account(offsets.commits(cluster), done, ends, again)


def uncommitted(cluster, at_ms):
    """Chunks whose vectors had come by a time, and whose offsets were not committed by then."""
    reached = {}
    for commit in offsets.commits(cluster):
        if commit.topic == "vectors" and commit.at_ms <= at_ms:
            reached[commit.partition] = commit.offset
    times = {(r.partition, r.offset): r.at_ms for r in offsets.records(cluster, "vectors")}
    return sum(size for record, _, size in _batches(cluster, "vectors")
               if record["offset"] >= reached.get(record["partition"], 0)
               and times[record["partition"], record["offset"]] <= at_ms)


def embedded_again(events):
    """Chunks in calls that began after one of the same had been answered, and those calls."""
    answered, calls, again, calls_again = set(), {}, 0, 0
    for event in sorted(events, key=lambda e: e["t"]):
        if event["event"] == "begin":
            calls[event["id"]] = event["questions"]
            repeats = sum(q in answered for q in event["questions"])
            again, calls_again = again + repeats, calls_again + (repeats > 0)
        elif event.get("outcome") == 200:
            answered.update(calls.get(event["id"], ()))
    return again, calls_again


def summary(process, seconds):
    """What `sluice ingest` printed; None where it did not end in time."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    if not re.match(r"\{", out):
        raise AssertionError(f"sluice ingest said {out!r}, {err!r}")
    return json.loads(out)
