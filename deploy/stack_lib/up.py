"""deploy/stack up, scale and restart: whatever starts processes and waits until they are ready.

The order of `up`: ports are chosen and checked before anything is started; Kafka, Redis and the
model servers start side by side; when they are ready the topics are created; then the workers. What
runs already stays, unless its configuration changed or its program was built anew.
"""

import json
import os
import shutil
import subprocess
import time

from . import components
from .components import SERVERS, WORKERS, instance_names
from .errors import StackError
from .ports import LISTEN_VARIABLE
from .supervisor import Supervisor
from .terminal import Waiting, coloured, last_lines, say

PORTS_OF = {
    "kafka": ("kafka", "controller"),
    "redis": ("redis",),
    "opensearch": ("opensearch", "opensearch-transport"),
    "model-chat": ("chat",),
    "model-embed": ("embed",),
    "model-rerank": ("rerank",),
}
# Holds, as JSON, what `deploy/stack env` exported besides it.
EXPORTED = "SLUICE_STACK_EXPORTED"

# Where things are is not configuration of what runs; each worker has an admin port of its own; the
# command line alone reads SLUICE_URL.
NEVER_KEPT = (EXPORTED, "SLUICE_LOCAL", "SLUICE_STACK_DIR", "SLUICE_ADMIN_LISTEN", "SLUICE_URL")

POLL_SECONDS = 0.1
TOPICS_SECONDS = 60

# So many starts without becoming ready are a failure; more of the same will not help.
MAX_STARTS = 3


