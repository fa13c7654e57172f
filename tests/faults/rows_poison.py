"""Rows 5 and 20: a question or a document that stops or kills the worker that runs it.

The programs know nothing of it: a library that is loaded into them (tests/support/preload) fails
when a request to a model contains a text, the beginning of what is marked.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from checker import Rules
from cluster import BIN, wait_until
from test_ingest import Store
from trial import SANITIZED, Trial, row, two_of_each

MARKED = 900
MARKER = f"Question {MARKED}"
LIBRARY = "libmarker_fault.so"
EVICTED = "facility=MAXPOLL"
ALONE = "it runs alone now"


def library():
    build = os.path.join(os.path.dirname(BIN), "release") if BIN.endswith("bin") else BIN
    path = os.path.join(build, "tests", LIBRARY)
    if not os.path.exists(path):
        raise AssertionError(f"{path} is not there; `cmake --build --preset ...` makes it")
    return path


def faulty(program, fault, seconds=0):
    """The environment of a program that fails at the marker. The sanitizer's library wants to be
    the first that is loaded."""
    preload = [library()]
    if SANITIZED:
        linked = subprocess.run(["ldd", os.path.join(BIN, f"sluice-{program}")], check=True,
                                capture_output=True, text=True).stdout
        preload = re.findall(r"=> (\S*lib[au]b?san\S*)", linked) + preload
    return {"LD_PRELOAD": " ".join(preload), "FAULT": fault, "FAULT_MARKER": MARKER,
            "FAULT_SECONDS": seconds}


class Supervisor(threading.Thread):
    """Keeps so many workers of a stage; starts one anew when one has aborted."""

    def __init__(self, cluster, stage, count, environment):
        super().__init__(daemon=True)
        self._cluster, self._stage, self._environment = cluster, stage, environment
        self._stopped = threading.Event()
        self.deaths = []  # Times, as of fault_ns.
        self._workers = [cluster.start(stage, wait=False, **environment) for _ in range(count)]
        for worker in self._workers:
            wait_until(worker.ready, 40, f"{stage} ready")

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self._stopped.wait(0.1):
            for at, worker in enumerate(self._workers):
                if worker.process.poll() is not None:
                    self._replace(at, worker)

    def _replace(self, at, worker):
        if worker.process.returncode == -signal.SIGABRT:
            self.deaths.append(time.monotonic_ns())
            self._cluster.killed.append(worker)
        self._workers[at] = self._cluster.start(self._stage, wait=False, **self._environment)

    def __exit__(self, *_error):
        self._stopped.set()
        self.join()


def dead_letters(t, topic="queries"):
    return [r for r in t.cluster.consume(topic + ".dlq") if MARKER.encode() in r["payload"]]


def count_lines(workers, text):
    return sum(text in line for w in workers for line in w.log().splitlines())


def check_letter(t, letters):
    if not letters:
        t.violation("I1", "there is no dead letter")
        return
    headers = letters[0]["headers"]
    told = {name: headers.get(f"__connect.errors.{name}") for name in
            ("stage", "exception.class.name", "exception.message")}
    if len(letters) != 1 or told["exception.class.name"] != "LOST" or told["stage"] != "embed":
        t.violation("I1", f"{len(letters)} dead letters, the first with {told}")


@row("20", "a question that kills each embed worker that runs it")
def worker_killer():
    with Trial(two_of_each() | {"embed": 0}, {"embed": {"latency_ms": 1000}}) as t, \
         Supervisor(t.cluster, "embed", 2, faulty("embed", "abort")) as supervisor:
        t.load(360, "--rate", 6, timeout_ms=120000)
        time.sleep(3)  # Load, not synchronisation: the others are at work.
        t.fault()
        t.load(1, first=MARKED, timeout_ms=120000)
        letters, end = [], time.monotonic() + 115
        while not letters and time.monotonic() < end:
            time.sleep(0.2)
            letters = dead_letters(t)
        buried_ns = time.monotonic_ns()
        # What one embedding call had answered when its worker died is asked for again.
        t.finish(Rules(codes={"worker_lost": 1}, repeated=40))
        check_letter(t, letters)
        killer = next(r for r in t.requests if r.question.startswith(MARKER))
        if killer.code != "worker_lost":
            t.violation("I1", f"the marked question ended as {killer.terminal} {killer.code}")
        alone = count_lines([w for w in t.cluster.workers if w.name == "embed"], ALONE)
        t.notes.append(f"deaths after {check_deaths(t, supervisor)} s, the dead letter after "
                       f"{(buried_ns - t.fault_ns) / 1e9:.0f} s, the caller told "
                       f"{(killer.ended_ns - buried_ns) / 1e9:+.1f} s from it; {alone} suspects")
    return t.findings


def check_deaths(t, supervisor):
    if len(supervisor.deaths) > 3 or not supervisor.deaths:
        t.violation("I1", f"{len(supervisor.deaths)} workers died of it")
    return ", ".join(f"{(at - t.fault_ns) / 1e9:.0f}" for at in supervisor.deaths)


@row("20-bulk", "a document that kills each embed worker that runs it")
def document_killer():
    store = Store()
    with Trial({}, stages=(), ingest=True, **store.environment) as t, \
         Supervisor(t.cluster, "embed", 2, faulty("embed", "abort")) as supervisor:
        folder = os.path.join(t.cluster.directory, "documents")
        os.mkdir(folder)
        for number in range(MARKED - 20, MARKED + 1):
            with open(os.path.join(folder, f"{number}.txt"), "w", encoding="utf-8") as f:
                f.write(f"Question {number}: what does a document say? " * 200)
        t.fault()
        done = t.cluster.sluice("ingest", folder, check=False)
        told = json.loads(done.stdout)
        t.finish(Rules())
        t.findings.recovery_s = None  # Nobody waits for an answer.
        check_letter(t, dead_letters(t, "chunks"))
        if (told["processed"], told["failed"]) != (20, 1) or "three workers died" not in done.stderr:
            t.violation("I1", f"the run says {told} {done.stderr}")
        if {row[0] for row in store.rows()} != {f"{n}.txt" for n in range(MARKED - 20, MARKED)}:
            t.violation("I1", "not all other documents are in the store")
        t.notes.append(f"deaths after {check_deaths(t, supervisor)} s; the run: {done.stdout.strip()}")
    shutil.rmtree(store.directory)
    return t.findings


@row("20-signals", "five embed workers told twice to end (SIGTERM), a question in flight at each")
def told_twice():
    with Trial(two_of_each(), {"embed": {"latency_ms": 5000}}) as t:
        t.load(1, timeout_ms=120000)
        for _ in range(5):
            wait_until(lambda: t.in_flight("embed") == 1 or t.topic(), 30, "the question's call")
            if t.topic():
                break  # It has ended before its time, as the checker will say.
            t.fault()  # The last of them counts.
            worker = t.busy("embed", least=1)
            t.cluster.start("embed", wait=False)
            worker.signal(signal.SIGTERM)
            wait_until(lambda: "draining" in worker.log(), 10, "the first signal")
            worker.signal(signal.SIGTERM)
            t.cluster.killed.append(worker)  # It ends with 1: it did not finish what it had begun.
            if worker.process.wait(10) != 1:
                t.notes.append(f"an exit with {worker.process.returncode}")
        t.finish(Rules())
        embeds = [w for w in t.cluster.workers if w.name == "embed"]
        if count_lines(embeds, ALONE) or t.cluster.consume("queries.dlq"):
            t.violation("I1", "exits were taken for deaths")
    return t.findings


@row("5", "event loop blocked for 75 s, past the poll interval of 60 s; all else idle")
def loop_blocked():
    with Trial(two_of_each() | {"rerank": 1}) as t:
        blocked = t.cluster.start("rerank", **faulty("rerank", "block", 75))
        t.fault()
        t.load(8, "--concurrency", 8, first=10 * MARKED, timeout_ms=120000)
        wait_until(lambda: "standing still" in blocked.log(), 20, "the blocked worker")
        wait_until(lambda: "going on" in blocked.log(), 90, "its end")
        t.heal()
        t.wait_load()
        wait_until(lambda: blocked.ready() and blocked.metric("sluice_assigned_partitions") > 0, 30,
                   "the blocked worker has partitions again")
        t.load(40, "--concurrency", 10)
        t.finish(Rules(repeated=8))
        evictions = count_lines([blocked], EVICTED)
        others = count_lines([w for w in t.cluster.workers if w is not blocked], EVICTED)
        if evictions != 1 or others != 0:
            t.violation("I5", f"{evictions} evictions of the blocked worker, {others} of idle ones")
        if blocked.metric("sluice_jobs_total") == 0:
            t.violation("I5", "the blocked worker does nothing after it went on")
        t.notes.append(f"{evictions} eviction of the blocked worker, {others} of idle ones")
    return t.findings
