"""Rows 15, 16 and 25: what the network does to a worker, and a Redis whose successor knows less."""

import os
import time
from contextlib import contextmanager

from checker import Rules
from cluster import wait_until
from network import Namespace
from proxy import Proxy
from servers import OwnRedis
from trial import BEHAVIOUR, Trial, row, two_of_each

LIMIT = {"CHAT": 8}
RATE = 4
CUT_SECONDS = 20  # Longer than a group's session (10 s) and a lease (15 s).


def port_of(variable):
    return int(os.environ[variable].rsplit(":", 1)[1].split("/")[0])


def ports(t):
    return {"kafka": port_of("SLUICE_TEST_BROKERS"), "redis": port_of("SLUICE_TEST_REDIS"),
            "upstream": t.cluster.upstream.port}


@contextmanager
def apart(t, stage):
    """One worker more of a stage, in a network namespace of its own."""
    with Namespace(*ports(t).values()) as space:
        worker = t.cluster.start(stage, under=space.enter, SLUICE_ADMIN_LISTEN=f"{space.inner}:0")
        try:
            wait_until(lambda: worker.metric("sluice_assigned_partitions"), 20, "its partitions")
            yield space, worker
        finally:
            worker.stop(90)  # While it still reaches its servers.


def cut_off(server, rules):
    chat = BEHAVIOUR["chat"] | {"token_interval_ms": 50}
    with Trial(behaviour={"chat": chat}, limits=LIMIT) as t, \
            apart(t, "generate") as (space, worker):
        t.load(160, "--rate", RATE)
        wait_until(lambda: worker.metric("sluice_jobs_in_flight") >= 3, 20, "streams to cut")
        held = int(worker.metric("sluice_jobs_in_flight"))
        t.fault()
        space.cut(ports(t)[server])
        time.sleep(CUT_SECONDS)
        space.mend(ports(t)[server])
        t.heal()
        t.notes.append(f"{held} jobs held, {space.dropped()} packets dropped")
        t.finish(rules(held))
        t.notes.append(f"at most {t.findings.peaks['chat']} calls at a limit of 8")
    return t.findings


@row("15-kafka", "generate cut off from the broker for 20 s")
def cut_from_broker():
    return cut_off("kafka", lambda held: Rules(chat_calls=2))


@row("15-redis", "generate cut off from Redis for 20 s")
def cut_from_redis():
    return cut_off("redis", lambda held: Rules(chat_calls=2))


@row("15-upstream", "generate cut off from its model for 20 s")
def cut_from_model():
    # What this worker takes meanwhile is tried three times, 2 s each, and then told to have failed.
    return cut_off("upstream", lambda held: Rules(chat_calls=3, codes={
        "upstream_error": held + RATE * CUT_SECONDS}))


def percentile(requests, share):
    times = sorted((r.ended_ns - r.sent_ns) / 1e6 for r in requests if r.ended_ns)
    return times[min(len(times) - 1, int(len(times) * share))]


@row("16", "5 % of the packets to and from generate lost")
def lossy_link():
    with Trial({"generate": 0}) as t, apart(t, "generate") as (space, _):
        t.load(60, "--rate", 5)
        t.wait_load()
        before = list(t.requests)
        t.fault()
        space.lose(5)
        t.load(100, "--rate", 5, first=1000)
        t.wait_load()
        lossy = t.requests[len(before):]
        t.notes.append(f"{space.dropped()} packets dropped; p50 {percentile(before, .5):.0f} to "
                       f"{percentile(lossy, .5):.0f} ms, p99 {percentile(before, .99):.0f} to "
                       f"{percentile(lossy, .99):.0f} ms")
        t.finish(Rules())
    return t.findings


@row("25", "Redis fails over to a replica that lacks the last 2 s")
def redis_fails_over():
    with OwnRedis() as primary, OwnRedis() as replica, Proxy(primary.port) as link, \
            Proxy(primary.port) as front:
        os.environ["SLUICE_TEST_REDIS"] = f"redis://127.0.0.1:{front.port}"
        replica.cli("REPLICAOF", "127.0.0.1", str(link.port))
        with Trial(two_of_each(), limits=LIMIT) as t:
            wait_until(lambda: "link_status:up" in replica.cli("INFO", "replication"), 20,
                       "a replica")
            t.load(120, "--concurrency", 24)
            time.sleep(4)
            link.hold()
            time.sleep(2)
            t.fault()
            lost = offset(primary) - offset(replica)
            primary.kill()
            replica.cli("REPLICAOF", "NO", "ONE")
            front.switch(replica.port)
            t.notes.append(f"{lost} bytes of writes lost")
            # What Redis forgot can be asked of it again: see docs/RELIABILITY.md.
            t.finish(Rules(chat_calls=2, repeated=None))
            t.notes.append(f"at most {t.findings.peaks['chat']} at a limit of 8")
    return t.findings


def offset(redis):
    """How far the stream of its writes has come."""
    name = "slave_repl_offset:" if "role:slave" in redis.cli("INFO", "replication") else \
        "master_repl_offset:"
    return int(redis.cli("INFO", "replication").partition(name)[2].split()[0])
