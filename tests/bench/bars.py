"""The bars that the figures are held against, and whether each is reached.

A bar that lies under the floor (what five calls and five Kafka hops cost minimal programs in the same
run) cannot be reached by anybody; 1.5 times the floor takes its place, and the line says so.
A bar whose figures were not measured is left out.
"""

from memory import per_stream
from streams_table import HOPS

FLOOR_TIMES = 1.5
REFERENCE_CHUNKS = 577  # A second, of another implementation of (a) on a machine like this one.
MB, KB = "MB", "KB"


class Bar:
    def __init__(self, what, measured, most, unit, note="", least=False):
        self.what, self.measured, self.unit, self.note = what, measured, unit, note
        self.bound, self.least = most, least

    @property
    def reached(self):
        return self.measured >= self.bound if self.least else self.measured <= self.bound

    def cells(self):
        sign = "at least" if self.least else "at most"
        return (self.what, f"{sign} {number(self.bound)} {self.unit}".rstrip(),
                f"{number(self.measured)} {self.unit}".rstrip(), "yes" if self.reached else "**no**", self.note)


def number(value):
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def all_bars(results):
    """Bars of whatever was measured; `results` by subject."""
    found = []
    for subject, bars in (("table", table_bars), ("rate", rate_bars), ("ingest", ingest_bars),
                          ("memory", memory_bars)):
        if subject in results:
            found += bars(results[subject])
    return found


# ---- the main table ---------------------------------------------------------------------------


def table_bars(result):
    at = {(row["system"], row["streams"]): row for row in result["rows"]
          if not row.get("skipped") and not row.get("error")}
    found = []
    for streams in (10, 100):
        found += against_asyncio(at, streams, 1.0, "")
        found += against_asyncio(at, streams, 0.7, ", the aim")
    found += against_asyncio(at, 500, 0.15, "")
    for streams in (1000, 2000):
        found += whole(at, streams)
    mine = at.get(("sluice", 100))
    if mine:
        found.append(floored("TTFT above ideal, p99, 100 streams", mine["overhead_ms"]["p99"], 20,
                             floor_ms(at, 100, "p99")))
    found += cpu_bars(at)
    for streams in (10, 100):
        if ("sluice", streams) in at and floor_ms(at, streams):
            floor = floor_ms(at, streams)
            found.append(Bar(f"the pipeline's own part, p50, {streams} streams",
                             at["sluice", streams]["overhead_ms"]["p50"], FLOOR_TIMES * floor, "ms",
                             f"1.5 times the floor of {number(floor)} ms"))
    return found


def floor_ms(at, streams, quantile="p50"):
    """What the calls and the hops add, or None. The sum of two p99 is a bit more than that of the
    sum."""
    calls, hops = at.get(("calls", streams)), at.get(("hops", streams))
    if not calls or not hops:
        return None
    return calls["overhead_ms"][quantile] + hops["chain_ms"][quantile]


def floored(what, measured, most, floor, note=""):
    if floor is not None and most < floor:
        words = f"the bar of {number(most)} ms lies under the floor of {number(floor)} ms: 1.5 times that"
        return Bar(what, measured, FLOOR_TIMES * floor, "ms", words)
    return Bar(what, measured, most, "ms", note)


def against_asyncio(at, streams, ratio, words):
    mine, theirs = at.get(("sluice", streams)), at.get(("asyncio", streams))
    if not mine or not theirs:
        return []
    other = theirs["overhead_ms"]["p50"]
    return [floored(f"TTFT above ideal, p50, {streams} streams{words}", mine["overhead_ms"]["p50"],
                    ratio * other, floor_ms(at, streams), f"{ratio:g} times (a)'s {number(other)} ms")]


def whole(at, streams):
    mine = at.get(("sluice", streams))
    if not mine:
        return []
    return [Bar(f"failures, {streams} streams, one worker of each kind", mine["failed"], 0, ""),
            floored(f"TTFT above ideal, p50, {streams} streams", mine["overhead_ms"]["p50"], 50,
                    floor_ms(at, streams))]


def cpu_bars(at):
    mine, theirs = at.get(("sluice", 100)), at.get(("asyncio", 100))
    if not mine or not theirs:
        return []
    other = theirs["cpu_ms"]["own"]
    return [floored("own CPU a request, 100 streams", mine["cpu_ms"]["own"], 0.25 * other,
                    floor_cpu(at, 100, "own"), f"0.25 times (a)'s {number(other)} ms"),
            floored("CPU with broker and Redis, 100 streams", mine["cpu_ms"]["all"], other,
                    floor_cpu(at, 100, "all"), f"(a)'s own, {number(other)} ms")]


def floor_cpu(at, streams, whose):
    calls, hops = at.get(("calls", streams)), at.get(("hops", streams))
    if not calls or not hops:
        return None
    record_us = hops["cpu_us_per_message"]
    if whose == "all":
        record_us += hops["broker_cpu_us_per_message"]
    return calls["cpu_ms"]["own"] + HOPS * record_us / 1000


# ---- the others -------------------------------------------------------------------------------


def rate_bars(result):
    best = {name: found.get("highest") for name, found in result["systems"].items()}
    return [Bar("highest rate, latencies 0", best["sluice"], times * best[other], "/s",
                f"{times:g} times {letter}'s {best[other]}/s", least=True)
            for other, letter, times in (("asyncio", "(a)", 1.5), ("jobqueue", "(b)", 4))
            if best.get("sluice") and best.get(other)]


def ingest_bars(result):
    speeds = {name: found.get("chunks_per_s") for name, found in result["systems"].items()}
    if not speeds.get("sluice") or not speeds.get("asyncio"):
        return []
    return [Bar("ingestion", speeds["sluice"], 10 * REFERENCE_CHUNKS, "chunks/s",
                f"10 times {REFERENCE_CHUNKS}/s, a reference figure of (a)", least=True),
            Bar("ingestion, against this (a)", speeds["sluice"], 10 * speeds["asyncio"], "chunks/s",
                f"10 times its {number(speeds['asyncio'])}/s, a call for each chunk", least=True)]


def memory_bars(result):
    found = result["systems"].get("sluice", {})
    if "idle" not in found:
        return []
    largest = max((kb, name) for name, kb in found["idle"].items())
    return [Bar("gateway's memory, each open stream", per_stream(found, "gateway"), 20, KB),
            Bar("memory of the largest idle program", largest[0] / 1024, 15, MB, largest[1])]


HEAD = ("bar", "asked", "measured", "reached", "against")


def table(results):
    return HEAD, [bar.cells() for bar in all_bars(results)]
