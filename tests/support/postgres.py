"""A PostgreSQL server of one test, in a directory that goes with it.

PostgreSQL refuses to run as root, so as root it runs as the user nobody. Its socket and its port on
loopback are its own; the system's server, should there be one, is not touched.
"""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

SECONDS = 60
USER = "sluice"
PASSWORD = "s3cret-w0rd"


def find_binaries():
    """Debian keeps each version's programs in a directory of its own, outside the path."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    path = found[-1] if found else shutil.which("postgres")
    if path is None:
        raise AssertionError("there is no PostgreSQL: deploy/setup --tests installs it")
    return os.path.dirname(path)


class Postgres:
    """`with Postgres() as server:` ... server.url, server.sql("select 1"), server.restart()."""

    def __init__(self):
        self.binaries = find_binaries()
        self.directory = tempfile.mkdtemp(prefix="sluice-pg-")
        self.data = os.path.join(self.directory, "data")
        self.process = None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def __enter__(self):
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _as_nobody(self, *command):
        drop = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        return (drop if os.geteuid() == 0 else []) + list(command)

    def _prepare(self):
        if os.geteuid() == 0:
            shutil.chown(self.directory, "nobody", "nogroup")
        password = os.path.join(self.directory, "password")
        with open(password, "w", encoding="utf-8") as f:
            f.write(PASSWORD + "\n")
        command = self._as_nobody(
            os.path.join(self.binaries, "initdb"), "-D", self.data, "-U", USER, "--pwfile", password,
            "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory, timeout=SECONDS)

    def start(self):
        command = self._as_nobody(
            os.path.join(self.binaries, "postgres"), "-D", self.data, "-p", str(self.port),
            "-h", "127.0.0.1", "-k", self.directory, "-c", "fsync=off", "-c", "shared_buffers=16MB",
            "-c", "max_connections=20")
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while self.sql("SELECT 1", check=False) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                    raise AssertionError("PostgreSQL does not start:\n" + log.read()[-3000:])
            time.sleep(0.1)

    def stop(self, number=signal.SIGINT):
        """SIGINT: connections are closed; SIGQUIT: as if the power had gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(SECONDS)
            self.process = None

    def restart(self, number=signal.SIGINT):
        self.stop(number)
        self.start()

    def sql(self, text, check=True):
        """What psql prints: a line a row, columns divided by |. None: it failed (check false)."""
        done = subprocess.run(
            [os.path.join(self.binaries, "psql"), self.url, "-X", "-q", "-A", "-t", "-v",
             "ON_ERROR_STOP=1", "-c", text], capture_output=True, text=True, timeout=SECONDS, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"psql: {text}: {done.stderr}")
        return done.stdout.rstrip("\n") if done.returncode == 0 else None
