#!/usr/bin/env python3
"""Streamed queries through single workers (or more), with a scripted upstream of exact latencies.

usage: streams.py [--n 100] [--concurrency 100] [--workers N] [--limit L] [--leave tokens:20|ms:200]
                  [--json FILE]

Starts a Kafka, a Redis and every program (build/bin, or SLUICE_TEST_BIN) for itself, asks, and prints
what the client saw and what each upstream saw: its peak of calls, calls that were closed early, and
for clients that left how long the model's connection lived on. Latencies are 120 ms embedding, 150
and 100 searches, 200 rerank, 300 to the first token, then 50 tokens 30 ms apart: at best 770 ms to
the first token.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
os.environ.setdefault("SLUICE_TEST_BIN", os.path.join(ROOT, "build", "bin"))
sys.path[:0] = [os.path.join(ROOT, "tests", "e2e"), os.path.join(ROOT, "tests", "support")]

from cluster import STAGES, Cluster  # noqa: E402

LATENCIES = {"embed": {"latency_ms": 120}, "vector": {"latency_ms": 150},
             "keyword": {"latency_ms": 100}, "rerank": {"latency_ms": 200},
             "chat": {"latency_ms": 300, "token_interval_ms": 30, "tokens": 50}}
IDEAL_MS = 770
LIMITS = ("EMBED", "VECTOR", "KEYWORD", "RERANK", "CHAT")
CLIENT = os.path.join(ROOT, "tests", "support", "client.py")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1, help="of each stage")
    parser.add_argument("--limit", type=int, default=1000, help="of each upstream")
    parser.add_argument("--leave", help="a fifth of the clients leave at tokens:N or ms:N")
    parser.add_argument("--json", help="where the client's report goes")
    return parser.parse_args()


def print_upstreams(cluster, limit):
    stats = cluster.upstream.stats(events=False)
    print(f"\n{'upstream':10} {'calls':>6} {'peak':>6} {'limit':>6} {'closed early':>13}")
    for name in LATENCIES:
        seen = stats[name]
        print(f"{name:10} {seen['calls']:6} {seen['peak_concurrency']:6} {limit:6} "
              f"{seen['aborted']:13}")
    print(f"the upstream's own writes were late by at most {stats['server']['late_ms_max']:.1f} ms")


def main():
    options = parse()
    limits = {f"SLUICE_{name}_LIMIT": options.limit for name in LIMITS}
    limits |= {"SLUICE_EMBED_QUERY_LIMIT": options.limit,
               "SLUICE_EMBED_RESERVE": min(10, options.limit - 1), "SLUICE_EMBED_CACHE": 0,
               "SLUICE_LOG_LEVEL": "info"}
    with Cluster(workers={name: options.workers for name in STAGES}, **limits) as cluster:
        cluster.upstream.behave(**LATENCIES)
        command = [sys.executable, CLIENT, "--url", cluster.url, "--mode", "query-sse"]
        # The first answers open connections everywhere; they are not what is measured.
        subprocess.run(command + ["--n", "4", "--concurrency", "4", "--first", "1000000"],
                       check=True, stdout=subprocess.DEVNULL)
        cluster.upstream.reset("behaviour")
        before = {w: w.metric("process_cpu_seconds_total") for w in cluster.workers}
        command += ["--n", str(options.n), "--concurrency", str(options.concurrency),
                    "--upstream", cluster.upstream.url, "--ideal-ms", str(IDEAL_MS)]
        command += ["--leave-fraction", "0.2", "--leave-at", options.leave] if options.leave else []
        command += ["--json", options.json] if options.json else []
        code = subprocess.run(command, check=False).returncode
        print_upstreams(cluster, options.limit)
        cpu = {w.name: round(w.metric("process_cpu_seconds_total") - before[w], 2)
               for w in cluster.workers}
        print(f"CPU seconds: {json.dumps(cpu)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
