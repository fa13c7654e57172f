"""deploy/stack down: stop everything in the order in which work flows, and see that it is gone."""

import time

from .components import WORKERS
from .supervisor import Supervisor
from .terminal import Waiting, say


def stages(names):
    """Those who accept work first, those who do it next, what they need last."""
    gateways, workers, servers = [], [], []
    for name in names:
        component = name.rpartition("-")[0]
        if component == "gateway":
            gateways.append(name)
        elif component in WORKERS:
            workers.append(name)
        else:
            servers.append(name)
    return [stage for stage in (gateways, workers, servers) if stage]


def stop_in_order(supervisor):
    states = supervisor.processes()
    running = {name for name, info in states.items() if info["pid"]}
    for stage in stages(sorted(states)):
        began = time.monotonic()
        waiting = [name for name in stage if name in running]
        line = Waiting()

        def on_stopped(name):
            line.clear()
            if name in waiting:
                waiting.remove(name)
                say(f"  {name:<16}stopped after {time.monotonic() - began:.1f} s")
            if waiting:
                line.show(waiting)

        supervisor.stop(stage, on_stopped)


def down(layout, purge):
    with layout.locked():
        supervisor = Supervisor(layout)
        was_running = supervisor.is_running()
        if was_running:
            stop_in_order(supervisor)
            supervisor.shutdown()
        ended = supervisor.end_leftovers(patience=10 if was_running else 0)
        if ended:
            say(f"  ended {ended} more processes of the stack")
        supervisor.forget_socket()
        if (layout.directory / "state.json").exists():
            layout.save()
        if purge:
            layout.purge()
        if was_running or ended:
            say("  the stack is down: nothing of it is running")
        else:
            say("  the stack was not running")
        if purge:
            say(f"  its data, logs and configuration in {layout.directory} are removed")
    return 0
