"""One row's run: a cluster, load on it, a fault, and what the checker says of it.

    with Trial(workers={"generate": 2}) as trial:
        trial.load(20, concurrency=20)
        trial.fault()
        trial.cluster.kill(...)
        trial.finish(Rules(...))
    return trial.findings
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests", "e2e"), os.path.join(ROOT, "tests", "support")]

from cluster import BIN, STAGES, Cluster, wait_until  # noqa: E402

import checker  # noqa: E402
import gateway_ledger  # noqa: E402
import offsets  # noqa: E402
import results  # noqa: E402

CLIENT = os.path.join(ROOT, "tests", "support", "client.py")
SANITIZED = b"__asan_init" in open(os.path.join(BIN, "sluice-gateway"), "rb").read()
BEHAVIOUR = {"embed": {"latency_ms": 50}, "vector": {"latency_ms": 50},
             "keyword": {"latency_ms": 50}, "rerank": {"latency_ms": 50},
             "chat": {"latency_ms": 100, "token_interval_ms": 25, "tokens": 40}}
LIMITS = ("EMBED", "VECTOR", "KEYWORD", "RERANK", "CHAT")
QUIET_SECONDS = 40

# The rows by their numbers in the fault matrix: {number: (what is injected, function, in CI)}.
ROWS = {}

# Of the random schedule, and of rows 9 and 12.
OPTIONS = {"seed": 1, "seconds": 60, "streams": 200}


class Missing(Exception):
    """What this machine lacks for a row, in one line."""


def row(number, injected, ci=False):
    def keep(function):
        ROWS[number] = (injected, function, ci)
        return function
    return keep


def two_of_each():
    return {name: 2 for name in STAGES}


class Sampler(threading.Thread):
    """The most that each program was seen to hold: what /proc says of it, and, as nobody else can
    count them, its own number of jobs."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self._cluster, self._stopped, self.peaks = cluster, threading.Event(), {}
        self._counter = threading.Thread(target=self._count_jobs, daemon=True)

    def _seen(self, worker, **values):
        peak = self.peaks.setdefault(worker.name, checker.Usage())
        for name, value in values.items():
            setattr(peak, name, max(getattr(peak, name), value))

    def run(self):
        self._counter.start()
        while not self._stopped.wait(0.25):
            for worker in list(self._cluster.workers):
                proc = f"/proc/{worker.process.pid}"
                try:
                    with open(f"{proc}/statm", encoding="ascii") as f:
                        mb = int(f.read().split()[1]) * 4096 / 1e6
                    self._seen(worker, rss_mb=mb, fds=len(os.listdir(f"{proc}/fd")))
                except (OSError, IndexError):
                    continue

    def _count_jobs(self):
        """Beside the others: a process that stands still does not answer."""
        while not self._stopped.wait(1):
            for worker in list(self._cluster.workers):
                if worker.process.poll() is None and worker.admin():
                    self._seen(worker, depth=int(worker.metric("sluice_jobs_in_flight")))

    def stop(self):
        self._stopped.set()
        self.join()
        self._counter.join()


class Noting(Cluster):
    """Its gateways keep a ledger of what they give."""

    def start(self, name, wait=True, **environment):
        if name == "gateway":
            environment = {"SLUICE_LOG_LEVEL": "debug"} | environment
        return super().start(name, wait, **environment)


