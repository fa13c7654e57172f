"""Supervisor: keeps the processes running, restarts those that end, with a growing pause.

Each process is a section in a file of its own, so that adding or removing one leaves the others
alone. supervisord is spoken to by XML-RPC over a Unix socket, which lies in a short temporary
directory because the system limits such a path to about a hundred bytes.

Every process carries the variable STACK_OWNER, the stack's directory. By it the stack finds what is
left of itself even if supervisord was killed, and touches nothing else.
"""

import http.client
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import xmlrpc.client
from pathlib import Path

from .errors import StackError
from .terminal import last_lines

OWNER = "STACK_OWNER"
RPC_TIMEOUT = 30

# A process that ends sooner than this after its start did not start; the next try comes after a
# pause that grows by a second each time.
START_SECONDS = 5
START_RETRIES = 1_000_000

# Descriptors for the gateway's clients, where the system allows as many.
DESCRIPTORS = 65536

STOPPED_STATES = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=RPC_TIMEOUT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(RPC_TIMEOUT)
        self.sock.connect(self.path)


class UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def make_connection(self, host):
        return UnixConnection(self.path)


class Supervisor:
    def __init__(self, layout):
        self.layout = layout

    # ---- supervisord itself ----

    @property
    def socket(self):
        return self.layout.state.get("socket")

    def rpc(self):
        server = xmlrpc.client.ServerProxy("http://localhost/RPC2", UnixTransport(self.socket))
        return server.supervisor

    def is_running(self):
        if not self.socket:
            return False
        try:
            self.rpc().getPID()
            return True
        except (OSError, http.client.HTTPException):
            return False

    def start(self):
        directory = tempfile.mkdtemp(prefix="sluice-")
        if len(directory) > 60:
            os.rmdir(directory)
            directory = tempfile.mkdtemp(prefix="sluice-", dir="/tmp")
        self.layout.state["socket"] = f"{directory}/supervisor.sock"
        self.layout.save()
        config = self.layout.config / "supervisord.conf"
        config.write_text(self._config())
        # What a worker gets of the user's variables is in its section.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")
        }
        environment[OWNER] = str(self.layout.directory)
        program = self.layout.local / "venv/bin/supervisord"
        result = subprocess.run(
            [program, "-c", config], env=environment, capture_output=True, text=True
        )
        deadline = time.monotonic() + 15
        while not self.is_running():
            if result.returncode != 0 or time.monotonic() > deadline:
                log = self.layout.log("supervisord")
                raise StackError(
                    f"supervisord does not start: {result.stdout}{result.stderr}\n"
                    f"the log: {log}\nits last lines:\n{last_lines(log, 20)}"
                )
            time.sleep(0.05)

    def _config(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        directory = escape(str(self.layout.directory))
        lines = [
            "[supervisord]",
            f"logfile={escape(str(self.layout.log('supervisord')))}",
            "logfile_maxbytes=10MB",
            "logfile_backups=1",
            f"pidfile={directory}/supervisord.pid",
            f"childlogdir={escape(str(self.layout.logs))}",
            f"minfds={descriptors}",
            "user=root" if os.getuid() == 0 else "",
            "[unix_http_server]",
            f"file={self.socket}",
            "chmod=0700",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            "[include]",
            f"files={escape(str(self.layout.sections))}/*.conf",
        ]
        return "\n".join(lines) + "\n"

    def shutdown(self):
        """End supervisord; its processes are stopped already."""
        try:
            self.rpc().shutdown()
        except (OSError, http.client.HTTPException):
            pass

    def forget_socket(self):
        path = self.layout.state.pop("socket", None)
        if path:
            shutil.rmtree(Path(path).parent, ignore_errors=True)

    # ---- its processes ----

    def processes(self):
        """What supervisor says of each process, by name; nothing while it is not running."""
        if not self.is_running():
            return {}
        return {info["name"]: info for info in self.rpc().getAllProcessInfo()}

    def define(self, processes):
        """Write the sections of these processes and let supervisor take over what changed.

        A running process whose section changed is stopped; starting it again is the caller's part.
        """
        for process in processes:
            path = self.layout.sections / f"{process.name}.conf"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(self._section(process))
        rpc = self.rpc()
        try:
            added, changed, removed = rpc.reloadConfig()[0]
        except xmlrpc.client.Fault as fault:
            raise StackError(f"supervisor refuses its configuration: {fault.faultString}") from None
        self.stop(changed + removed)
        for name in changed + removed:
            rpc.removeProcessGroup(name)
        for name in changed + added:
            rpc.addProcessGroup(name)

    def remove(self, names):
        for name in names:
            (self.layout.sections / f"{name}.conf").unlink(missing_ok=True)
        self.define([])

    def _section(self, process):
        environment = dict(process.environment)
        environment[OWNER] = str(self.layout.directory)
        variables = sorted(environment.items())
        pairs = ",".join(f"{name}={quoted(name, value)}" for name, value in variables)
        lines = [
            f"[program:{process.name}]",
            f"command={escape(shlex.join(process.command))}",
            f"directory={escape(str(self.layout.directory))}",
            f"environment={pairs}",
            "autostart=false",
            "autorestart=true",
            f"startsecs={START_SECONDS}",
            f"startretries={START_RETRIES}",
            f"stopwaitsecs={process.stop_seconds}",
            "stopasgroup=true",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile={escape(str(self.layout.log(process.name)))}",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=2",
        ]
        return "\n".join(lines) + "\n"

    def start_process(self, name):
        """Returns at once; whether it came up is for the probe to say."""
        try:
            self.rpc().startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StackError(f"{name} cannot be started: {fault.faultString}") from None

    def stop(self, names, on_stopped=lambda name: None):
        """Stop processes side by side and wait for each; supervisor kills one that does not end."""
        rpc = self.rpc()
        waiting = set()
        for name in names:
            try:
                rpc.stopProcess(name, False)
                waiting.add(name)
            except xmlrpc.client.Fault as fault:
                if "NOT_RUNNING" not in fault.faultString and "BAD_NAME" not in fault.faultString:
                    raise StackError(f"{name} cannot be stopped: {fault.faultString}") from None
        while waiting:
            states = self.processes()
            for name in sorted(waiting):
                if name not in states or states[name]["statename"] in STOPPED_STATES:
                    waiting.remove(name)
                    on_stopped(name)
            if waiting:
                time.sleep(0.1)

    # ---- what is left ----

    def owned_pids(self):
        """All processes that carry this stack's mark, supervisord among them."""
        mark = f"{OWNER}={self.layout.directory}".encode()
        pids = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                try:
                    environment = Path("/proc", entry, "environ").read_bytes()
                except OSError:
                    continue
                if mark in environment.split(b"\0"):
                    pids.append(int(entry))
        return pids

    def end_leftovers(self, patience):
        """Wait for the stack's last processes to go, then end them. Returns how many it ended."""
        deadline = time.monotonic() + patience
        while self.owned_pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        ended = set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.owned_pids():
                try:
                    os.kill(pid, number)
                    ended.add(pid)
                except ProcessLookupError:
                    pass
            deadline = time.monotonic() + 10
            while self.owned_pids() and time.monotonic() < deadline:
                time.sleep(0.05)
        if self.owned_pids():
            raise StackError(f"these processes cannot be ended: {self.owned_pids()}")
        return len(ended)


def escape(text):
    """Supervisor expands %(name)s in its configuration."""
    return text.replace("%", "%%")


def quoted(name, value):
    """A value in a section's environment line, whose syntax has no escapes: some are refused."""
    quote = "'" if '"' in value else '"'
    if quote in value or "\n" in value or " ;" in value or " #" in value:
        raise StackError(f"{name} cannot be passed on: it has quotes, line ends, ' ;' or ' #'")
    return quote + escape(value) + quote
