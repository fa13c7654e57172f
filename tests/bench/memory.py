"""Memory (PSS) of each process: idle, with many open streams whose model waits, and after them.

The streams are opened by a closed loop at a stub whose model takes a minute to say its first word;
when all of them are at the model, memory is read. What a stream costs is the difference to before,
divided by the streams.
"""

import time

from bench import heading
from measure import BenchError, Client, Load, Progress, pss_kb, settle
from systems import LABELS

STREAMS, QUICK_STREAMS = 2000, 300
MODEL_MS = 60000
SPREAD_SECONDS, OPEN_SECONDS = 6, 40
PATIENT = {"SLUICE_CHAT_FIRST_BYTE_TIMEOUT": "5m", "SLUICE_CHAT_TIMEOUT": "5m"}
HEAD = ("system", "process", "idle, MB", "with the streams, MB", "a stream, KB", "after them, MB")


def run(bench):
    streams = QUICK_STREAMS if bench.options.quick else STREAMS
    heading(f"memory, idle and with {streams} streams whose model waits")
    found = {}
    for name in bench.wanted("asyncio", "sluice", "jobqueue"):
        try:
            found[name] = of_system(bench, name, streams)
        except BenchError as error:
            found[name] = {"error": str(error)}
    return {"streams": streams, "systems": found}


def of_system(bench, name, streams):
    with bench.system(name, warm=False, **PATIENT) as system, Progress(f"{name:9} {streams} streams") as progress:
        settle(system.processes())
        idle = read(system)
        bench.stub.behave(chat_ms=MODEL_MS, embed_ms=0, vector_ms=0, keyword_ms=0, rerank_ms=0)
        load = Load(streams=streams, seconds=MODEL_MS / 1000, warmup=0, timeout_ms=2 * MODEL_MS,
                    extra=("--spread", str(SPREAD_SECONDS)))
        bench.stub.reset()
        with Client(system.client(), load) as client:
            waiting = wait_for(bench.stub, client, streams)
            settle(system.processes())
            held = read(system)
        settle(system.processes())
        after = read(system)
        progress.done(f"{waiting} at the model")
    return {"streams": waiting, "idle": idle, "open": held, "after": after}


def wait_for(stub, client, streams):
    """How many are at the model, once it is all of them."""
    end = time.monotonic() + OPEN_SECONDS
    while True:
        waiting = stub.stats()["chat"]["in_flight"]
        if waiting >= streams:
            return waiting
        if time.monotonic() > end:
            raise BenchError(f"only {waiting} of {streams} streams reached the model")
        client.sleep(0.2)


def read(system):
    """PSS of each process in KB."""
    return {name: pss_kb(pid) for name, pid in system.processes().items()}


def per_stream(found, process):
    return (found["open"][process] - found["idle"][process]) / found["streams"]


def tables(result):
    rows = []
    for name, found in result["systems"].items():
        if "error" in found:
            rows.append((LABELS[name], found["error"].splitlines()[0], *[""] * 4))
            continue
        rows += [(LABELS[name], process, f"{found['idle'][process] / 1024:.1f}",
                  f"{found['open'][process] / 1024:.1f}", f"{per_stream(found, process):.1f}",
                  f"{found['after'][process] / 1024:.1f}") for process in found["idle"]]
    return [("", HEAD, rows)]