class Trial:
    def __init__(self, workers=None, behaviour=None, limits=None, **environment):
        self.limits = {name: 100 for name in LIMITS} | (limits or {})
        settings = {f"SLUICE_{name}_LIMIT": n for name, n in self.limits.items()}
        settings |= {"SLUICE_EMBED_QUERY_LIMIT": self.limits["EMBED"], "SLUICE_LOG_LEVEL": "info"}
        self.cluster = Noting(workers=workers, **(settings | environment))
        self.cluster.keep = True  # Removed below, when no invariant broke.
        self._behaviour = BEHAVIOUR | (behaviour or {})
        self._loads, self._followed = [], []
        self.requests = []
        self.fault_ns = self.heal_ns = None
        self.findings = None
        self.notes = []

    def __enter__(self):
        self.cluster.__enter__()
        self.cluster.upstream.behave(**self._behaviour)
        self._sampler = Sampler(self.cluster)
        self._sampler.start()
        return self

    def load(self, n, *options, first=0, timeout_ms=60000, tokens=40, **body):
        """Starts a client that asks n questions; `options` are more of its arguments."""
        report = tempfile.NamedTemporaryFile(suffix=".json", dir=self.cluster.directory)
        command = [sys.executable, CLIENT, "--url", self.cluster.url, "--n", str(n), "--first",
                   str(first), "--tokens", str(tokens), "--json", report.name, "--body",
                   json.dumps({"timeout_ms": timeout_ms, **body}), *map(str, options)]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._loads.append((client, report, timeout_ms))

    def follow(self, callers):
        """Callers of returning.py, to be waited for as the clients are."""
        self._followed.append(callers)
        return callers

    def given(self):
        """What all gateways say that they gave; the logs of those that were killed may be cut."""
        ledger = {}
        for worker in self.cluster.workers:
            if worker.name == "gateway":
                with open(worker.log_path, encoding="utf-8", errors="replace") as f:
                    gateway_ledger.read(f, ledger, worker in self.cluster.killed)
        return ledger

    def wait_load(self, seconds=180):
        """Waits for all clients and takes what they saw."""
        for client, report, timeout_ms in self._loads:
            try:
                client.wait(seconds)
            except subprocess.TimeoutExpired:
                client.kill()
                raise AssertionError(f"the client did not end within {seconds} s") from None
            with open(report.name, encoding="utf-8") as f:
                records = json.load(f)["records"]
            self.requests += [checker.request_of(r, timeout_ms) for r in records]
        self._loads = []
        for callers in self._followed:
            self.requests += [checker.request_of(r, callers.timeout_ms)
                              for r in callers.records(seconds)]
        self._followed = []

    def fault(self):
        self.fault_ns = time.monotonic_ns()

    def heal(self):
        self.heal_ns = time.monotonic_ns()

    def in_flight(self, kind):
        return self.cluster.upstream.stats(events=False)[kind]["in_flight"]

    def busy(self, stage, least=2):
        """The worker of a stage that has the most jobs, once one has that many."""
        def found():
            return [w for w in self.cluster.of(stage) if w.metric("sluice_jobs_in_flight") >= least]
        workers = wait_until(found, 20, f"{stage} at work")
        return max(workers, key=lambda w: w.metric("sluice_jobs_in_flight"))

    def topic(self):
        return results.by_query(self.cluster.consume("results"))

    def memory(self):
        return {name: most.rss_mb for name, most in self._sampler.peaks.items()}

    def lag(self):
        status = json.loads(self.cluster.sluice("status", "--json", check=False).stdout)
        # The observer reads the results; it runs in no row.
        return {name: t["lag"] for t in status["topics"]
                if t["lag"] and (name := t["topic"].split(".", 1)[1]) != "results"}

    def permits(self):
        """Leases that Redis holds now."""
        seconds, micros = self.cluster.redis("TIME").split()
        now = int(seconds) * 1000 + int(micros) // 1000
        keys = self.cluster.redis("KEYS", f"{self.cluster.prefix}:permits:*").split()
        return sum(int(self.cluster.redis("ZCOUNT", key, str(now), "+inf")) for key in keys)

    def finish(self, rules):
        """Waits until all is quiet, then judges."""
        self.wait_load()
        accepted = {r.id for r in self.requests if r.accepted}
        self._until(lambda: accepted <= self.topic().keys())
        lag = self._until(lambda: not self.lag())
        self._until(lambda: not any(self.in_flight(kind) for kind in checker.KINDS))
        returned = self._until(lambda: not self.permits())
        rules.limits = {name.lower(): n for name, n in self.limits.items()} | rules.limits
        events, topic = self.cluster.upstream.ledger(), self.topic()
        self._keep(events, topic)
        self.findings = checker.check(self.requests, events, topic, rules, time.monotonic_ns(),
                                      self.fault_ns, self.heal_ns, self.given())
        self.findings.notes = self.notes
        checker.check_offsets(self.findings, offsets.account(self.cluster))
        if not lag:
            self.findings.add("I5", f"the lag does not return to 0: {self.lag()}")
        if not returned:
            self.findings.add("I3", f"{self.permits()} permits do not come back")
        self._rules = rules

    def violation(self, invariant, text):
        self.findings.add(invariant, text)

    @staticmethod
    def _until(condition):
        """Whether it came to be; that it did not is the checker's to say."""
        end = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.25)
        return False

    def _keep(self, events, topic):
        """What the judgement rests on, to look at after a violation."""
        told = {"fault_ns": self.fault_ns, "heal_ns": self.heal_ns, "ledger": events,
                "requests": [vars(r) for r in self.requests],
                "results": {k: [p.hex() for p in v] for k, v in topic.items()}}
        with open(os.path.join(self.cluster.directory, "trial.json"), "w", encoding="utf-8") as f:
            json.dump(told, f)

    def __exit__(self, kind, value, trace):
        self._sampler.stop()
        for client, _, _ in self._loads:
            client.kill()
            client.wait()
        try:
            self.cluster.__exit__(kind, value, trace)
        except AssertionError as error:
            self.findings.add("I9", str(error))
        if kind is not None:
            print(f"kept: {self.cluster.directory}", file=sys.stderr)
            return
        checker.check_usage(self.findings, self._sampler.peaks, self._rules, 5 if SANITIZED else 1)
        if self.findings.violations:
            print(f"kept: {self.cluster.directory}", file=sys.stderr)
        else:
            shutil.rmtree(self.cluster.directory, ignore_errors=True)
