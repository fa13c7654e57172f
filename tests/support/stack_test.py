"""Tests of deploy/stack's decisions, without starting anything."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
DEPLOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy")
sys.path.insert(0, DEPLOY)

from stack_lib import components, terminal, up  # noqa: E402
from stack_lib.errors import StackError  # noqa: E402
from stack_lib.layout import Layout  # noqa: E402

WORKERS = list(components.WORKERS)
ANY_PORTS = {variable: "0" for variable in (
    "SLUICE_STACK_KAFKA_PORT", "SLUICE_STACK_CONTROLLER_PORT", "SLUICE_STACK_REDIS_PORT",
    "SLUICE_STACK_CHAT_PORT", "SLUICE_STACK_EMBED_PORT", "SLUICE_STACK_RERANK_PORT",
    "SLUICE_STACK_ADMIN_PORT")}


class Supervisor:
    """Nothing runs; keeps what was started."""

    def __init__(self):
        self.started, self.defined = [], {}

    def processes(self):
        return self.defined

    def define(self, processes):
        for process in processes:
            self.defined[process.name] = {"statename": "STOPPED", "pid": 0, "start": 0}

    def start_process(self, name):
        self.started.append(name)


class Up(up.Up):
    """Without the steps that are programs of their own."""

    def __init__(self, layout):
        super().__init__(layout)
        self.supervisor = Supervisor()

    def create_topics(self, environment):
        self.topics_made_at = environment["SLUICE_KAFKA_BROKERS"]

    def begin_epoch(self, environment):
        pass

    def wait_until_ready(self, processes):
        pass


class Stack(unittest.TestCase):
    def stack(self, instances, **variables):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        layout = Layout({"SLUICE_STACK_DIR": directory.name, "SLUICE_LISTEN": "127.0.0.1:0",
                         **ANY_PORTS, **variables})
        layout.make()
        layout.state["instances"] = instances
        return Up(layout)

    def bring_up(self, instances):
        stack = self.stack(instances)
        stack.choose_ports([*components.SERVERS, *WORKERS], set())
        stack.bring_up(WORKERS)
        return stack

    def test_workers_scaled_to_none_do_not_hinder_the_others(self):
        stack = self.bring_up({"embed": 0, "generate": 0, "rerank": 2})
        self.assertEqual(sorted(stack.supervisor.started),
                         ["gateway-1", "ingest-1", "observe-1", "rerank-1", "rerank-2",
                          "retrieve-1"])
        self.assertRegex(stack.topics_made_at, r"^127\.0\.0\.1:\d+$")

    def test_all_workers_scaled_to_none(self):
        self.assertEqual(self.bring_up({name: 0 for name in WORKERS}).supervisor.started, [])

    def test_shell_is_told_each_admin_port(self):
        stack = self.bring_up({"rerank": 2, "ingest": 0})
        admin = stack.layout.ports.chosen["admin"]
        names = ["gateway-1", "embed-1", "retrieve-1", "rerank-1", "rerank-2", "generate-1",
                 "observe-1"]
        self.assertEqual(stack.exports()["SLUICE_ADMIN_HOSTS"].split(","),
                         [f"127.0.0.1:{admin[name]}" for name in names])

    def test_chunks_can_be_kept_in_redis_which_then_has_the_query_engine(self):
        stack = self.stack({}, SLUICE_STACK_STORE="redis")
        stack.choose_ports([*components.SERVERS, *WORKERS], set())
        stack.bring_up([*components.SERVERS, *WORKERS])
        layout, port = stack.layout, stack.layout.ports.chosen["redis"]
        self.assertEqual(stack.exports()["SLUICE_VECTOR_URL"], f"redis://127.0.0.1:{port}/chunks")
        self.assertEqual(stack.exports()["SLUICE_KEYWORD_URL"], f"redis://127.0.0.1:{port}/chunks")
        self.assertIn("loadmodule ", (layout.config / "redis.conf").read_text())
        self.assertIn("valkey-server", stack.processes_of("redis")[0].program)

    def test_unknown_store_is_refused(self):
        with self.assertRaises(StackError) as raised:
            self.stack({}, SLUICE_STACK_STORE="oracle").exports()
        self.assertIn("SLUICE_STACK_STORE", str(raised.exception))
        self.assertEqual(raised.exception.status, 2)

    def test_directory_that_cannot_be_used_is_refused_before_anything_starts(self):
        for name in ("my stack", "stack%3"):
            stack = self.stack({})
            stack.layout.directory = stack.layout.directory / name
            with self.assertRaises(StackError) as raised:
                stack.up([], None)
            self.assertIn("SLUICE_STACK_DIR", str(raised.exception))
            self.assertEqual(raised.exception.status, 2)
            self.assertFalse(stack.layout.directory.exists())

    def test_taken_port_is_told_with_its_variable_and_the_way_out(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            stack = self.stack({}, SLUICE_STACK_REDIS_PORT=str(port))
            with self.assertRaises(StackError) as raised:
                stack.choose_ports(["redis"], set())
        first, last = str(raised.exception).splitlines()
        self.assertEqual(first, f"port {port} (redis) is taken: "
                                "set SLUICE_STACK_REDIS_PORT to a free one")
        self.assertIn("0 in place of a port takes any free one", last)


class Words(unittest.TestCase):
    def test_reader_who_leaves_does_not_stop_a_command(self):
        script = ("import os; from stack_lib.terminal import say; say('first'); os.read(0, 1); "
                  "say('second'); say('third'); os._exit(7)")
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": DEPLOY}) as process:
            self.assertEqual(process.stdout.readline(), b"first\n")
            process.stdout.close()
            process.stdin.write(b"x")
            process.stdin.close()
            self.assertEqual(process.wait(30), 7, process.stderr.read())

    def test_durations_have_two_units(self):
        self.assertEqual([terminal.duration(s) for s in (0, 59, 61, 3600, 90061)],
                         ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"])


if __name__ == "__main__":
    unittest.main()
