"""Where a question's time goes, by the stages' own histograms.

Every worker's /metrics is read before and after a run; the growth of a histogram's sum, divided by
that of its count, is the mean over exactly the questions of the run. `queue` is kept in whole
milliseconds, as the wire has it; all else in microseconds.
"""

from bench import heading
from measure import means_between, scrape
from streams_table import Point
from systems import STAGES, Stub

STREAMS = (10, 100, 500)
PART = "sluice_stage_seconds"
UPSTREAM = "sluice_upstream_seconds"
UPSTREAMS = {"embed": ("EMBED",), "retrieve": ("VECTOR", "KEYWORD"), "rerank": ("RERANK",),
             "generate": ("CHAT",)}
FIRST_PARTS = ("queue", "wait", "work")


def run(bench):
    heading("cost per hop, from the stages' own spans")
    rows = []
    if not bench.wanted("sluice"):
        return {"rows": rows}
    with bench.system("sluice") as system:
        admins = {name: worker.admin() for name, worker in system.workers().items()}
        for streams in STREAMS[:2] if bench.options.quick else STREAMS:
            point = Point(streams)
            bench.stub.behave(**point.behaviour)
            before = {name: scrape(url) for name, url in admins.items()}
            result = bench.run(system, point.load(bench.options), point.label)
            spans = {name: spelled(means_between(before[name], scrape(url)))
                     for name, url in admins.items()}
            rows.append({"streams": streams, "ttft_ms": result["ttft_ms"],
                         "overhead_ms": result["overhead_ms"], "cpu_ms": result["cpu_ms"],
                         "spans": spans})
    return {"rows": rows}


def spelled(means):
    """{'histogram{label="value"}': [mean ms, count]}, for JSON."""
    return {name + "{" + ",".join(f'{k}="{v}"' for k, v in labels) + "}": [mean * 1000, count]
            for (name, labels), (mean, count) in means.items()}


def mean_of(spans, histogram, **labels):
    """The mean in ms of the series that has these labels, or None."""
    words = [f'{name}="{value}"' for name, value in labels.items()]
    for series, (mean, _) in spans.items():
        if series.startswith(histogram + "{") and all(word in series for word in words):
            return mean
    return None


def parts_of(row):
    """The parts that the stages tell apart, those of old first."""
    found = {series.split('part="')[1].split('"')[0] for spans in row["spans"].values()
             for series in spans if series.startswith(PART + "{") and 'part="' in series}
    return [*[part for part in FIRST_PARTS if part in found], *sorted(found - set(FIRST_PARTS))]


def shown(value):
    return "" if value is None else f"{value:.2f}"


def ideal_of(stage, streams):
    """How long the stage's (slowest) call takes by the stub's settings."""
    behaviour, ideal = Point(streams).behaviour, Stub.IDEAL
    return {"embed": ideal["embed_ms"], "retrieve": max(ideal["vector_ms"], ideal["keyword_ms"]),
            "rerank": ideal["rerank_ms"],
            "generate": ideal["chat_ms"] + (behaviour["tokens"] - 1) * behaviour["interval_ms"]}[stage]


def line_of(row, stage, parts):
    """(parts ..., the call above its ideal, the work less the call), numbers or None."""
    spans = row["spans"].get(stage, {})
    calls = [mean_of(spans, UPSTREAM, upstream=name) for name in UPSTREAMS[stage]]
    slowest = max((mean for mean in calls if mean is not None), default=None)
    means = [mean_of(spans, PART, part=part) for part in parts]
    if slowest is None:
        return [*means, None, None]
    work = mean_of(spans, PART, part="work")
    return [*means, slowest - ideal_of(stage, row["streams"]), None if work is None else work - slowest]


def tables(result):
    found = []
    for row in result["rows"]:
        parts = parts_of(row)
        blank = [""] * (len(parts) + 1)
        lines = [(stage, *map(shown, line_of(row, stage, parts))) for stage in STAGES]
        lag = mean_of(row["spans"].get("gateway", {}), "sluice_reply_lag_seconds")
        lines.append(("gateway: a reply's way from the log", *blank, shown(lag)))
        lines.append(("client: TTFT above ideal, mean", *blank, shown(row["overhead_ms"]["mean"])))
        found.append((f"{row['streams']} streams, mean ms",
                      ("stage", *parts, "call above its ideal", "work less call"), lines))
    return found
