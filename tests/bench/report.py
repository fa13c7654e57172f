"""From results to text: tables for the terminal, JSON in build/bench, and docs/BENCHMARKS.md, which is
put together from the last whole result of each subject."""

import json
import os
import platform
import re
import subprocess
import time

import bars
import plot
from prepare import OUT, ROOT

PAGE = os.path.join(ROOT, "docs", "BENCHMARKS.md")
TTFT_PLOT, CPU_PLOT = "benchmarks-ttft.svg", "benchmarks-cpu.svg"
PART = "-part"
NUMBER = re.compile(r"^[\d.,]*$")

INTRODUCTION = """# Benchmarks

Written by `tests/bench/run --write`. What Sluice adds to the time of the models and stores, measured
side by side with what one would otherwise run: the same stub of all models and stores
(`tests/bench/bench_upstream.c`), the same client (`tests/bench/bench_load.c`), the same machine, one
system after the other.

- **Sluice**: one gateway and one worker of each kind, release build, log level `warn`, limits so high
  that they hold nothing back, no vectors kept for questions that come again (`SLUICE_EMBED_CACHE=0`),
  12 partitions.
- **(a)**: the asyncio design in one process: FastAPI, uvicorn with uvloop and httptools, aiohttp,
  semaphores, the two searches gathered, answers streamed.
- **(b)**: the Python job queue: a FastAPI gateway and aiokafka workers over the same broker and Redis.
- **(c)**, the floor: a minimal C client that makes the five calls itself, and a minimal C chain of five
  Kafka hops, with one record a question: the tokens' way back is not in it. Both together are what
  the design cannot get below.

Kafka (one broker, its usual compiler), Redis, stub and client run on the same processors as the
system. Latencies of the stub are 120 ms for an embedding, 150 and 100 ms for the two searches, 200 ms
for reranking and 300 ms to the first token: 770 ms at best. Then 50 tokens 30 ms apart; from 2000
streams on 20 tokens 100 ms apart. *N streams* are an open loop with random arrivals (Poisson, the same
for all) at N / (duration of a whole answer) a second. Times count from when a request was due, not
from when it could be sent. CPU is that of a system's own processes in the counted phase by the requests
that were answered; memory is PSS.
"""

TITLES = {
    "table": ("TTFT and CPU against concurrency", "run"),
    "rate": ("The highest rate, all latencies 0", "run rate"),
    "memory": ("Memory", "run memory"),
    "spans": ("Cost per hop", "run spans"),
    "ingest": ("Ingestion", "run ingest"),
    "bulk": ("Questions beside a bulk load", "run bulk"),
    "scale": ("Scaling", "run scale"),
    "growth": ("Growth with size", "run growth"),
}
WORDS = {
    "rate": "A rate is held when no request fails, the p99 of TTFT is under 1 s, and at least 98 % of what"
            " was due\nin the counted phase was answered in as long a time; it counts as not held when it"
            " failed twice. Each\nanswer has 16 tokens.",
    "memory": "Streams are opened at a model that does not answer; what one costs is the difference to"
              " before, divided\nby their number.",
    "spans": "Means of the stages' own histograms over exactly the questions of the run. `queue` is the"
             " time in the\ntopic (kept in whole milliseconds), `wait` for admission and permits, `work` at"
             " work; *work less call* is\nwhat is left of the work without the stage's (slowest) call.",
    "ingest": "One folder of text files of 20 KB, chunks of 500 characters. Sluice writes to SQLite, from"
              " the start of\n`sluice ingest` to its end; (a) gives its chunks to the stub, which forgets"
              " them.",
    "bulk": "20 streams on average, whose searches go to SQLite, while `sluice ingest` fills the same file."
            " *Above the\ncalls*: above what embedding, rerank and chat model take; the two searches are"
            " part of it.",
    "scale": "A closed loop of 200 streams. *Upstream-bound*: the model has 40 permits in the whole"
             " cluster.\n*Processor-bound*: all latencies 0.",
    "growth": "50 requests a second, all latencies 0, 16 tokens; one thing is varied at a time.",
}


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as f:
        memory = int(f.readline().split()[1]) / (1 << 20)
    cores = len(os.sched_getaffinity(0))
    return (f"{cores} processors ({models[0] if models else platform.machine()}), {memory:.0f} GB, "
            f"Linux {platform.release()}, Python {platform.python_version()}")


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


