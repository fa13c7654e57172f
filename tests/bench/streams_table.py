"""The main table: what a question costs at some numbers of streams, in each system.

N streams are an open loop: requests arrive at random at N / (duration of a whole answer) a second, so
that N are open on average if nothing takes time but the upstreams. All systems are given the same
arrivals. The floor is measured first: whatever is asked of the others is seen against it.
"""

from dataclasses import dataclass

from bench import heading
from measure import BenchError, Load, Progress, ms
from systems import LABELS, Stub, hops

SYSTEM_ORDER = ("calls", "asyncio", "hops", "sluice", "jobqueue")
HEAD = ("streams", "system", "TTFT above ideal p50 ms", "p99 ms", "gap p99 ms", "answered", "failed",
        "CPU ms a request, own", "with broker and Redis")
FREE_RATE = 10  # Requests a second with all latencies 0.
LEAST_REQUESTS = 15  # Few streams are counted longer, at most LONGEST times as long.
LONGEST = 3
HOPELESS_MS = 2500
HOPS = 5


@dataclass(frozen=True)
class Point:
    """One line of the table for each system; streams 0 stands for all latencies 0."""

    streams: int

    @property
    def free(self):
        return self.streams == 0

    @property
    def slow(self):
        """From here on client and stub alone would saturate two cores at the faster tokens."""
        return self.streams >= 2000

    @property
    def label(self):
        return "latencies 0, 10/s" if self.free else f"{self.streams} streams"

    @property
    def behaviour(self):
        if self.free:
            return {"tokens": 16, "free": True}
        return {"tokens": 20, "interval_ms": 100} if self.slow else {"tokens": 50, "interval_ms": 30}

    @property
    def ideal_ms(self):
        return 0 if self.free else Stub.FIRST_TOKEN_MS

    @property
    def rate(self):
        if self.free:
            return FREE_RATE
        behaviour = self.behaviour
        whole_ms = self.ideal_ms + (behaviour["tokens"] - 1) * behaviour["interval_ms"]
        return self.streams * 1000 / whole_ms

    def load(self, options):
        seconds = options.seconds
        if not options.quick:
            seconds = max(seconds, min(LONGEST * seconds, LEAST_REQUESTS / self.rate))
        # A request takes 3 s at best; a system that needs four times that has collapsed.
        return Load(rate=self.rate, tokens=self.behaviour["tokens"], ideal_ms=self.ideal_ms,
                    seconds=seconds, warmup=options.warmup, timeout_ms=12000)


def run(bench):
    heading("TTFT and CPU against concurrency")
    points = [Point(streams) for streams in bench.options.streams]
    rows = []
    for name in bench.wanted(*SYSTEM_ORDER):
        try:
            rows += hops_rows(bench, points) if name == "hops" else system_rows(bench, name, points)
        except BenchError as error:
            rows.append({"system": name, "streams": None, "error": str(error)})
    return {"rows": rows}


def system_rows(bench, name, points):
    rows = []
    with bench.system(name) as system:
        hopeless = False
        for point in points:
            if hopeless and not point.free:
                rows.append({"system": name, "streams": point.streams, "skipped": True})
                continue
            bench.stub.behave(**point.behaviour)
            result = bench.run(system, point.load(bench.options), point.label)
            hopeless |= not point.free and is_hopeless(result)
            rows.append({**result, "system": name, "streams": point.streams})
    return rows


def is_hopeless(result):
    """More streams would only take longer to fail."""
    return result["failed"] > 0.2 * result["due"] or result["overhead_ms"]["p50"] > HOPELESS_MS


def hops_rows(bench, points):
    rows = []
    for point in points:
        with Progress(f"{'hops':9} {point.label}") as progress:
            result = hops(bench.servers, point.rate, point.load(bench.options).seconds)
            progress.done(f"chain p50 {result['chain_ms']['p50']:.2f} "
                          f"p99 {result['chain_ms']['p99']:.2f} ms")
        rows.append({**result, "system": "hops", "streams": point.streams})
    return rows


def cells(row):
    name = LABELS[row["system"]]
    if row.get("error"):
        return ("", name, row["error"].splitlines()[0], *[""] * 6)
    streams = str(row["streams"]) if row["streams"] else "latencies 0"
    if row.get("skipped"):
        return (streams, name, "not tried: collapsed before", *[""] * 6)
    if row["system"] == "hops":
        chain = row["chain_ms"]
        return (streams, name, ms(chain["p50"]), ms(chain["p99"]), "", str(row["answered"]), "",
                ms(HOPS * row["cpu_us_per_message"] / 1000),
                ms(HOPS * (row["cpu_us_per_message"] + row["broker_cpu_us_per_message"]) / 1000))
    over, cpu = row["overhead_ms"], row["cpu_ms"]
    everything = ms(cpu["all"]) if cpu["all"] != cpu["own"] else ""
    return (streams, name, ms(over["p50"]), ms(over["p99"]), ms(row["gap_ms"]["p99"]),
            str(row["answered"]), str(row["failed"]), ms(cpu["own"]), everything)


def order(row):
    """Streams as asked, the free row last; systems as listed."""
    streams = row.get("streams")
    return (streams is None, not streams, streams or 0, SYSTEM_ORDER.index(row["system"]))


def tables(result):
    rows = sorted(result["rows"], key=order)
    found = [("", HEAD, [cells(row) for row in rows])]
    shares = [row for row in rows if row["system"] == "sluice" and "cpu_ms" in row]
    if shares:
        names = [name for name in shares[0]["cpu_ms"] if name not in ("own", "all")]
        found.append(("Sluice's CPU, ms a request by process (client and stub beside it)",
                      ("streams", *names),
                      [(str(row["streams"] or "latencies 0"),
                        *(f"{row['cpu_ms'].get(name, 0):.3f}" for name in names)) for row in shares]))
    return found
