"""Row 34: a schedule of faults drawn from a seed, one after the other under steady load.

The draw depends on the seed alone; what a fault meets depends on the machine's timing too, so that a
replay repeats the schedule, not each interleaving.
"""

import random
import signal
import time

from checker import Rules
from cluster import STAGES, wait_until
from servers import OwnRedis
from trial import BEHAVIOUR, OPTIONS, Trial, row, two_of_each

LIMIT = {"CHAT": 8}
RATE = 4


class Faults:
    """Each method is a fault with its heal; `lost` counts the streams that killed workers held."""

    def __init__(self, trial, redis, draw):
        self._trial, self._redis, self._draw = trial, redis, draw
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

    NAMES = ("kill_worker", "restart_worker", "empty_redis", "stop_redis", "refuse_searches")


@row("34", "faults drawn from a seed (--seed, --seconds)")
def random_schedule():
    seed, seconds = OPTIONS["seed"], OPTIONS["seconds"]
    draw = random.Random(seed)
    done = []
    with OwnRedis() as redis, Trial(two_of_each(), limits=LIMIT) as t:
        faults = Faults(t, redis, draw)
        t.load(RATE * seconds, "--rate", RATE)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(draw.uniform(0.5, 4))
            name = draw.choice(Faults.NAMES)
            done.append(name)
            getattr(faults, name)()
            wait_until(lambda: all(len(t.cluster.of(s)) >= 2 for s in STAGES), 5, "all workers")
        t.notes.append(f"seed {seed}: {' '.join(done)}")
        t.finish(Rules(codes={"worker_lost": faults.lost}, chat_calls=3, repeated=None,
                       silent_repeats=faults.forgot))
    return t.findings
