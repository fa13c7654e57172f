"""The highest rate without failures, with all latencies 0 and 16 tokens, and the CPU on the way.

The rule: a rate is held when no request fails, the p99 of TTFT is under a second, and at least 98 %
of what was due in the counted phase was answered in a phase as long. Rates double until one is not
held, then the gap is halved (by ratio) down to 5 %. A rate counts as not held when it failed twice
in a row: on a machine that does other things, a single run can fail by chance.
"""

import math

from bench import heading
from measure import BenchError, Load, ms
from systems import LABELS

FIRST, LOWEST, HIGHEST, CLOSE = 50, 5, 12800, 1.05
TTFT_MS, ANSWERED = 1000, 0.98
SECONDS, WARMUP = 6, 2
HEAD = ("system", "highest rate /s", "there: TTFT p50 ms", "p99 ms", "CPU ms a request, own",
        "with broker and Redis")


def is_held(result):
    due_per_s = result["due"] / result["seconds"]
    return (result["failed"] == 0 and result["answered"] > 0 and result["ttft_ms"]["p99"] < TTFT_MS
            and result["answered_per_s"] >= ANSWERED * due_per_s)


def search(try_rate, first=FIRST, highest=HIGHEST, close=CLOSE):
    """The highest rate for which try_rate() is true, to a factor of `close`; 0 where there is none
    above LOWEST."""
    low, high = 0, first
    while high <= highest and try_rate(high):
        low, high = high, high * 2
    if high > highest:
        return low
    while low == 0:
        if high / 2 < LOWEST:
            return 0
        if try_rate(high // 2):
            low = high // 2
        else:
            high //= 2
    while high / low > close and high - low > 1:
        middle = round(math.sqrt(low * high))
        if try_rate(middle):
            low = middle
        else:
            high = middle
    return low


def run(bench):
    heading("the highest rate, all latencies 0, 16 tokens")
    found = {}
    for name in bench.wanted("asyncio", "sluice", "jobqueue"):
        try:
            found[name] = of_system(bench, name)
        except BenchError as error:
            found[name] = {"error": str(error)}
    return {"systems": found}


def of_system(bench, name):
    quick = bench.options.quick
    runs = []
    with bench.system(name) as system:
        bench.stub.behave(tokens=16, free=True)

        def once(rate):
            result = bench.run(system, Load(rate=rate, tokens=16, timeout_ms=6000,
                                            seconds=3 if quick else SECONDS,
                                            warmup=1 if quick else WARMUP), f"{rate}/s")
            runs.append({**result, "held": is_held(result)})
            return runs[-1]["held"]

        best = search(lambda rate: once(rate) or not quick and once(rate),
                      first=4 * FIRST if quick else FIRST, close=1.2 if quick else CLOSE)
    return {"highest": best, "runs": runs}


def tables(result):
    rows = []
    for name, found in result["systems"].items():
        at = [r for r in found.get("runs", ()) if r["held"] and r["rate"] == found["highest"]]
        if not at:
            rows.append((LABELS[name], found.get("error", "none held"), *[""] * 4))
            continue
        ttft, cpu = at[-1]["ttft_ms"], at[-1]["cpu_ms"]
        rows.append((LABELS[name], str(found["highest"]), ms(ttft["p50"]), ms(ttft["p99"]),
                     f"{cpu['own']:.2f}", f"{cpu['all']:.2f}" if cpu["all"] != cpu["own"] else ""))
    return [("", HEAD, rows), ("CPU on the way", ("requests /s", "system", "held", "TTFT p50 ms",
                                                  "p99 ms", "ms a request, own",
                                                  "with broker and Redis", "cores, own",
                                                  "with broker and Redis"), list(on_the_way(result)))]


def on_the_way(result):
    for name, found in result["systems"].items():
        for r in sorted(found.get("runs", ()), key=lambda r: r["rate"]):
            yield (f"{r['rate']:.0f}", LABELS[name], "yes" if r["held"] else "no",
                   ms(r["ttft_ms"]["p50"]), ms(r["ttft_ms"]["p99"]),
                   f"{r['cpu_ms']['own']:.2f}", f"{r['cpu_ms']['all']:.2f}",
                   f"{r['cores']['own']:.2f}", f"{r['cores']['all']:.2f}")
