"""Where everything is: the repository, what setup installed, and the files of one stack.

    <stack directory>/
        conf/            supervisord.conf, processes/ with a section each, Kafka's and Redis's
        data/            kafka/, redis/, sluice.db
        logs/            one log a process, supervisord.log, topics.log
        ports.json       the port of each part
        state.json       the programs' directory, instances of each worker, supervisor's socket
        lock             held by a command that changes the stack
"""

import fcntl
import json
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from .errors import StackError
from .ports import Ports
from .terminal import say

ROOT = Path(__file__).resolve().parents[2]
LOCK_SECONDS = 300


class Layout:
    def __init__(self, environ):
        self.environ = environ
        self.root = ROOT
        self.local = Path(environ.get("SLUICE_LOCAL") or ROOT / ".local").absolute()
        # Not in SLUICE_LOCAL, which several checkouts may share.
        default = ROOT / ".local/stack"
        self.directory = Path(environ.get("SLUICE_STACK_DIR") or default).absolute()
        self.config = self.directory / "conf"
        self.sections = self.config / "processes"
        self.data = self.directory / "data"
        self.logs = self.directory / "logs"
        self.state = self._read("state.json")
        self.ports = Ports(environ, self._read("ports.json"))

    @property
    def bin(self):
        return Path(self.state.get("bin", ROOT / "build/bin"))

    def count(self, component):
        """How many instances a worker is to have."""
        return self.state.get("instances", {}).get(component, 1)

    def log(self, name):
        return self.logs / f"{name}.log"

    def _read(self, name):
        try:
            return json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise StackError(f"{self.directory / name} is damaged: {error}") from None

    def make(self):
        """The directories; configuration may hold API keys, so nobody else may read it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for directory in (self.config, self.sections, self.data, self.logs):
            directory.mkdir(mode=0o700, exist_ok=True)

    def save(self):
        write_file(self.directory / "state.json", json.dumps(self.state, indent=2) + "\n")
        write_file(self.directory / "ports.json", json.dumps(self.ports.chosen, indent=2) + "\n")

    def purge(self):
        """Remove all but the lock, which others may be waiting for."""
        for directory in (self.config, self.data, self.logs):
            shutil.rmtree(directory, ignore_errors=True)
        for name in ("state.json", "ports.json"):
            (self.directory / name).unlink(missing_ok=True)

    @contextmanager
    def locked(self):
        """One command at a time changes the stack."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "w") as lock:
            deadline = time.monotonic() + LOCK_SECONDS
            told = False
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        say("  another deploy/stack is changing this stack: waiting for it")
                        told = True
                    if time.monotonic() > deadline:
                        raise StackError("the other deploy/stack did not end") from None
                    time.sleep(0.2)
            # Whoever held the lock may have changed both.
            self.state = self._read("state.json")
            self.ports = Ports(self.environ, self._read("ports.json"))
            yield


def write_file(path, text):
    """Replace a file as a whole: a reader sees the old text or the new one."""
    partial = path.with_name(path.name + ".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(partial, path)