def save(subject, command, result, whole):
    """Writes build/bench/SUBJECT.json, with what is needed to repeat it; SUBJECT-part.json where not
    all was measured that the page wants, so that it does not take the place of what was."""
    os.makedirs(OUT, exist_ok=True)
    path = os.path.join(OUT, subject + ("" if whole else PART) + ".json")
    record = {"subject": subject, "command": command, "date": time.strftime("%Y-%m-%d"),
              "machine": machine(), "commit": commit(), "result": result}
    with open(path + ".partial", "w", encoding="utf-8") as f:
        json.dump(record, f, indent=1)
        f.write("\n")
    os.replace(path + ".partial", path)
    return record


def load_all():
    """The last record of each subject that was measured here, of the whole one if there is one."""
    records = {}
    for subject in TITLES:
        for name in (subject, subject + PART):
            path = os.path.join(OUT, name + ".json")
            if subject not in records and os.path.exists(path):
                with open(path, encoding="utf-8") as f:
                    records[subject] = json.load(f)
    return records


# ---- text -------------------------------------------------------------------------------------


def grid(head, rows):
    """A Markdown table with columns of equal width; numbers to the right."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    right = [i > 0 and any(row[i] for row in rows) and all(NUMBER.match(row[i]) for row in rows)
             for i in range(len(head))]

    def line(cells):
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right))
        return "| " + " | ".join(padded) + " |"
    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right)) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def text_of(tables):
    return "\n\n".join((title + "\n\n" if title else "") + grid(head, rows)
                       for title, head, rows in tables if rows)


def bars_text(records):
    head, rows = bars.table({subject: r["result"] for subject, r in records.items()})
    return grid(head, rows) if rows else ""


# ---- the page ---------------------------------------------------------------------------------


def absent():
    """The subjects that the page is not written without."""
    records = load_all()
    return [subject for subject in TITLES if subject not in records]


def write_page(subjects):
    """docs/BENCHMARKS.md and its plots; `subjects` are the modules by name. What was written."""
    records = load_all()
    parts = [INTRODUCTION]
    text = bars_text(records)
    if text:
        parts.append("## The bars\n\nRatios are of figures of the same run. The floor at p50 is the sum of"
                     " (c)'s two parts; a bar that lies under\nit cannot be reached, and 1.5 times the floor"
                     " takes its place.\n\n" + text + "\n")
    written = [PAGE]
    for subject, record in records.items():
        title, _ = TITLES[subject]
        made = (f"`{record['command']}`, {record['date']}, commit {record['commit']};\n"
                f"{record['machine']}.")
        body = [f"## {title}", "", made]
        if subject in WORDS:
            body += ["", WORDS[subject]]
        for name, drawing in drawings(subject, record["result"]):
            body += ["", f"![{title}]({name})"]
            written.append(os.path.join(ROOT, "docs", name))
            with open(written[-1], "w", encoding="utf-8") as f:
                f.write(drawing)
        body += ["", text_of(subjects[subject].tables(record["result"])), ""]
        parts.append("\n".join(body))
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write("\n".join(parts))
    return [os.path.relpath(path, ROOT) for path in written]


def drawings(subject, result):
    """The plots of a subject: (file, SVG)."""
    if subject == "table":
        yield TTFT_PLOT, plot.ttft(result)
    if subject == "rate":
        yield CPU_PLOT, plot.cpu(result)