class Up:
    def __init__(self, layout):
        self.layout = layout
        self.supervisor = Supervisor(layout)

    # ---- what is to run, and with what ----

    def users_variables(self):
        """The SLUICE_* variables that the user set.

        After `eval "$(deploy/stack env)"` the shell holds the stack's own values, which may be
        those of an earlier run: they are not the user's. EXPORTED tells them apart.
        """
        environ = self.layout.environ
        try:
            exported = json.loads(environ.get(EXPORTED) or "{}")
        except ValueError:
            raise StackError(f"{EXPORTED} is damaged: unset it", 2) from None
        return {
            name: value
            for name, value in environ.items()
            if name.startswith("SLUICE_") and name not in NEVER_KEPT and exported.get(name) != value
        }

    def recall(self):
        """Go on with the variables that `up` was given: what runs keeps its configuration."""
        given = self.layout.state.get("variables", {})
        environ = {**self.layout.environ, **given, **self.users_variables()}
        self.layout.environ = self.layout.ports.environ = environ

    def passed_on(self):
        """Those of the user's variables that are for the workers."""
        return {
            name: value
            for name, value in self.users_variables().items()
            if not name.startswith("SLUICE_STACK_") and name != LISTEN_VARIABLE
        }

    def exports(self):
        """What `deploy/stack env` prints; it leaves alone what the user set."""
        variables = components.exports(self.layout, self.layout.ports.chosen)
        return {name: value for name, value in variables.items() if name not in self.passed_on()}

    def processes_of(self, component):
        layout, chosen = self.layout, self.layout.ports.chosen
        if component in SERVERS:
            return [components.server_process(layout, chosen, component)]
        passed_on = self.passed_on()
        names = instance_names(component, layout.count(component))
        return [
            components.worker_process(layout, chosen, passed_on, component, name) for name in names
        ]

    def names_of(self, workers):
        return [name for one in workers for name in instance_names(one, self.layout.count(one))]

    def choose_ports(self, wanted, running):
        """Ports for all that is to be started; what runs keeps its own."""
        ports = self.layout.ports
        for component in wanted:
            for nth, name in enumerate(instance_names(component, self.layout.count(component)), 1):
                if name in running:
                    continue
                if component in SERVERS:
                    for port in PORTS_OF[component]:
                        ports.forget(port)
                        ports.choose_fixed(port)
                    continue
                ports.forget_admin(name)
                ports.choose_admin(name, WORKERS[component], nth)
                if component == "gateway":
                    port_name = components.gateway_port_name(name)
                    ports.forget(port_name)
                    ports.choose_gateway(port_name, nth)
        ports.check()

    def check_directory(self):
        """It is part of the store's URL and of supervisor's configuration: the one cannot hold
        blanks, the other expands what follows a percent sign more than once."""
        directory = str(self.layout.directory)
        if len(directory.split()) != 1 or "%" in directory:
            raise StackError(
                f"the stack's directory must have neither blanks nor % in its path: {directory}\n"
                "set SLUICE_STACK_DIR to another one",
                2,
            )

    def check_installed(self, wanted):
        layout = self.layout
        needed = [layout.local / "venv/bin/supervisord"]
        if "kafka" in wanted:
            needed.append(layout.local / "kafka/libs")
        if "opensearch" in wanted:
            needed.append(layout.local / "opensearch/lib")
        if "model-embed" in wanted:
            needed.append(layout.local / "models" / components.EMBED_FILE)
        programs = {"kafka": "java", "redis": "redis-server"}
        if components.store_kind(layout) == "redis":
            del programs["redis"]
            needed += [layout.local / path for path in components.QUERY_ENGINE]
        missing = [str(path) for path in needed if not path.exists()]
        missing += [
            program
            for component, program in programs.items()
            if component in wanted and not shutil.which(program)
        ]
        if missing:
            raise StackError(f"not installed: {', '.join(missing)}\nrun deploy/setup first, with --tests for a store of its own")
        workers = [component for component in wanted if component in WORKERS]
        names = [f"sluice-{component}" for component in workers] + (["sluice"] if workers else [])
        unbuilt = [name for name in names if not os.access(layout.bin / name, os.X_OK)]
        if unbuilt:
            raise StackError(
                f"not in {layout.bin}: {', '.join(unbuilt)}\n"
                "build them: cmake --preset release && cmake --build --preset release"
            )

    # ---- up ----

    def up(self, only, bin_directory):
        began = time.monotonic()
        wanted = components.expand(only) if only else components.defaults(self.layout)
        self.check_directory()
        with self.layout.locked():
            if bin_directory:
                self.layout.state["bin"] = os.path.abspath(bin_directory)
            self.check_installed(wanted)
            if not self.supervisor.is_running():
                self.clean_after_crash()
            running = self.running_names()
            self.choose_ports(wanted, running)
            self.layout.make()
            self.layout.state["variables"] = self.users_variables()
            self.layout.state["exports"] = self.exports()
            self.layout.save()
            if not self.supervisor.is_running():
                self.supervisor.start()
            self.bring_up(wanted)
        say(f"  the stack is up ({time.monotonic() - began:.1f} s)")

    def clean_after_crash(self):
        """Nothing of the stack runs, or supervisord was killed and left its processes behind."""
        ended = self.supervisor.end_leftovers(0)
        if ended:
            say(f"  ended {ended} processes that an earlier supervisord left behind")
        self.supervisor.forget_socket()
        self.layout.ports.chosen.clear()
        self.layout.ports.chosen["admin"] = {}
        shutil.rmtree(self.layout.sections, ignore_errors=True)

    def running_names(self):
        running = ("RUNNING", "STARTING", "BACKOFF", "STOPPING")
        states = self.supervisor.processes()
        return {name for name, info in states.items() if info["statename"] in running}

    def bring_up(self, wanted):
        servers = [name for name in wanted if name in SERVERS]
        workers = [name for name in wanted if name in WORKERS]
        self.write_server_configs(servers)
        own = components.connections(self.layout, self.layout.ports.chosen)
        overridden = [name for name in self.passed_on() if name in own]
        if workers and overridden:
            names = ", ".join(sorted(overridden))
            say(f"  the workers use what is set in your environment: {names}")
        processes = [process for name in wanted for process in self.processes_of(name)]
        self.supervisor.define(processes)
        self.stop_outdated(processes)
        by_component = {name: [] for name in wanted}
        for process in processes:
            by_component[process.component].append(process)

        # Kafka's data directory is prepared while the others load.
        first = [process for name in servers if name != "kafka" for process in by_component[name]]
        self.start(first)
        if "kafka" in servers:
            self.format_kafka()
            self.start(by_component["kafka"])
            first += by_component["kafka"]
        self.wait_until_ready(first)
        # None where each of the workers is scaled to 0.
        second = [process for name in workers for process in by_component[name]]
        if second:
            self.create_topics(second[0].environment)
            if not self.running_names() & set(self.names_of(WORKERS)):
                self.begin_epoch(second[0].environment)
            self.start(second)
            self.wait_until_ready(second)

    def write_server_configs(self, servers):
        chosen = self.layout.ports.chosen
        if "kafka" in servers:
            components.write_kafka_config(self.layout, chosen)
        if "redis" in servers:
            components.write_redis_config(self.layout, chosen)

    def stop_outdated(self, processes):
        """A worker whose program was built after its start runs code that is no longer there."""
        states = self.supervisor.processes()
        outdated = [
            process.name
            for process in processes
            if process.component in WORKERS
            and states[process.name]["pid"]
            and states[process.name]["start"] < os.stat(process.program).st_mtime
        ]
        if outdated:
            say(f"  stopping what was built anew: {', '.join(outdated)}")
            self.supervisor.stop(outdated)

    def start(self, processes):
        running = self.running_names()
        for process in processes:
            if process.name not in running:
                self.supervisor.start_process(process.name)

    # ---- steps that are programs of their own ----

    def run_step(self, title, command, environment, log, seconds):
        began = time.monotonic()
        with open(log, "ab") as output:
            try:
                status = subprocess.run(
                    command,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=seconds,
                ).returncode
                how = f"ended with status {status}"
            except subprocess.TimeoutExpired:
                status, how = 1, f"did not end within {seconds} s"
        if status != 0:
            raise StackError(failure(f"{title}: {' '.join(command[:3])} {how}", log))
        say(f"  {title:<16}{coloured('done', 'green')} after {time.monotonic() - began:.1f} s")

    def format_kafka(self):
        command = components.kafka_format(self.layout)
        if command:
            # A format that was interrupted is begun anew.
            shutil.rmtree(self.layout.data / "kafka", ignore_errors=True)
            log = self.layout.log("kafka-format")
            self.run_step("kafka format", command, {}, log, TOPICS_SECONDS)

    def create_topics(self, environment):
        command = (str(self.layout.bin / "sluice"), "topics", "create")
        log = self.layout.log("topics")
        self.run_step("topics", command, environment, log, TOPICS_SECONDS)

    def begin_epoch(self, environment):
        """No worker runs, so nobody holds a permit that this Redis may have forgotten: what the
        workers would otherwise wait for, one lease's time (docs/REDIS.md), need not be waited for."""
        url = environment["SLUICE_REDIS_URL"]
        if url != components.connections(self.layout, self.layout.ports.chosen)["SLUICE_REDIS_URL"]:
            return
        info = self.redis_cli(url, "INFO", "server")
        run = next(line[7:] for line in info.splitlines() if line.startswith("run_id:"))
        prefix = environment.get("SLUICE_TOPIC_PREFIX", "sluice")
        self.redis_cli(url, "HSET", f"{prefix}:epoch", "since", "1", "run", run)

    @staticmethod
    def redis_cli(url, *command):
        return subprocess.run(
            ("redis-cli", "-u", url, *command), check=True, capture_output=True, text=True, timeout=10
        ).stdout

    # ---- waiting ----

    def wait_until_ready(self, processes):
        began = time.monotonic()
        waiting = list(processes)
        starts = {process.name: set() for process in processes}
        line = Waiting()
        try:
            while waiting:
                states = self.supervisor.processes()
                for process in list(waiting):
                    info = states.get(process.name, {"statename": "UNKNOWN", "start": 0, "pid": 0})
                    starts[process.name].add(info["start"])
                    ready, words = process.probe() if info["pid"] else (False, info["spawnerr"])
                    elapsed = time.monotonic() - began
                    if ready:
                        waiting.remove(process)
                        line.clear()
                        state = coloured("ready", "green")
                        say(f"  {process.name:<16}{state} after {elapsed:.1f} s")
                    elif elapsed > process.start_seconds:
                        what = f"is not ready after {elapsed:.0f} s: {words}"
                        raise self.not_ready(process, what)
                    elif info["statename"] == "FATAL":
                        raise self.not_ready(process, f"cannot be started: {info['spawnerr']}")
                    elif len(starts[process.name]) > MAX_STARTS:
                        raise self.not_ready(process, f"ended {MAX_STARTS} times after its start")
                if waiting:
                    line.show([process.name for process in waiting])
                    time.sleep(POLL_SECONDS)
        finally:
            line.clear()

    def not_ready(self, process, what):
        text = failure(f"{process.name} {what}", self.layout.log(process.name))
        rest = "what did start is left running; `deploy/stack down` stops it"
        return StackError(f"{text}\n{rest}")

    # ---- restart and scale ----

    def restart(self, name):
        with self.layout.locked():
            self.go_on()
            component = name if name in components.COMPONENTS else name.rpartition("-")[0]
            if component not in components.COMPONENTS:
                components.expand([name])
            processes = self.processes_of(component)
            if name != component:
                processes = [process for process in processes if process.name == name]
            known = self.supervisor.processes()
            processes = [process for process in processes if process.name in known]
            if not processes:
                raise StackError(
                    f"{name} does not run: `deploy/stack up` starts what is missing, "
                    "`deploy/stack scale` changes how many there are",
                    2,
                )
            say(f"  stopping {', '.join(process.name for process in processes)}")
            self.supervisor.stop([process.name for process in processes])
            self.supervisor.define(processes)
            self.start(processes)
            self.wait_until_ready(processes)

    def scale(self, component, count):
        if component not in WORKERS:
            raise StackError(f"only workers can be scaled: {', '.join(WORKERS)}", 2)
        if not 0 <= count <= components.MAX_INSTANCES:
            raise StackError(f"from 0 to {components.MAX_INSTANCES} instances are possible", 2)
        with self.layout.locked():
            self.go_on()
            self.check_installed([component])
            surplus = instance_names(component, self.layout.count(component))[count:]
            self.layout.state.setdefault("instances", {})[component] = count
            self.remove_instances(component, surplus)
            self.choose_ports([component], self.running_names())
            self.layout.state["exports"] = self.exports()
            self.layout.save()
            processes = self.processes_of(component)
            self.supervisor.define(processes)
            self.start(processes)
            self.wait_until_ready(processes)
            say(f"  {component} runs in {count} instance{'' if count == 1 else 's'}")

    def remove_instances(self, component, names):
        known = self.supervisor.processes()
        names = [name for name in names if name in known]
        if names:
            say(f"  stopping {', '.join(names)}")
            self.supervisor.stop(names)
            self.supervisor.remove(names)
        for name in names:
            self.layout.ports.forget_admin(name)
            if component == "gateway":
                self.layout.ports.forget(components.gateway_port_name(name))

    def go_on(self):
        if not self.supervisor.is_running():
            raise StackError("the stack is not running: start it with `deploy/stack up`")
        self.recall()


def failure(what, log):
    return f"{what}\nthe log: {log}\nits last lines:\n{last_lines(log, 20)}"
