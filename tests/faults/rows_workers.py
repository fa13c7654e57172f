"""Rows 1 to 11 but 9: what happens to the processes of Sluice themselves, and to its callers."""

import signal
import time

import results
from checker import Rules
from cluster import STAGES, wait_until
from slow import SlowReaders
from trial import BEHAVIOUR, Trial, row, two_of_each


@row("1", "generate killed (-9) before the first token", ci=True)
def generate_killed_early():
    with Trial(two_of_each(), {"chat": {"latency_ms": 2000, "token_interval_ms": 5, "tokens": 40}}) as t:
        t.load(20, "--concurrency", 20)
        wait_until(lambda: t.in_flight("chat") == 20, 20, "all models' calls")
        victim = t.busy("generate")
        held = victim.metric("sluice_jobs_in_flight")
        t.fault()
        t.cluster.kill(victim)
        t.notes.append(f"{held:.0f} jobs held")
        t.finish(Rules(chat_calls=2))
        again = [e["t"] for e in t.cluster.upstream.ledger() if e["event"] == "begin"
                 and e["kind"] == "chat" and e["t"] > t.fault_ns]
        if again:
            t.notes.append(f"begun again after {(min(again) - t.fault_ns) / 1e9:.1f} to "
                           f"{(max(again) - t.fault_ns) / 1e9:.1f} s")
    return t.findings


def killed_under_load(stage):
    with Trial(two_of_each(), {"embed": {"latency_ms": 150}, "rerank": {"latency_ms": 150},
                               "vector": {"latency_ms": 150}}) as t:
        t.load(120, "--rate", 15)
        time.sleep(2)  # Load, not synchronisation: the kill comes in the middle of it.
        victim = t.busy(stage)
        held = victim.metric("sluice_jobs_in_flight")
        t.fault()
        t.cluster.kill(victim)
        t.notes.append(f"{held:.0f} jobs held")
        # A search that was answered, but whose record was not yet out, is made again.
        t.finish(Rules(repeated=4 * int(held)))
    return t.findings


@row("1-embed", "embed killed (-9) under load")
def embed_killed():
    return killed_under_load("embed")


@row("1-retrieve", "retrieve killed (-9) under load")
def retrieve_killed():
    return killed_under_load("retrieve")


@row("1-rerank", "rerank killed (-9) under load")
def rerank_killed():
    return killed_under_load("rerank")


def killed_mid_stream(**body):
    """A generate worker killed when each of 20 streams has shown some tokens."""
    chat = {"latency_ms": 50, "token_interval_ms": 50, "tokens": 100}
    with Trial(two_of_each(), {"chat": chat}) as t:
        t.load(20, "--concurrency", 20, tokens=100, **body)

        def all_stream():
            events = t.cluster.upstream.ledger()
            return sum(e["event"] == "first" for e in events) == 20
        wait_until(all_stream, 20, "all streams at work")
        time.sleep(1)  # Twenty tokens more.
        victim = t.busy("generate")
        held = int(victim.metric("sluice_jobs_in_flight"))
        t.fault()
        t.cluster.kill(victim)
        t.notes.append(f"{held} streams held")
        if body:
            t.finish(Rules(tokens=100, chat_calls=2))
            if sum(r.restarts for r in t.requests) != held:
                t.violation("I2", f"{sum(r.restarts for r in t.requests)} restarts, {held} held")
        else:
            t.finish(Rules(tokens=100, codes={"worker_lost": held}))
            if t.findings.endings.get("worker_lost", 0) != held:
                t.violation("I1", f"{t.findings.endings} with {held} streams held")
    return t.findings


@row("2", "generate killed (-9) mid-stream", ci=True)
def generate_killed_late():
    return killed_mid_stream()


@row("2-restart", "the same, with on_worker_lost: restart")
def generate_killed_restart():
    return killed_mid_stream(on_worker_lost="restart")


@row("4", "generate stopped (SIGSTOP) for 20 s, then continued")
def generate_frozen():
    with Trial(two_of_each()) as t:
        t.load(140, "--rate", 5)
        time.sleep(3)
        victim = t.busy("generate")
        held = int(victim.metric("sluice_jobs_in_flight"))
        t.fault()
        victim.signal(signal.SIGSTOP)
        time.sleep(20)
        victim.signal(signal.SIGCONT)
        t.heal()
        t.notes.append(f"{held} jobs held")
        # The frozen worker holds its calls open: the exception that is documented.
        t.finish(Rules(codes={"worker_lost": held + 1}, chat_calls=2, over_limit=True,
                       repeated=held + 1))
    return t.findings


@row("6", "rolling restart of all workers under load", ci=True)
def rolling_restart():
    drains = []
    with Trial(two_of_each()) as t:
        t.load(200, "--rate", 8)
        time.sleep(1)
        t.fault()
        for stage in STAGES:
            for old in t.cluster.of(stage):
                t.cluster.start(stage)
                began = time.monotonic()
                old.process.terminate()
                old.process.wait(80)
                drains.append(time.monotonic() - began)
        t.notes.append(f"slowest drain {max(drains):.1f} s")
        t.finish(Rules())
    return t.findings


@row("7", "a worker more and one less every 3 s for 60 s")
def rebalance_storm():
    with Trial(two_of_each()) as t:
        t.load(320, "--rate", 5)
        t.fault()
        for nth in range(10):
            extra = t.cluster.start(STAGES[nth % 4], wait=False)
            time.sleep(3)
            extra.process.terminate()
            time.sleep(3)
        t.finish(Rules())
    return t.findings


@row("10", "half of the callers leave (RST) mid-stream", ci=True)
def callers_leave():
    chat = {"latency_ms": 100, "token_interval_ms": 25, "tokens": 80}
    with Trial(behaviour={"chat": chat}) as t:
        t.load(100, "--concurrency", 20, "--leave-fraction", 0.5, "--leave-at", "tokens:20",
               "--leave-how", "reset", tokens=80)
        t.finish(Rules(tokens=80))
        aborts = {e["question"]: e["t"] for e in t.cluster.upstream.ledger()
                  if e["event"] == "abort" and e["kind"] == "chat"}
        left = [r for r in t.requests if r.left_ns]
        topic = t.topic()
        for request in left:
            if not results.decode(topic[request.id][0]).get("usage"):
                t.violation("I4", f"{request.question}: no usage of the part that was written")
        times = sorted((aborts[r.question[:80]] - r.left_ns) / 1e6 for r in left
                       if r.question[:80] in aborts)
        if len(times) != len(left):
            t.violation("I4", f"{len(left) - len(times)} models' calls of those who left ran on")
        if times:
            t.notes.append(f"leave to closed call p50 {times[len(times) // 2]:.0f} "
                           f"max {times[-1]:.0f} ms")
            if times[-1] > 2000:
                t.violation("I4", f"a call was closed {times[-1]:.0f} ms after its caller had left")
    return t.findings


@row("11", "50 callers read 10 B/s, others ask beside them")
def slow_readers():
    chat = [BEHAVIOUR["chat"], {"match": "slow reader", "token_interval_ms": 20, "tokens": 1500}]
    with Trial(behaviour={"chat": chat}) as t:
        slow = SlowReaders(t.cluster, 50, first=1000)
        try:
            wait_until(lambda: t.in_flight("chat") >= 50, 20, "slow streams at work")
            t.load(60, "--rate", 4)
            t.wait_load()
        finally:
            slow.stop()
        t.requests += slow.requests
        t.finish(Rules())
        t.notes.append(f"gateway at most {t.memory()['gateway']:.0f} MB")
    return t.findings
