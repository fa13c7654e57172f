"""What is measured, and what it runs on: the broker and Redis, the stub of all models and stores, and
the systems that answer the same requests. Each is a context manager that stops what it started.

A system has `name`; `url` of its gateway; `processes()`, its process ids by name; `client()`, the
command of the client that measures it; `uses_servers`, whether broker and Redis work for it. The
floor has no processes but its client.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from measure import BenchError, Progress, say
from prepare import COMPARE, ROOT, VENV

sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import cluster  # noqa: E402

PROGRAMS = os.environ.get("SLUICE_BENCH_BIN", os.path.join(ROOT, "build", "release", "bench"))
# A larger heap than deploy/stack's.
JAVA = "-Xms256m -Xmx512m -XX:+UseSerialGC"
WARM_RATE = 300
LIMIT = 10000  # Calls in flight of each upstream, and whatever else would hold back the load.
START_SECONDS = 60
STOP_SECONDS = 20
STAGES = cluster.STAGES


def program(name):
    return os.path.join(PROGRAMS, f"bench_{name}")


class Program:
    """One process with its output in a file, ready when a line matches `ready`. It leads a process
    group of its own, so that a Ctrl-C reaches it through stop() alone."""

    def __init__(self, name, command, directory, ready):
        self.name = name
        self._log_path = os.path.join(directory, f"{name}.log")
        self._log = open(self._log_path, "w", encoding="utf-8")
        self._ready = re.compile(ready, re.MULTILINE)
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log,
                                             stderr=self._log, start_new_session=True)
        except OSError as error:
            self._log.close()
            raise BenchError(f"{command[0]}: {error.strerror}; is it built?") from None
        self.pid = self._process.pid

    def log(self):
        with open(self._log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_ready(self):
        """The match of the line that says so."""
        end = time.monotonic() + START_SECONDS
        while True:
            found = self._ready.search(self.log())
            if found:
                return found
            if self._process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"{self.name} did not start:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                say(f"  {self.name} did not end by itself")
                self._process.kill()
                self._process.wait()
        self._log.close()


class Programs:
    """Several of them, and the directory of their logs."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-bench-")
        self._programs = []

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error):
        for started in reversed(self._programs):
            started.stop()
        self._programs.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, name, command, ready):
        self._programs.append(Program(name, command, self.directory, ready))
        return self._programs[-1]

    def processes(self):
        return {started.name: started.pid for started in self._programs}


class Stub(Programs):
    """bench_upstream: every model and store, with exact latencies."""

    IDEAL = {"embed_ms": 120, "vector_ms": 150, "keyword_ms": 100, "rerank_ms": 200, "chat_ms": 300}
    FIRST_TOKEN_MS = 120 + max(150, 100) + 200 + 300

    def begin(self):
        started = self.start("stub", [program("upstream"), "--listen", "127.0.0.1:0"], r"port=(\d+)")
        self.port = int(started.wait_ready()[1])
        self.pid = started.pid
        self.url = f"http://127.0.0.1:{self.port}"

    def _ask(self, path, method="GET", value=None):
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    def behave(self, tokens=50, interval_ms=30, free=False, **others):
        """`free`: no latencies at all."""
        latencies = dict.fromkeys(self.IDEAL, 0) if free else self.IDEAL
        self._ask("/behaviour", "PUT", {"dimensions": 384, "chunk_bytes": 600, **latencies,
                                        "tokens": tokens, "interval_ms": 0 if free else interval_ms,
                                        **others})

    def reset(self):
        self._ask("/stats/reset", "POST", {})

    def stats(self):
        return json.loads(self._ask("/stats"))


