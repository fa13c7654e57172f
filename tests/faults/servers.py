"""A Redis and a Kafka of one row's own, to be killed, emptied and stopped."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from cluster import ROOT, free_port, wait_until


class _Named:
    """Puts its address in the environment while it is open, for cluster.py."""

    variable = None

    def _name(self, value):
        self._before = os.environ.get(self.variable)
        os.environ[self.variable] = value

    def _unname(self):
        os.environ[self.variable] = self._before


class OwnRedis(_Named):
    """Without persistence: after a restart it is empty."""

    variable = "SLUICE_TEST_REDIS"

    def __enter__(self):
        self.port = free_port()
        self._directory = tempfile.mkdtemp(prefix="sluice-redis-")
        self.start()
        self._name(f"redis://127.0.0.1:{self.port}")
        return self

    def start(self):
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--maxmemory-policy", "noeviction", "--dir", self._directory],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.cli("PING", check=False) == "PONG\n", 10, "Redis answers")

    def cli(self, *command, check=True):
        return subprocess.run(["redis-cli", "-p", str(self.port), *command], check=check,
                              capture_output=True, text=True, timeout=30).stdout

    def kill(self):
        self._process.kill()
        self._process.wait()

    def signal(self, number):
        self._process.send_signal(number)

    def __exit__(self, *_error):
        self._unname()
        self._process.send_signal(signal.SIGCONT)
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class OwnKafka(_Named):
    """By deploy/stack; its supervisor starts a killed broker anew as soon as it may. `disk` is what
    holds its data, given where it is to be mounted."""

    variable = "SLUICE_TEST_BROKERS"

    def __init__(self, disk=None):
        self._mount = disk
        self._mounts = contextlib.ExitStack()

    def __enter__(self):
        self._directory = tempfile.mkdtemp(prefix="sluice-kafka-")
        if self._mount:
            data = os.path.join(self._directory, "data", "kafka")
            self.disk = self._mounts.enter_context(self._mount(data))
        try:
            return self._up()
        except BaseException:
            self._remove()
            raise

    def _up(self):
        self._environment = dict(os.environ, SLUICE_STACK_DIR=self._directory,
                                 SLUICE_STACK_KAFKA_PORT="0", SLUICE_STACK_CONTROLLER_PORT="0")
        self._stack = os.path.join(ROOT, "deploy", "stack")
        subprocess.run([self._stack, "up", "--only", "kafka"], env=self._environment, check=True,
                       stdout=sys.stderr)
        with open(os.path.join(self._directory, "ports.json"), encoding="utf-8") as f:
            port = json.load(f)["kafka"]
        with open(os.path.join(self._directory, "supervisord.pid"), encoding="utf-8") as f:
            self._supervisor = int(f.read())
        self._name(f"127.0.0.1:{port}")
        return self

    def _broker(self):
        path = f"/proc/{self._supervisor}/task/{self._supervisor}/children"
        with open(path, encoding="ascii") as f:
            return int(f.read().split()[0])

    def answers(self):
        return subprocess.run(["kcat", "-L", "-b", os.environ[self.variable], "-m", "2"],
                              check=False, capture_output=True, timeout=20).returncode == 0

    def kill_for(self, seconds):
        """kill -9; a new broker on the same data after that time. Returns when it answers."""
        os.kill(self._supervisor, signal.SIGSTOP)
        os.kill(self._broker(), signal.SIGKILL)
        time.sleep(seconds)
        os.kill(self._supervisor, signal.SIGCONT)
        wait_until(self.answers, 60, "the broker answers again")

    def hang_for(self, seconds):
        broker = self._broker()
        os.kill(broker, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(broker, signal.SIGCONT)

    def _remove(self):
        try:
            subprocess.run([self._stack, "down"], env=self._environment, check=False,
                           capture_output=True)
        finally:  # Also when a second ctrl-C ends the wait for it.
            self._mounts.close()
        subprocess.run([self._stack, "down", "--purge"], env=self._environment, check=False,
                       capture_output=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __exit__(self, *_error):
        self._unname()
        self._remove()
