"""What one run of the client tells, and what /proc and /metrics tell of the servers meanwhile.

A run has a warm-up and a counted phase. Processor time is read at both ends of the counted phase and
divided by the requests that were due in it and answered: what is left over of the warm-up at its
begin is about what is left over of it at its end, so the two cancel out. In a run that falls behind
they do not; such a run is marked by its failures and its times, and its processor time is then too
low.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')
QUIET_CORES = 0.08
QUIET_SECONDS = 20


class BenchError(Exception):
    """What a user should read as one line; the benchmark cannot go on with what it was doing."""


def say(text, end="\n"):
    print(text, end=end, file=sys.stderr, flush=True)


def ms(value):
    """As many digits as mean something; nothing for what there was none of."""
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


class Progress:
    """One line a run: what runs, and behind it what came out."""

    def __init__(self, label):
        self._label = f"  {label:34}"

    def __enter__(self):
        if sys.stderr.isatty():
            say(self._label + " ...", end="\r")
        return self

    def __exit__(self, kind, error, _trace):
        if kind is not None and issubclass(kind, BenchError):
            self.done(f"failed: {error}")

    def done(self, text):
        say(f"{self._label} {text}\033[K" if sys.stderr.isatty() else f"{self._label} {text}")


@dataclass(frozen=True)
class Load:
    """What the client is to do. Open loop at `rate` a second, or `streams` that begin again as they
    end; `ideal_ms` is when the first token would come if nothing but the upstream took time."""

    rate: float = None
    streams: int = None
    tokens: int = 50
    ideal_ms: float = 0
    seconds: float = 10
    warmup: float = 4
    timeout_ms: int = 30000
    extra: tuple = ()

    def arguments(self):
        pace = ["--rate", f"{self.rate:.4f}"] if self.rate else ["--streams", str(self.streams)]
        return [*pace, "--seconds", str(self.seconds), "--warmup", str(self.warmup), "--tokens",
                str(self.tokens), "--ideal-ms", f"{self.ideal_ms:g}", "--timeout-ms",
                str(self.timeout_ms), *self.extra, "--json", "-"]

    @property
    def limit_s(self):
        """When a client that goes on is a mistake of ours."""
        return self.warmup + self.seconds + self.timeout_ms / 1000 + 30


# ---- processes --------------------------------------------------------------------------------


def cpu_seconds(pid):
    """User's and system's, of all threads; None of a process that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of(processes):
    """Processor seconds by name, of a dict of process ids."""
    return {name: cpu_seconds(pid) for name, pid in processes.items()}


def pss_kb(pid):
    """Memory, with what is shared divided by those who share it."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def settle(processes):
    """Waits until these processes have no work left, for at most QUIET_SECONDS."""
    end = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < end:
        before, began = cpu_of(processes), time.monotonic()
        time.sleep(0.3)
        used = used_between(before, cpu_of(processes))
        if sum(used.values()) < QUIET_CORES * (time.monotonic() - began) * max(1, len(used) / 4):
            return


def used_between(before, after):
    ended = [name for name in before if before[name] is None or after[name] is None]
    if ended:
        raise BenchError(f"{', '.join(map(str, ended))} ended during the measurement")
    return {name: after[name] - before[name] for name in before}


# ---- metrics ----------------------------------------------------------------------------------


def scrape(url):
    """All series of a /metrics page: {(name, ((label, value), ...)): number}."""
    with urllib.request.urlopen(url + "/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    found = (SERIES.match(line) for line in lines if not line.startswith("#"))
    return {(m[1], tuple(sorted(LABEL.findall(m[2] or "")))): float(m[3]) for m in found if m}


def means_between(before, after):
    """Of each histogram that grew: {(name, labels): (mean in seconds, count)}."""
    means = {}
    for (name, labels), value in after.items():
        if not name.endswith("_sum"):
            continue
        base = name[:-len("_sum")]
        count_key, sum_key = (base + "_count", labels), (name, labels)
        count = after.get(count_key, 0) - before.get(count_key, 0)
        if count > 0:
            means[base, labels] = ((value - before.get(sum_key, 0)) / count, int(count))
    return means


# ---- a run ------------------------------------------------------------------------------------


class Client:
    """The client under way. A context manager: it is ended at the latest when the block is left."""

    def __init__(self, command, load):
        self.load = load
        self._process = subprocess.Popen([*command, *load.arguments()], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()

    def sleep(self, seconds):
        """Waits, unless the client ends before: then it has said why."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        if self._process.returncode != 0:
            raise BenchError(self._complaint(self._process.communicate()[1]))

    def result(self):
        try:
            out, err = self._process.communicate(timeout=self.load.limit_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"the client did not end within {self.load.limit_s:.0f} s") from None
        try:
            return json.loads(out)
        except ValueError:
            raise BenchError(self._complaint(err)) from None

    def _complaint(self, err):
        lines = err.strip().splitlines()
        return f"the client ended with {self._process.returncode}: {lines[-1] if lines else ''}"


def run(system, servers, stub, load):
    """The client's result, and beside it `cpu_ms`: milliseconds a request of each process, of `own`
    (the system's), `all` (with the broker and Redis); `cores`: how many these, the client and the
    stub kept busy; `stub_late_ms`."""
    settle(system.processes())
    with Client(system.client(), load) as client:
        watched = {("own", name): pid for name, pid in system.processes().items()}
        if system.uses_servers:
            watched |= {("shared", name): pid for name, pid in servers.processes().items()}
        watched |= {("" if watched else "own", "client"): client.pid, ("", "stub"): stub.pid}
        client.sleep(load.warmup)
        stub.reset()
        before, began = cpu_of(watched), time.monotonic()
        # It must not have ended when it is read, and it may do so as soon as the time is over.
        client.sleep(load.seconds - 0.2)
        used, lasted = used_between(before, cpu_of(watched)), time.monotonic() - began
        late = stub.stats()
        result = client.result()
    each = 1000 * load.seconds / lasted / max(1, result["answered"])
    own = sum(seconds for (kind, _), seconds in used.items() if kind == "own")
    shared = sum(seconds for (kind, _), seconds in used.items() if kind == "shared")
    named = {name: seconds for (_, name), seconds in used.items()}
    result["cpu_ms"] = {**{name: seconds * each for name, seconds in named.items()},
                        "own": own * each, "all": (own + shared) * each}
    result["cores"] = {"own": own / lasted, "all": (own + shared) / lasted,
                       "client": named["client"] / lasted, "stub": named["stub"] / lasted}
    # A histogram without values is given empty.
    for name in ("ttft_ms", "overhead_ms", "total_ms", "gap_ms"):
        result[name] = dict.fromkeys(("p50", "p90", "p99", "max", "mean")) | result[name]
    result["stub_late_ms"] = {"p99": late["late_ms_p99"], "max": late["late_ms_max"]}
    return result
