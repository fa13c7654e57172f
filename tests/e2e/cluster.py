"""A whole Sluice for one test: its own topics on the shared Kafka, its own keys in the shared Redis, a
scripted upstream, and every program as a process of its own.

tests/run starts Kafka and Redis and names them in SLUICE_TEST_BROKERS and SLUICE_TEST_REDIS; where
they are not named, the first cluster starts both for this process.
"""

import atexit

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

from upstream import UpstreamProcess  # noqa: E402

BIN = os.environ.get("SLUICE_TEST_BIN", os.path.join(ROOT, "build", "asan"))
STAGES = ("embed", "retrieve", "rerank", "generate")
SANITIZER = re.compile(r"ERROR: (Address|Leak|Thread)Sanitizer|runtime error:")
START_SECONDS = 40


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, seconds, what):
    """The first true value of condition(), or an AssertionError that says what did not come."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def get(url, timeout=5):
    """Status and body, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def ensure_servers():
    """Kafka and Redis, by deploy/stack on free ports, unless the environment names them."""
    if "SLUICE_TEST_BROKERS" in os.environ and "SLUICE_TEST_REDIS" in os.environ:
        return
    directory = tempfile.mkdtemp(prefix="sluice-servers-")
    stack = os.path.join(ROOT, "deploy", "stack")
    environment = dict(os.environ, SLUICE_STACK_DIR=directory, SLUICE_STACK_KAFKA_PORT="0",
                       SLUICE_STACK_CONTROLLER_PORT="0", SLUICE_STACK_REDIS_PORT="0")

    def down():
        subprocess.run([stack, "down", "--purge"], env=environment, check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
    atexit.register(down)
    subprocess.run([stack, "up", "--only", "kafka,redis"], env=environment, check=True,
                   stdout=sys.stderr)
    with open(os.path.join(directory, "ports.json"), encoding="utf-8") as f:
        ports = json.load(f)
    os.environ["SLUICE_TEST_BROKERS"] = f"127.0.0.1:{ports['kafka']}"
    os.environ["SLUICE_TEST_REDIS"] = f"redis://127.0.0.1:{ports['redis']}"


class Worker:
    """One process of the cluster; its log is a file. `under` is a command that runs another."""

    def __init__(self, name, environment, directory, number, under=()):
        self.name = name
        self._host, _, self._port = environment["SLUICE_ADMIN_LISTEN"].rpartition(":")
        self.log_path = os.path.join(directory, f"{name}-{number}.log")
        self._log = open(self.log_path, "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [*under, os.path.join(BIN, f"sluice-{name}")], env=environment, stdin=subprocess.DEVNULL,
            stdout=self._log, stderr=self._log)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def admin(self):
        if self._port != "0":
            return f"http://{self._host}:{self._port}"
        found = re.search(r"admin_port=(\d+)", self.log())
        return f"http://{self._host}:{found.group(1)}" if found else None

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        admin = self.admin()
        return admin is not None and get(admin + "/readyz")[0] == 200

    def metric(self, name):
        """The sum of a metric's series, 0 where there is none."""
        text = get(self.admin() + "/metrics")[1].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith(name) and line[len(name)] in " {")

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, seconds=20):
        """SIGTERM; the exit code. A process that does not end is killed and is an error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end within {seconds} s:\n{self.log()[-4000:]}")
        finally:
            self._log.close()


class Cluster:
    """`with Cluster() as c:` ... c.url is the gateway, c.upstream the scripted models and stores.

    `upstream` is another server that plays them, one with a `port`; whoever gives it stops it."""

    keep = False  # The directory with the logs also when all went well.
    _count = 0

    def __init__(self, gateway=True, ingest=False, workers=None, stages=STAGES, fresh_redis=False,
                 upstream=None, **environment):
        ensure_servers()
        self._fresh_redis = fresh_redis
        Cluster._count += 1
        self.prefix = f"t{os.getpid()}-{Cluster._count}"
        self.directory = tempfile.mkdtemp(prefix="sluice-e2e-")
        self.workers = []
        self.killed = []
        self._wanted = [name for name in stages for _ in range((workers or {}).get(name, 1))]
        self._wanted += ["ingest"] * ingest + ["gateway"] * gateway
        self._extra = {key: str(value) for key, value in environment.items()}
        self.upstream = upstream or UpstreamProcess()
        self._own_upstream = upstream is None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def environment(self, **more):
        base = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
        upstream = f"http://127.0.0.1:{self.upstream.port}"
        base.update({
            "SLUICE_KAFKA_BROKERS": os.environ["SLUICE_TEST_BROKERS"],
            "SLUICE_REDIS_URL": os.environ["SLUICE_TEST_REDIS"],
            "SLUICE_TOPIC_PREFIX": self.prefix,
            "SLUICE_PARTITIONS": "4",
            "SLUICE_EMBED_URL": upstream + "/v1", "SLUICE_RERANK_URL": upstream + "/v1",
            "SLUICE_CHAT_URL": upstream + "/v1", "SLUICE_CHAT_MODEL": "stub-chat",
            "SLUICE_VECTOR_URL": f"qdrant+http://127.0.0.1:{self.upstream.port}/docs",
            "SLUICE_KEYWORD_URL": f"opensearch+http://127.0.0.1:{self.upstream.port}/docs",
            "SLUICE_LISTEN": f"127.0.0.1:{self.port}", "SLUICE_URL": self.url,
            "SLUICE_ADMIN_LISTEN": "127.0.0.1:0", "SLUICE_LOG_LEVEL": "debug",
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""),
        })
        base.update(self._extra)
        base.update({key: str(value) for key, value in more.items()})
        return base

    def __enter__(self):
        try:
            self.sluice("topics", "create")
            if not self._fresh_redis:
                self._age_redis()
            for name in self._wanted:
                self.start(name, wait=False)
            for worker in self.workers:
                wait_until(worker.ready, START_SECONDS, f"{worker.name} ready")
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, _value, _trace):
        problems = []
        for worker in reversed(self.workers):
            try:
                code = worker.stop(90)
                if code != 0 and worker not in self.killed:
                    problems.append(f"{worker.name} ended with {code}")
            except AssertionError as error:
                problems.append(str(error))
        for worker in self.workers:
            if SANITIZER.search(worker.log()):
                problems.append(f"{worker.name}:\n{worker.log()[-6000:]}")
        if self._own_upstream:
            self.upstream.stop()
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if (problems or kind is not None) and not interrupted:
            for worker in self.workers:
                print(f"--- {worker.log_path}\n{worker.log()[-3000:]}", file=sys.stderr)
        elif not self.keep:
            atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        if problems and kind is None:
            raise AssertionError("\n".join(problems))

    def redis(self, *command):
        return subprocess.run(["redis-cli", "-u", os.environ["SLUICE_TEST_REDIS"], *command],
                              check=True, capture_output=True, text=True, timeout=10).stdout

    def _age_redis(self):
        """As if this Redis had been in use for long: no quarantine at the start of the test."""
        run = re.search(r"run_id:(\w+)", self.redis("INFO", "server")).group(1)
        self.redis("HSET", f"{self.prefix}:epoch", "since", "1", "run", run)

    # ---- processes ----

    def start(self, name, wait=True, under=(), **environment):
        if self._extra.get("SLUICE_LOG_LEVEL") in ("warn", "error"):
            # A log of that level does not name the port.
            environment.setdefault("SLUICE_ADMIN_LISTEN", f"127.0.0.1:{free_port()}")
        worker = Worker(name, self.environment(**environment), self.directory, len(self.workers),
                        under)
        self.workers.append(worker)
        if wait:
            wait_until(worker.ready, START_SECONDS, f"{name} ready")
        return worker

    def of(self, name):
        return [w for w in self.workers if w.name == name and w.process.poll() is None]

    def kill(self, worker):
        worker.process.kill()
        worker.process.wait()
        self.killed.append(worker)

    def sluice(self, *arguments, check=True, timeout=120, **options):
        done = subprocess.run([os.path.join(BIN, "sluice"), *arguments], env=self.environment(),
                              capture_output=True, text=True, timeout=timeout, check=False, **options)
        if check and done.returncode != 0:
            raise AssertionError(f"sluice {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
        return done

    # ---- Kafka, through kcat ----

    def topic(self, name):
        return f"{self.prefix}.{name}"

    def produce(self, topic, value, key=None, headers=()):
        command = ["kcat", "-P", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t", self.topic(topic)]
        if key is not None:
            command += ["-k", key]
        for header in headers:
            command += ["-H", header]
        path = os.path.join(self.directory, "value")
        with open(path, "wb") as f:
            f.write(value)
        subprocess.run(command + [path], check=True, timeout=30, capture_output=True)

    def consume(self, topic):
        """All records of a topic now, as dicts with key, payload, headers, partition, offset."""
        form = '{"key":"%k","partition":%p,"offset":%o,"headers":"%h","size":%S}\\n%s\\n%%end%%\\n'
        out = subprocess.run(
            ["kcat", "-C", "-q", "-e", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t",
             self.topic(topic), "-o", "beginning", "-f", form],
            check=True, timeout=30, capture_output=True).stdout
        records = []
        for part in out.split(b"\n%end%\n")[:-1]:
            head, _, payload = part.partition(b"\n")
            record = json.loads(head)
            record["payload"] = payload
            record["headers"] = dict(h.split("=", 1) for h in record["headers"].split(",") if "=" in h)
            records.append(record)
        return records

    # ---- HTTP ----

    def post(self, path, body, headers=None, timeout=60):
        """Status, headers, body as bytes."""
        request = urllib.request.Request(
            self.url + path, data=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def ask(self, question, path="/v1/query", **fields):
        status, _, body = self.post(path, {"query": question, **fields})
        return status, json.loads(body)
