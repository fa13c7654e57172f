"""Rows 13, 14 and 22 to 26: a broker and a Redis that die, hang, forget, or are full."""

import signal
import time

from checker import Rules
from servers import OwnKafka, OwnRedis
from trial import Trial, row, two_of_each

LIMIT = {"CHAT": 8}


@row("13", "broker killed (-9), started after 10 s")
def broker_killed():
    with OwnKafka() as kafka, Trial() as t:
        t.load(150, "--rate", 5)
        time.sleep(5)
        t.fault()
        kafka.kill_for(10)
        t.heal()
        t.finish(Rules(refused=150))
    return t.findings


@row("14", "broker stopped (SIGSTOP) for 30 s")
def broker_hangs():
    with OwnKafka() as kafka, Trial() as t:
        t.load(150, "--rate", 4, timeout_ms=15000)
        time.sleep(5)
        t.fault()
        kafka.hang_for(30)
        t.heal()
        t.finish(Rules(refused=150, codes={"timeout": 150}))
    return t.findings


def redis_forgets(injure):
    """Load at a limit of 8 while Redis loses all that it knew."""
    with OwnRedis() as redis, Trial(two_of_each(), limits=LIMIT) as t:
        t.load(120, "--concurrency", 24)
        time.sleep(4)
        t.fault()
        injure(redis)
        # What Redis forgot can be asked of it again: see docs/RELIABILITY.md.
        t.finish(Rules(chat_calls=2, repeated=None))
        t.notes.append(f"at most {t.findings.peaks['chat']} at a limit of 8")
    return t.findings


@row("22", "Redis killed (-9), started empty after 0.5 s", ci=True)
def redis_killed():
    def injure(redis):
        redis.kill()
        time.sleep(0.5)
        redis.start()
    return redis_forgets(injure)


@row("23", "Redis FLUSHALL at a limit of 8")
def redis_flushed():
    return redis_forgets(lambda redis: redis.cli("FLUSHALL"))


def hangs_for(seconds, rules):
    with OwnRedis() as redis, Trial(two_of_each(), limits=LIMIT) as t:
        t.load(120, "--concurrency", 24)
        time.sleep(4)
        t.fault()
        redis.signal(signal.SIGSTOP)
        time.sleep(seconds)
        redis.signal(signal.SIGCONT)
        t.heal()
        t.finish(rules)
        # A permit that was granted just before may lead to a call just after.
        begun = [e for e in t.cluster.upstream.ledger() if e["event"] == "begin"
                 and t.fault_ns + 1_000_000_000 < e["t"] < t.heal_ns]
        if begun:
            t.violation("I3", f"{len(begun)} calls began while Redis stood still")
        t.notes.append(f"at most {t.findings.peaks['chat']} at a limit of 8")
    return t.findings


@row("24", "Redis stopped (SIGSTOP) for 10 s")
def redis_hangs():
    return hangs_for(10, Rules())


@row("24-lease", "Redis stopped (SIGSTOP) for 20 s, longer than a lease")
def redis_hangs_long():
    return hangs_for(20, Rules())


@row("26", "Redis full (maxmemory 1 MB) for 8 s")
def redis_full():
    with OwnRedis() as redis, Trial(two_of_each(), limits=LIMIT) as t:
        t.load(120, "--concurrency", 24)
        time.sleep(4)
        t.fault()
        redis.cli("CONFIG", "SET", "maxmemory", "1mb")
        time.sleep(8)
        redis.cli("CONFIG", "SET", "maxmemory", "0")
        t.heal()
        t.finish(Rules())
        if "errorstat_OOM" not in redis.cli("INFO", "errorstats"):
            raise AssertionError("Redis was never full")
        evicted = redis.cli("INFO", "stats").partition("evicted_keys:")[2].split()[0]
        if evicted != "0":
            t.violation("I3", f"{evicted} keys were evicted")
        t.notes.append(f"at most {t.findings.peaks['chat']} at a limit of 8")
    return t.findings
