"""deploy/stack status: what runs, since when, how it is, and how busy."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

from . import probes
from .components import COMPONENTS, SERVERS
from .supervisor import Supervisor
from .terminal import coloured, duration, say
from .up import Up

IN_FLIGHT = "sluice_jobs_in_flight"
LAG = "sluice_consumer_lag"
# Health comes last, since what it says may be long.
COLUMNS = ("process", "pid", "up for", "in flight", "lag", "health")
RIGHT = {"pid", "up for", "in flight", "lag"}

# How supervisor's states read where a process is not there to be asked.
HEALTH_OF_STATE = {
    "STOPPED": "stopped",
    "STOPPING": "stopping",
    "BACKOFF": "restarting",
    "EXITED": "ended",
    "FATAL": "failed",
    "UNKNOWN": "unknown",
}


def inspect(process, info):
    """One row: supervisor's view of a process, and the process's own."""
    row = {
        "process": process.name,
        "component": process.component,
        "state": info["statename"].lower(),
        "pid": info["pid"] or None,
        "up_seconds": max(0, int(time.time()) - info["start"]) if info["pid"] else None,
        "health": HEALTH_OF_STATE.get(info["statename"]),
        "reason": "see its log" if info["spawnerr"] else "",
        "admin_port": process.admin_port,
        "in_flight": None,
        "lag": None,
        "log": info["logfile"],
    }
    if info["pid"] and info["statename"] in ("RUNNING", "STARTING"):
        ready, row["reason"] = process.probe()
        row["health"] = "ready" if ready else "not ready"
        if process.admin_port:
            sums = probes.metric_sums(process.admin_port, (IN_FLIGHT, LAG))
            row["in_flight"], row["lag"] = whole(sums[IN_FLIGHT]), whole(sums[LAG])
    return row


def whole(number):
    return None if number is None else int(number)


def collect(layout):
    states = Supervisor(layout).processes()
    up = Up(layout)
    up.recall()
    processes = [
        process
        for component in COMPONENTS
        if component in SERVERS and component in states
        or component not in SERVERS and f"{component}-1" in states
        for process in up.processes_of(component)
        if process.name in states
    ]
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda p: inspect(p, states[p.name]), processes))


def cells(row):
    health = row["health"] if not row["reason"] else f"{row['health']}: {row['reason']}"
    return {
        "process": row["process"],
        "pid": str(row["pid"] or "-"),
        "up for": "-" if row["up_seconds"] is None else duration(row["up_seconds"]),
        "health": health,
        "in flight": "-" if row["in_flight"] is None else str(row["in_flight"]),
        "lag": "-" if row["lag"] is None else str(row["lag"]),
    }


def print_table(rows):
    table = [cells(row) for row in rows]
    widths = {name: max(len(name), *(len(line[name]) for line in table)) for name in COLUMNS}
    widths[COLUMNS[-1]] = 0

    def aligned(line, name):
        return line[name].rjust(widths[name]) if name in RIGHT else line[name].ljust(widths[name])

    say(coloured("  ".join(aligned({n: n for n in COLUMNS}, name) for name in COLUMNS), "bold"))
    for row, line in zip(rows, table):
        colour = {"ready": "green", "stopped": "faint"}.get(row["health"], "red")
        if row["health"] in ("not ready", "stopping", "restarting"):
            colour = "yellow"
        parts = {name: aligned(line, name) for name in COLUMNS}
        parts["health"] = coloured(parts["health"], colour)
        say("  ".join(parts[name] for name in COLUMNS))


def show(layout, as_json):
    """Exit status 0 when all is ready, 1 otherwise."""
    rows = collect(layout)
    healthy = bool(rows) and all(row["health"] == "ready" for row in rows)
    if as_json:
        report = {
            "running": bool(rows),
            "healthy": healthy,
            "directory": str(layout.directory),
            "processes": rows,
        }
        say(json.dumps(report, indent=2))
    elif rows:
        print_table(rows)
    else:
        say("the stack is not running: start it with `deploy/stack up`")
    return 0 if healthy else 1
