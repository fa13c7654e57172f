#!/usr/bin/env python3
"""kill -9, or an orderly restart, of one worker of each kind under load: what became of every question.

usage: kill.py [--n 60] [--concurrency 20] [--restart] [STAGE...]

For each stage a cluster of its own with two workers of each kind, a scripted upstream (search and rerank
50 ms, 100 ms to the first token, 40 tokens 25 ms apart) and a client that compares every token. One
worker of the stage is killed while it is at work. A question that was being streamed by a killed
generate worker ends with `worker_lost`, for what is written may not be paid for twice unasked; every
other question must be answered. With --restart the worker gets SIGTERM instead, and a new one is started:
then every question must be answered, and nothing is called twice.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
os.environ.setdefault("SLUICE_TEST_BIN", os.path.join(ROOT, "build", "bin"))
sys.path[:0] = [os.path.join(ROOT, "tests", "e2e"), os.path.join(ROOT, "tests", "support")]

from cluster import STAGES, Cluster, wait_until  # noqa: E402

BEHAVIOUR = {"embed": {"latency_ms": 100}, "vector": {"latency_ms": 50},
             "keyword": {"latency_ms": 50}, "rerank": {"latency_ms": 50},
             "chat": {"latency_ms": 100, "token_interval_ms": 25, "tokens": 40}}
CLIENT = os.path.join(ROOT, "tests", "support", "client.py")
KINDS = ("embed", "vector", "rerank", "chat")


def run(stage, options):
    limits = {f"SLUICE_{name}_LIMIT": 100 for name in ("EMBED", "VECTOR", "KEYWORD", "RERANK", "CHAT")}
    limits |= {"SLUICE_EMBED_QUERY_LIMIT": 100, "SLUICE_LOG_LEVEL": "info"}
    with Cluster(workers={name: 2 for name in STAGES}, **limits) as cluster:
        cluster.upstream.behave(**BEHAVIOUR)
        report = tempfile.NamedTemporaryFile(suffix=".json")
        command = [sys.executable, CLIENT, "--url", cluster.url, "--mode", "query-sse", "--tokens",
                   "40", "--n", str(options.n), "--concurrency", str(options.concurrency),
                   "--json", report.name]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(1)  # Load, not synchronisation: the kill comes in the middle of it.
        busy = wait_until(lambda: [w for w in cluster.of(stage)
                                   if w.metric("sluice_jobs_in_flight") > 1], 20, f"{stage} at work")
        killed = time.monotonic()
        if options.restart:
            cluster.start(stage, wait=False)
            busy[0].process.terminate()
        else:
            cluster.kill(busy[0])
        client.wait(150)
        records = json.load(open(report.name, encoding="utf-8"))["records"]
        ended = collections.Counter(r["error"]["code"] if r["error"] else r["terminal"] or "nothing"
                                    for r in records)
        stats = cluster.upstream.stats(events=False)
        calls = " ".join(f"{kind} {stats[kind]['calls']}" for kind in KINDS)
        problems = [p for r in records for p in r["problems"]]
        last = max(r["ended_ns"] for r in records) / 1e9 - killed
        print(f"{stage:9} asked {len(records):3}  {dict(ended)}  broken streams {len(problems)} {problems[:1] or ''}  "
              f"calls: {calls}  last answer {last:.1f} s after", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--restart", action="store_true", help="SIGTERM and a new worker")
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    options = parser.parse_args()
    for stage in options.stages:
        run(stage, options)


if __name__ == "__main__":
    main()
