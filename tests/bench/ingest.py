"""Chunks a second with a free upstream: `sluice ingest` against the asyncio design's ingestion, on the
same made-up documents with the same size of chunks. Sluice writes them to SQLite, with full-text and
vector search; the asyncio design gives them to the stub, which forgets them. It is measured as it is
usually written, with a call for each chunk, and with 32 chunks in a call, as Sluice does it."""

import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time

from bench import heading
from measure import BenchError, Progress, cpu_of, settle, used_between
from prepare import COMPARE, LOCAL, VENV

DOCUMENTS, QUICK_DOCUMENTS = 600, 60
DOCUMENT_BYTES = 20000
WORDS = ("heron water reed shallow stands still waits fish morning light river bank feather wind cold "
         "evening marsh stone patient shadow ripple cloud north silver quiet long slow grey").split()
LIMIT_S = 300
WAYS = {"sluice": "sluice ingest", "asyncio": "(a) asyncio, a call for each chunk",
        "asyncio-32": "(a) asyncio, 32 chunks in a call"}
HEAD = ("system", "documents", "chunks", "seconds", "chunks /s", "CPU ms a chunk, own",
        "with broker and Redis")


def run(bench):
    count = QUICK_DOCUMENTS if bench.options.quick else DOCUMENTS
    heading(f"ingestion of {count} documents, the upstream takes no time")
    directory = tempfile.mkdtemp(prefix="sluice-bench-documents-")
    found = {}
    try:
        write_documents(directory, count)
        for way in WAYS:
            if not bench.wanted(way.split("-")[0]):
                continue
            bench.stub.behave(free=True)
            try:
                with Progress(f"{way:10} ingest") as progress:
                    made = by_sluice(bench, directory) if way == "sluice" else by_asyncio(
                        bench, directory, 32 if way == "asyncio-32" else 1)
                    found[way] = {"documents": count, **made}
                    progress.done(f"{made['chunks']} chunks, {made['chunks_per_s']:.0f}/s")
            except BenchError as error:
                found[way] = {"error": str(error)}
    finally:
        shutil.rmtree(directory)
    return {"systems": found}


def write_documents(directory, count):
    """Sentences of words drawn at random, the same in each run."""
    os.makedirs(directory, exist_ok=True)
    draw = random.Random(5)
    for n in range(count):
        sentences, size = [], 0
        while size < DOCUMENT_BYTES:
            sentence = " ".join(draw.choices(WORDS, k=draw.randint(6, 18))).capitalize() + "."
            sentences.append(sentence)
            size += len(sentence) + 1
        with open(os.path.join(directory, f"document-{n:04}.md"), "w", encoding="utf-8") as f:
            f.write(" ".join(sentences))


def children_seconds():
    """Processor seconds of the children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def by_sluice(bench, directory):
    with tempfile.TemporaryDirectory(prefix="sluice-bench-store-") as store, bench.system(
            "sluice", warm=False, ingest=True, SLUICE_VECTOR_URL=f"sqlite://{store}/sluice.db",
            SLUICE_KEYWORD_URL=f"sqlite://{store}/sluice.db",
            SLUICE_SQLITE_VEC=os.path.join(LOCAL, "lib", "vec0.so")) as system:
        # The first document opens connections; it is not what is measured.
        write_documents(os.path.join(store, "first"), 1)
        system.cluster.sluice("ingest", os.path.join(store, "first"), check=False)
        settle(system.processes())
        own, shared = system.processes(), bench.servers.processes()
        before, began, children = cpu_of({**own, **shared}), time.monotonic(), children_seconds()
        done = system.cluster.sluice("ingest", directory, check=False)
        seconds = time.monotonic() - began
        used = used_between(before, cpu_of({**own, **shared}))
        used["sluice ingest"] = children_seconds() - children
        if done.returncode != 0:
            raise BenchError(f"sluice ingest: {done.returncode}: {done.stderr.strip()[-500:]}")
        chunks = json.loads(done.stdout)["total_chunks"]
    mine = sum(used[name] for name in used if name not in shared)
    return {"chunks": chunks, "seconds": seconds, "chunks_per_s": chunks / seconds,
            "cpu_ms": {"own": 1000 * mine / chunks, "all": 1000 * sum(used.values()) / chunks,
                       **{name: 1000 * s / chunks for name, s in used.items()}}}


def by_asyncio(bench, directory, batch):
    command = [os.path.join(VENV, "bin", "python"), os.path.join(COMPARE, "asyncio_ingest.py"),
               "--upstream", bench.stub.url, "--documents", directory, "--batch", str(batch)]
    before = children_seconds()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"asyncio_ingest.py did not end within {LIMIT_S} s") from None
    mine = children_seconds() - before
    found = re.search(r"^\{.*\}$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not found:
        raise BenchError(f"asyncio_ingest.py: {done.returncode}: {done.stderr.strip()[-500:]}")
    result = json.loads(found[0])
    result["cpu_ms"] = dict.fromkeys(("own", "all"), 1000 * mine / result["chunks"])
    return result


def tables(result):
    rows = []
    for name, found in result["systems"].items():
        if "error" in found:
            rows.append((WAYS[name], found["error"].splitlines()[0], *[""] * 5))
            continue
        cpu = found["cpu_ms"]
        rows.append((WAYS[name], str(found["documents"]), str(found["chunks"]),
                     f"{found['seconds']:.2f}", f"{found['chunks_per_s']:.0f}", f"{cpu['own']:.3f}",
                     f"{cpu['all']:.3f}" if name == "sluice" else ""))
    return [("", HEAD, rows)]
