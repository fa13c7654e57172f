"""Rows 8, 17, 30 and 31: machines that have too little memory, disk, time or a clock that jumps."""

import os
import subprocess
import tempfile
import time
from datetime import datetime

from checker import Rules
from cluster import wait_until
from disk import SmallDisk
from network import need
from servers import OwnKafka
from trial import BEHAVIOUR, SANITIZED, Missing, Trial, row

LIMIT = {"CHAT": 8}
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
HOUR = 3600
HEADROOM_MB = 6
# Makes each job some 120 kB large, several times over while it is worked on.
HISTORY = [{"role": "user", "content": "x" * 30000}] * 4


def address_space(worker):
    with open(f"/proc/{worker.process.pid}/status", encoding="ascii") as f:
        return 1024 * int(f.read().partition("VmSize:")[2].split()[0])


@row("8", "generate without memory for more than 6 MB beyond what it has")
def memory_is_short():
    need("prlimit")
    if SANITIZED:
        raise Missing("needs programs without sanitizers, which reserve all address space")
    with Trial({"generate": 2}) as t:
        worker = t.cluster.of("generate")[0]
        t.load(20, "--rate", 10)
        t.wait_load()
        t.fault()
        subprocess.run(["prlimit", f"--pid={worker.process.pid}",
                        f"--as={address_space(worker) + HEADROOM_MB * 1_000_000}"], check=True)
        t.load(80, "--concurrency", 40, first=100, history=HISTORY)
        t.wait_load()
        code = worker.process.poll()
        if code is None and "memory" not in worker.log():
            raise AssertionError("memory was never short")
        t.notes.append("it works on" if code is None else f"it ended by itself with {code}")
        if code is not None:
            t.cluster.killed.append(worker)  # Not an error of the row, if it is no signal.
        t.finish(Rules(codes={"internal": 40, "upstream_error": 40}, chat_calls=2))
        if code is not None and code < 0:
            t.violation("I9", f"it was ended by signal {-code}")
    return t.findings


@row("17", "broker's disk full for 20 s")
def broker_full():
    with OwnKafka(lambda data: SmallDisk(data, 192)) as kafka, Trial() as t:
        t.load(200, "--rate", 5, timeout_ms=60000)
        time.sleep(5)
        t.fault()
        kafka.disk.fill()
        time.sleep(20)
        kafka.disk.clear()
        wait_until(kafka.answers, 60, "the broker answers again")
        t.heal()
        # An answer whose tokens the broker did not take within 30 s is broken off.
        t.finish(Rules(refused=200, codes={"internal": 15}))
        timeouts = sum(n for ending, n in t.findings.endings.items() if "timeout" in ending)
        if timeouts:
            t.violation("I1", f"{timeouts} callers waited for a time-out instead of a 503")
    return t.findings


class Clock:
    """The wall clock of the processes that get `environment`; the monotonic one goes on."""

    def __init__(self):
        if not os.path.exists(FAKETIME):
            raise Missing("libfaketime is not installed: deploy/setup --tests installs it")
        handle, self._path = tempfile.mkstemp(prefix="sluice-clock-")
        os.close(handle)
        self.jump(0)
        self.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self._path,
                            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        if SANITIZED:
            self.environment["ASAN_OPTIONS"] = "verify_asan_link_order=0"

    def jump(self, seconds):
        """From now on it differs so much from the machine's."""
        with open(self._path + ".new", "w", encoding="ascii") as f:
            f.write(f"{seconds:+d}\n")
        os.rename(self._path + ".new", self._path)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        os.unlink(self._path)


def last_log_time(worker):
    last = worker.log().splitlines()[-1].split(" ")[0]
    return datetime.fromisoformat(last.replace("Z", "+00:00")).timestamp()


def clock_jumps(program):
    """The program's clock goes an hour ahead, then an hour behind, while it works."""
    others = {"generate": 1} if program == "generate" else {"generate": 2}
    with Clock() as clock, Trial(others, limits=LIMIT, gateway=program != "gateway") as t:
        worker = t.cluster.start(program, **clock.environment)
        t.load(150, "--rate", 5, timeout_ms=10000)
        wait_until(lambda: worker.metric("sluice_jobs_in_flight") >= 3, 20, f"{program} at work")
        t.fault()
        for seconds in (HOUR, -HOUR):
            clock.jump(seconds)
            time.sleep(8)
        t.finish(Rules())
        worker.stop(90)
        behind = time.time() - last_log_time(worker)
        if not HOUR <= behind <= HOUR + 90:
            raise AssertionError(f"its log ends {behind:.0f} s ago: the clock did not jump")
        t.notes.append(f"at most {t.findings.peaks['chat']} calls at a limit of 8")
    return t.findings


@row("31", "generate's clock jumps by +1 h, then by -2 h")
def worker_clock_jumps():
    return clock_jumps("generate")


@row("31-gateway", "the gateway's clock jumps by +1 h, then by -2 h")
def gateway_clock_jumps():
    return clock_jumps("gateway")


@row("30", "three times the load that can be served, for 30 s")
def overload():
    chat = BEHAVIOUR["chat"] | {"token_interval_ms": 10}
    with Trial(behaviour={"chat": chat}, limits={"CHAT": 10}, SLUICE_MAX_INFLIGHT=64) as t:
        # A generation takes half a second: ten at once are 20 a second.
        t.load(200, "--rate", 16, timeout_ms=5000)
        t.wait_load()
        before, t.requests = t.requests, []
        t.fault()
        t.load(1500, "--rate", 50, first=1000, timeout_ms=5000)
        t.wait_load()
        t.heal()
        goodput = [goodput_of(load) for load in (before, t.requests)]
        t.notes.append(f"done a second: {goodput[0]:.1f} before, {goodput[1]:.1f} under overload")
        events = t.cluster.upstream.ledger()
        unread = unread_share(t.requests, events)
        t.notes.append(f"{unread:.1%} of the models' calls were for nobody")
        t.requests += before
        t.finish(Rules(refused=1500, codes={"timeout": 1500, "overloaded": 1500}, depth=64))
        if goodput[1] < 0.9 * goodput[0]:
            t.violation("I8", f"goodput fell to {goodput[1] / goodput[0]:.0%}")
    return t.findings


def goodput_of(requests):
    """Answers a second, from the first question to the last ending."""
    last_ns = max(r.ended_ns for r in requests if r.ended_ns)
    seconds = (last_ns - min(r.sent_ns for r in requests)) / 1e9
    return sum(r.terminal == "done" for r in requests) / seconds


def unread_share(requests, events):
    """Of the models' calls for these requests, those whose answer was not told to its caller."""
    ended = {r.question[:80]: r.terminal for r in requests}
    calls = [e["question"] for e in events if e["event"] == "begin" and e["kind"] == "chat"
             and e["question"] in ended]
    return sum(ended[q] != "done" for q in calls) / max(1, len(calls))
