"""What a bulk load does to questions: their TTFT with and without an ingestion running beside them.

Questions go through a real store (SQLite, filled before), while `sluice ingest` writes more documents
into it. Paced: the embedding model answers two bulk calls at a time, as one on a GPU of its own might,
so that the machine keeps room for questions. Unbounded: forty at a time, and the machine is full.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
import tempfile
import time

from bench import heading
from ingest import write_documents
from measure import BenchError, Load, ms
from prepare import LOCAL
from systems import Stub

STREAMS = 20
FILLED, QUICK_FILLED = 60, 10
MANY = 5000  # Documents of the load; it is interrupted when the questions are through.
EMBED_RESERVE = 10
STOP_SECONDS = 20
WAYS = {"none": "no bulk load", "paced": "two bulk calls at a time", "full": "forty at a time"}
BULK_CALLS = {"none": 2, "paced": 2, "full": 40}
HEAD = ("bulk load", "TTFT above the calls p50 ms", "p99 ms", "gap p99 ms", "answered", "failed",
        "chunks /s meanwhile")


def run(bench):
    heading(f"{STREAMS} streams beside a bulk load, SQLite")
    rows = []
    if not bench.wanted("sluice"):
        return {"rows": rows}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-bulk-") as directory:
        few, many = os.path.join(directory, "few"), os.path.join(directory, "many")
        write_documents(few, QUICK_FILLED if bench.options.quick else FILLED)
        write_documents(many, MANY)
        for way in WAYS:
            try:
                rows.append({"way": way, **measure_way(bench, way, directory, few, many)})
            except BenchError as error:
                rows.append({"way": way, "error": str(error)})
    return {"rows": rows}


def measure_way(bench, way, directory, few, many):
    store = f"sqlite://{directory}/{way}.db"
    with bench.system("sluice", warm=False, ingest=True, SLUICE_VECTOR_URL=store,
                      SLUICE_KEYWORD_URL=store, SLUICE_EMBED_RESERVE=EMBED_RESERVE,
                      SLUICE_EMBED_LIMIT=BULK_CALLS[way] + EMBED_RESERVE,
                      SLUICE_EMBED_QUERY_LIMIT=EMBED_RESERVE,
                      SLUICE_SQLITE_VEC=os.path.join(LOCAL, "lib", "vec0.so")) as system:
        bench.stub.behave()
        done = system.cluster.sluice("ingest", few, check=False)
        if done.returncode != 0:
            raise BenchError(f"sluice ingest: {done.returncode}: {done.stderr.strip()[-500:]}")
        ideal_ms = Stub.FIRST_TOKEN_MS - max(Stub.IDEAL["vector_ms"], Stub.IDEAL["keyword_ms"])
        whole_ms = ideal_ms + 49 * 30
        load = Load(rate=STREAMS * 1000 / whole_ms, ideal_ms=ideal_ms, seconds=bench.options.seconds * 2,
                    warmup=bench.options.warmup, timeout_ms=30000)
        if way == "none":
            return {**bench.run(system, load, WAYS[way]), "chunks_per_s": 0}
        with Bulk(system, many, f"{directory}/{way}.db") as bulk:
            result = bench.run(system, load, WAYS[way])
            return {**result, "chunks_per_s": bulk.chunks_per_s()}


class Bulk:
    """`sluice ingest` beside the questions, and how many chunks come into the store meanwhile."""

    def __init__(self, system, directory, database):
        self._database = database
        self._command = [os.path.join(os.environ["SLUICE_TEST_BIN"], "sluice"), "ingest", directory]
        self._environment = system.cluster.environment()

    def __enter__(self):
        self._process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                         start_new_session=True)
        self._before = self._stored(), time.monotonic()
        return self

    def _stored(self):
        with contextlib.closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM chunks").fetchone()[0]

    def chunks_per_s(self):
        stored, began = self._before
        return (self._stored() - stored) / (time.monotonic() - began)

    def __exit__(self, *_error):
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def tables(result):
    rows = []
    for row in result["rows"]:
        if "error" in row:
            rows.append((WAYS[row["way"]], row["error"].splitlines()[0], *[""] * 5))
            continue
        over = row["overhead_ms"]
        rows.append((WAYS[row["way"]], ms(over["p50"]), ms(over["p99"]), ms(row["gap_ms"]["p99"]),
                     str(row["answered"]), str(row["failed"]), f"{row['chunks_per_s']:.0f}"))
    return [("", HEAD, rows)]
