"""One to four of each worker, against a load that the upstream bounds and one that the processors do.

Upstream-bound: a model with few permits; more workers must neither answer more (the limit is the
cluster's, not a worker's) nor less. Processor-bound: all latencies 0; more workers help as far as
there are processors for them, and cost what dividing the partitions costs.
"""

from bench import heading
from measure import BenchError, Load, ms
from systems import STAGES

WORKERS = (1, 2, 3, 4)
CHAT_PERMITS = 40
CHAT_MS, TOKENS, INTERVAL_MS = 300, 11, 20
BOUND = CHAT_PERMITS * 1000 / (CHAT_MS + (TOKENS - 1) * INTERVAL_MS)
STREAMS = 200
HEAD = ("workers of each", "load", "answered /s", "failed", "TTFT p50 ms", "p99 ms",
        "most calls at the model", "CPU ms a request, own", "with broker and Redis")


def run(bench):
    heading("scaling: workers of each stage")
    rows = []
    if not bench.wanted("sluice"):
        return {"rows": rows}
    for count in (1, 2) if bench.options.quick else WORKERS:
        workers = dict.fromkeys(STAGES, count)
        try:
            with bench.system("sluice", workers=workers, limits={"CHAT": CHAT_PERMITS}) as system:
                bench.stub.behave(embed_ms=0, vector_ms=0, keyword_ms=0, rerank_ms=0, chat_ms=CHAT_MS,
                                  tokens=TOKENS, interval_ms=INTERVAL_MS)
                rows.append(row(bench, system, count, "upstream", TOKENS))
            with bench.system("sluice", workers=workers) as system:
                bench.stub.behave(free=True, tokens=16)
                rows.append(row(bench, system, count, "processors", 16))
        except BenchError as error:
            rows.append({"workers": count, "error": str(error)})
    return {"rows": rows, "permits": CHAT_PERMITS, "bound_per_s": BOUND}


def row(bench, system, count, bound, tokens):
    options = bench.options
    load = Load(streams=STREAMS, tokens=tokens, seconds=options.seconds, warmup=options.warmup)
    result = bench.run(system, load, f"{count} of each, bound by {bound}")
    return {"workers": count, "bound": bound, "peak": bench.stub.stats()["chat"]["peak"], **result}


def tables(result):
    rows = []
    for r in result["rows"]:
        if "error" in r:
            rows.append((str(r["workers"]), r["error"].splitlines()[0], *[""] * 7))
            continue
        load = (f"{result['permits']} permits: at most {result['bound_per_s']:.0f}/s"
                if r["bound"] == "upstream" else "latencies 0")
        rows.append((str(r["workers"]), load, f"{r['answered_per_s']:.0f}", str(r["failed"]),
                     ms(r["ttft_ms"]["p50"]), ms(r["ttft_ms"]["p99"]), str(r["peak"]),
                     f"{r['cpu_ms']['own']:.2f}", f"{r['cpu_ms']['all']:.2f}"))
    rows.sort(key=lambda cells: (cells[1] == "latencies 0", cells[0]))
    return [("", HEAD, rows)]
