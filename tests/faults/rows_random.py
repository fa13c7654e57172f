"""Row 34: a schedule of faults drawn from a seed, one after the other under steady load.

The draw depends on the seed alone; what a fault meets depends on the machine's timing too, so that a
replay repeats the schedule, not each interleaving. Of the callers some leave, some ask twice with one
idempotency key, and all come back when their gateway dies.
"""

import random
import signal
import time

from checker import Rules
from cluster import STAGES, wait_until
from returning import Plan, Returning
from rows_return import second_gateway
from servers import OwnKafka, OwnRedis
from trial import BEHAVIOUR, OPTIONS, Trial, row, two_of_each

LIMIT = {"CHAT": 8}
RATE = 4
GRACE = "grace:20"


class Faults:
    """Each method is a fault with its heal; `lost` counts the streams that killed workers held."""

    def __init__(self, trial, redis, kafka, ports, draw):
        self._trial, self._redis, self._kafka, self._draw = trial, redis, kafka, draw
        self._gateways = list(zip(trial.cluster.of("gateway"), ports))
        self.lost, self.forgot = 0, False

    def _victim(self):
        stage = self._draw.choice(STAGES)
        return stage, self._draw.randrange(2)

    def kill_worker(self):
        stage, nth = self._victim()
        victim = self._trial.cluster.of(stage)[nth]
        if stage == "generate":
            # What began between this look and the kill is one or two more.
            self.lost += int(victim.metric("sluice_jobs_in_flight")) + 2
        self._trial.cluster.kill(victim)
        self._trial.cluster.start(stage)

    def restart_worker(self):
        stage, nth = self._victim()
        old = self._trial.cluster.of(stage)[nth]
        self._trial.cluster.start(stage, wait=False)
        old.process.terminate()
        old.process.wait(80)

    def kill_gateway(self):
        nth = self._draw.randrange(2)
        victim, port = self._gateways[nth]
        self._trial.cluster.kill(victim)
        time.sleep(self._draw.uniform(1, 5))
        again = self._trial.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{port}")
        self._gateways[nth] = again, port

    def stop_broker(self):
        self._kafka.hang_for(self._draw.uniform(1, 5))

    def empty_redis(self):
        self.forgot = True
        self._redis.cli("FLUSHALL")
        time.sleep(16)  # The quarantine.

    def stop_redis(self):
        self._redis.signal(signal.SIGSTOP)
        time.sleep(self._draw.uniform(1, 8))
        self._redis.signal(signal.SIGCONT)

    def refuse_searches(self):
        upstream = self._trial.cluster.upstream
        upstream.behave(vector={"error_status": 503}, rerank={"error_status": 500})
        time.sleep(self._draw.uniform(1, 3))
        upstream.behave(**BEHAVIOUR)

    NAMES = ("kill_worker", "restart_worker", "kill_gateway", "stop_broker", "empty_redis",
             "stop_redis", "refuse_searches")


def plans(count, draw):
    """One caller in six leaves; one question in six is asked twice with one key, and the second
    caller loses his connection once."""
    found = []
    while len(found) < count:
        start, drops = draw.randrange(2), [draw.randint(1, 20)]
        kind = draw.randrange(6)
        if kind == 0:
            found.append(Plan(drops=drops, leaves=True, start=start))
        elif kind == 1:
            key = f"key-{len(found)}"
            found += [Plan(key=key, start=start, forgets=True),
                      Plan(key=key, start=start + 1, drops=drops, forgets=True)]
        else:
            found.append(Plan(start=start, forgets=True))
    return found


@row("34", "faults drawn from a seed (--seed, --seconds)")
def random_schedule():
    seed, seconds = OPTIONS["seed"], OPTIONS["seconds"]
    draw = random.Random(seed)
    done = []
    with OwnRedis() as redis, OwnKafka() as kafka, Trial(two_of_each(), limits=LIMIT) as t:
        ports = second_gateway(t)
        faults = Faults(t, redis, kafka, ports, draw)
        callers = t.follow(Returning(ports, plans(RATE * seconds, random.Random(seed)), rate=RATE,
                                     timeout_ms=120000, on_disconnect=GRACE))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(draw.uniform(0.5, 4))
            name = draw.choice(Faults.NAMES)
            done.append(name)
            getattr(faults, name)()
            wait_until(lambda: all(len(t.cluster.of(s)) >= 2 for s in STAGES), 5, "all workers")
        t.notes.append(f"seed {seed}: {len(done)} faults: {' '.join(done)}")
        # Who lost his gateway before it had answered cannot know his query. Two requests with a key
        # that an emptied Redis forgot in between are two queries of one question.
        t.finish(Rules(codes={"worker_lost": faults.lost},
                       chat_calls=6 if faults.forgot else 3, repeated=None,
                       silent_repeats=faults.forgot, refused=20 * done.count("kill_gateway")))
        forgotten = sum(c.forgotten for c in callers.callers)
        if forgotten and not faults.forgot:
            t.violation("I2", f"{forgotten} streams were unknown to who came back")
        t.notes.append(f"{forgotten} streams that an emptied Redis had forgotten")
        t.notes.append(f"{sum(c.broken for c in callers.callers)} connections broke, "
                       f"{sum(len(r.seen) > 1 for r in t.requests)} streams went on elsewhere")
    return t.findings