class Servers:
    """Kafka and Redis by deploy/stack, on free ports; started when they are first needed, so that
    what does without them is measured without them."""

    def __init__(self, warm_seconds):
        self._warm_seconds = warm_seconds
        self._directory = None
        self._pids = {}

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self._directory:
            self._stack("down", "--purge")
            shutil.rmtree(self._directory, ignore_errors=True)

    def _stack(self, *arguments):
        environment = dict(os.environ, SLUICE_STACK_DIR=self._directory, SLUICE_STACK_KAFKA_PORT="0",
                           SLUICE_STACK_CONTROLLER_PORT="0", SLUICE_STACK_REDIS_PORT="0")
        environment.setdefault("SLUICE_STACK_KAFKA_OPTIONS", JAVA)
        done = subprocess.run([os.path.join(ROOT, "deploy", "stack"), *arguments], env=environment,
                              capture_output=True, text=True, check=False, start_new_session=True)
        # `status` ends with 1 when the parts of the stack that nobody asked for do not run.
        if done.returncode != 0 and arguments[0] != "status":
            raise BenchError(f"deploy/stack {arguments[0]}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def start(self):
        if self._directory:
            return
        with Progress("start and warm Kafka and Redis") as progress:
            began = time.monotonic()
            self._start()
            progress.done(f"{time.monotonic() - began:.1f} s")

    def _start(self):
        self._directory = tempfile.mkdtemp(prefix="sluice-bench-stack-")
        self._stack("up", "--only", "kafka,redis")
        with open(os.path.join(self._directory, "ports.json"), encoding="utf-8") as f:
            ports = json.load(f)
        self.brokers = f"127.0.0.1:{ports['kafka']}"
        self.redis = f"redis://127.0.0.1:{ports['redis']}"
        os.environ["SLUICE_TEST_BROKERS"], os.environ["SLUICE_TEST_REDIS"] = self.brokers, self.redis
        status = json.loads(self._stack("status", "--json"))
        rows = status if isinstance(status, list) else status["processes"]
        self._pids = {row["process"]: row["pid"] for row in rows if row["pid"]}
        # Java compiles what it has seen often: a new broker takes ten times the processor time.
        hops(self, WARM_RATE, self._warm_seconds)

    def processes(self):
        return self._pids


# ---- the systems ------------------------------------------------------------------------------


class Sluice:
    """Every program of Sluice, single workers unless `workers` says how many of which stage."""

    name, label, uses_servers = "sluice", "Sluice", True

    def __init__(self, stub, servers, workers=None, limits=None, ingest=False, **environment):
        servers.start()
        limits = {name: LIMIT for name in ("EMBED", "VECTOR", "KEYWORD", "RERANK", "CHAT")} | (
            limits or {})
        settings = {f"SLUICE_{name}_LIMIT": limit for name, limit in limits.items()}
        settings |= {"SLUICE_EMBED_QUERY_LIMIT": limits["EMBED"], "SLUICE_EMBED_RESERVE": 1,
                     "SLUICE_EMBED_CACHE": 0,  # The others have none either.
                     "SLUICE_MAX_INFLIGHT": LIMIT, "SLUICE_MAX_CONNECTIONS": LIMIT,
                     "SLUICE_LOG_LEVEL": "warn", "SLUICE_PARTITIONS": 12}
        settings |= environment
        self.cluster = cluster.Cluster(workers=workers, ingest=ingest, upstream=stub, **settings)

    def __enter__(self):
        try:
            self.cluster.__enter__()
        except AssertionError as problem:
            raise BenchError(str(problem)) from None
        self.url = self.cluster.url
        return self

    def __exit__(self, kind, *_error):
        # Their logs are of interest where one of them ended before it was asked to.
        ended = any(worker.process.poll() is not None for worker in self.cluster.workers)
        try:
            self.cluster.__exit__(kind if ended else kind and KeyboardInterrupt, None, None)
        except AssertionError as problem:
            raise BenchError(str(problem)) from None

    def workers(self):
        """Workers by name: gateway, embed, embed-2 ..."""
        named = {}
        for worker in self.cluster.workers:
            nth = sum(name.split("-")[0] == worker.name for name in named) + 1
            named[worker.name if nth == 1 else f"{worker.name}-{nth}"] = worker
        return named

    def processes(self):
        return {name: worker.process.pid for name, worker in self.workers().items()}

    def client(self):
        return [program("load"), "--url", self.url + "/v1/query"]


class Python(Programs):
    """What the two designs in Python have in common."""

    def client(self):
        return [program("load"), "--url", self.url + "/v1/query"]

    def launch(self, name, script, *arguments, ready=r"ready"):
        command = [os.path.join(VENV, "bin", "python"), os.path.join(COMPARE, script), *arguments]
        return self.start(name, command, ready)


class Asyncio(Python):
    """(a): one process, FastAPI and semaphores."""

    name, label, uses_servers = "asyncio", "(a) asyncio, one process", False

    def __init__(self, stub, _servers):
        super().__init__()
        self._stub = stub

    def begin(self):
        started = self.launch("app", "asyncio_app.py", "--port", str(cluster.free_port()), "--upstream",
                              self._stub.url, "--limit", str(LIMIT), ready=r"port=(\d+)")
        self.url = f"http://127.0.0.1:{started.wait_ready()[1]}"


class JobQueue(Python):
    """(b): a gateway and four workers over the same broker and Redis."""

    name, label, uses_servers = "jobqueue", "(b) Python job queue", True

    def __init__(self, stub, servers):
        super().__init__()
        servers.start()
        self._where = ["--brokers", servers.brokers, "--redis", servers.redis,
                       "--prefix", f"jq{os.getpid()}-{time.monotonic_ns()}."]
        self._upstream = ["--upstream", stub.url, "--limit", str(LIMIT)]

    def begin(self):
        port = cluster.free_port()
        gateway = self.launch("gateway", "job_queue.py", "gateway", "--port", str(port), *self._where)
        gateway.wait_ready()  # It has made the topics.
        workers = [self.launch(stage, "job_queue.py", "worker", stage, *self._where, *self._upstream)
                   for stage in STAGES]
        for worker in workers:
            worker.wait_ready()
        self.url = f"http://127.0.0.1:{port}"


class FloorCalls:
    """(c), the calls: a minimal client that makes the five calls itself."""

    name, label, uses_servers = "calls", "(c) five calls from C", False

    def __init__(self, stub, _servers):
        self._stub = stub

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        pass

    @staticmethod
    def processes():
        return {}

    def client(self):
        return [program("floor_calls"), "--upstream", self._stub.url]


SYSTEMS = {system.name: system for system in (FloorCalls, Asyncio, Sluice, JobQueue)}
LABELS = {**{name: system.label for name, system in SYSTEMS.items()},
          "hops": "(c) five Kafka hops in C"}


def hops(servers, rate, seconds):
    """What bench_floor_hops says of a chain of five hops at a rate."""
    servers.start()
    command = [program("floor_hops"), "--brokers", servers.brokers, "--rate", f"{rate:.4f}",
               "--seconds", str(seconds), "--broker-pid", str(servers.processes()["kafka"]),
               "--json", "-"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 90,
                              check=False, start_new_session=True)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise BenchError(f"bench_floor_hops did not end within {seconds + 90} s") from None
    except ValueError:
        lines = done.stderr.strip().splitlines()
        raise BenchError(f"bench_floor_hops: {lines[-1] if lines else done.returncode}") from None
