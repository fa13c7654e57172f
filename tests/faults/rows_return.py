"""Rows 9 and 12: callers that come back after their connection, or their gateway, has gone."""

import random
import time

from cluster import free_port, wait_until
from checker import Rules
from returning import Plan, Returning, dropping
from trial import OPTIONS, Trial, row, two_of_each

CONNECTIONS = 5
ORPHAN_GRACE = 15
CLOSED_WITHIN = 5


def second_gateway(t):
    port = free_port()
    t.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{port}")
    return [t.cluster.port, port]


@row("12", "connections reset five times per stream, resumed at another gateway", ci=True)
def reconnects():
    tokens, streams = 60, OPTIONS["streams"]
    chat = {"latency_ms": 50, "token_interval_ms": 25, "tokens": tokens}
    with Trial(two_of_each(), {"chat": chat}) as t:
        ports = second_gateway(t)
        half = streams // 2
        t.follow(Returning(ports, dropping(half, 1, 9), concurrency=15,
                           on_disconnect="grace:20", timeout_ms=60000))
        t.follow(Returning(ports, dropping(streams - half, 2, 9), first=half,
                           concurrency=15, on_disconnect="continue", timeout_ms=60000))
        t.finish(Rules(tokens=tokens))
        back = sum(len(r.seen) - 1 for r in t.requests)
        # One that gets many tokens at a time can end before its last drop.
        if back < streams * CONNECTIONS * 0.9:
            t.violation("I2", f"{back} connections went on, not {streams * CONNECTIONS}")
        t.notes.append(f"{len(t.requests)} streams, {back} connections that went on")
    return t.findings


@row("12-idem", "each question asked twice with one key, at two gateways; one caller leaves", ci=True)
def asked_twice():
    draw, plans, tokens = random.Random(3), [], 60
    for nth in range(40):
        stays = Plan(key=f"key-{nth}", start=nth)
        leaves = Plan(key=f"key-{nth}", start=nth + 1, drops=[draw.randint(10, 40)], leaves=True)
        plans += [stays, leaves] if nth % 2 else [leaves, stays]
    chat = {"latency_ms": 50, "token_interval_ms": 25, "tokens": tokens}
    with Trial(two_of_each(), {"chat": chat}) as t:
        t.follow(Returning(second_gateway(t), plans, rate=20))
        t.finish(Rules(tokens=tokens))
        ids = {}
        for request in t.requests:
            ids.setdefault(request.question, set()).add(request.id)
        several = sum(len(found) != 1 for found in ids.values())
        if several:
            t.violation("I4", f"{several} keys have more than one query")
        t.notes.append(f"{len(ids)} keys, {len(t.requests)} callers")
    return t.findings


@row("9", "gateway killed (-9) with up to 200 open streams, half of the callers come back", ci=True)
def gateway_killed():
    streams, tokens = min(200, OPTIONS["streams"]), 135
    chat = {"latency_ms": 50, "token_interval_ms": 200, "tokens": tokens}
    with Trial(two_of_each(), {"chat": chat}, limits={"CHAT": 300}) as t:
        other = second_gateway(t)[1]
        plans = [Plan(returns=nth % 2 == 0) for nth in range(streams)]
        followed = t.follow(Returning([t.cluster.port, other], plans, concurrency=streams,
                                      timeout_ms=120000))
        wait_until(lambda: sum(c.record.deltas > 0 for c in followed.callers) == streams, 30,
                   "all streams")
        t.fault()
        t.cluster.kill(t.cluster.of("gateway")[0])
        wait_until(lambda: t.in_flight("chat") <= streams // 2, ORPHAN_GRACE + CLOSED_WITHIN + 10,
                   "the end of the calls for those who do not come back")
        permits = t.permits()
        t.finish(Rules(tokens=tokens))
        judge_gateway_killed(t, permits, streams // 2)
    return t.findings


def judge_gateway_killed(t, permits, half):
    left = {r.question[:80] for r in t.requests if r.left_ns}
    over = [(e["t"] - t.fault_ns) / 1e9 for e in t.cluster.upstream.ledger()
            if e["kind"] == "chat" and e["event"] in ("end", "abort") and e["question"] in left]
    late = sum(seconds > ORPHAN_GRACE + CLOSED_WITHIN for seconds in over) + len(left) - len(over)
    if late:
        t.violation("I4", f"{late} calls of those who left are open {CLOSED_WITHIN} s after the "
                          "orphan grace")
    if permits > half:
        t.violation("I3", f"{permits} permits are held for {half} calls")
    whole = sum(r.terminal == "done" and len(r.seen) > 1 for r in t.requests)
    if whole != half:
        t.violation("I2", f"{whole} of {half} streams were resumed to their end")
    t.notes.append(f"resumable streams recovered / offered: {whole} / {half}; the others' calls "
                   f"closed {min(over, default=0):.1f} to {max(over, default=0):.1f} s after the "
                   "kill")
