"""How time and CPU grow with the size of the question, of the passages and of the history; all
latencies 0, so that nothing hides them."""

from bench import heading
from measure import BenchError, Load, ms
from systems import LABELS

RATE, TOKENS = 50, 16
# What is varied: the client's option or the stub's behaviour, and its values. The first of each is
# what all other measurements have.
QUESTION, CHUNK, HISTORY = "question, bytes", "passage, bytes", "earlier messages"
VALUES = {QUESTION: (60, 1000, 8000, 32000), CHUNK: (600, 2000, 8000), HISTORY: (0, 10, 50)}
HEAD = ("varied", "value", "system", "TTFT p50 ms", "p99 ms", "failed", "CPU ms a request, own",
        "with broker and Redis")


def run(bench):
    heading(f"growth with size, {RATE}/s, all latencies 0")
    rows = []
    for name in bench.wanted("asyncio", "sluice", "jobqueue"):
        try:
            with bench.system(name) as system:
                for varied, values in VALUES.items():
                    for value in values[::len(values) - 1] if bench.options.quick else values:
                        rows.append(row(bench, system, varied, value))
        except BenchError as error:
            rows.append({"system": name, "error": str(error)})
    return {"rows": rows}


def row(bench, system, varied, value):
    bench.stub.behave(free=True, tokens=TOKENS, chunk_bytes=value if varied == CHUNK else 600)
    extra = {QUESTION: ("--query-bytes", str(value)), HISTORY: ("--history", str(value)), CHUNK: ()}
    options = bench.options
    result = bench.run(system, Load(rate=RATE, tokens=TOKENS, seconds=options.seconds,
                                    warmup=options.warmup, extra=extra[varied]), f"{varied} {value}")
    return {"system": system.name, "varied": varied, "value": value, **result}


def tables(result):
    rows = []
    for r in result["rows"]:
        if "error" in r:
            rows.append(("", "", LABELS[r["system"]], r["error"].splitlines()[0], *[""] * 4))
            continue
        cpu = r["cpu_ms"]
        rows.append((r["varied"], str(r["value"]), LABELS[r["system"]], ms(r["ttft_ms"]["p50"]),
                     ms(r["ttft_ms"]["p99"]), str(r["failed"]), f"{cpu['own']:.2f}",
                     f"{cpu['all']:.2f}" if cpu["all"] != cpu["own"] else ""))
    rows.sort(key=lambda cells: list(VALUES).index(cells[0]) if cells[0] else len(VALUES))
    return [("", HEAD, rows)]
