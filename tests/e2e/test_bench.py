"""The benchmark's programs together: what its client counts, and that its report names it. How long
anything took is not looked at."""

import contextlib
import os
import sys
import tempfile
import unittest
from types import SimpleNamespace
from unittest import mock

from cluster import BIN, ROOT, Cluster

os.environ.setdefault("SLUICE_BENCH_BIN", os.path.join(BIN, "bench"))
sys.path.insert(0, os.path.join(ROOT, "tests", "bench"))

import bars  # noqa: E402
import measure  # noqa: E402
import rate  # noqa: E402
import report  # noqa: E402
import streams_table  # noqa: E402
import systems  # noqa: E402

TOKENS = 5
PERCENTILES = {"p50", "p90", "p99", "max", "mean"}


class Given:
    """A running cluster as the benchmark sees a system."""

    name, label, uses_servers = "sluice", "Sluice", False

    def __init__(self, cluster):
        self.cluster = cluster

    def processes(self):
        return {worker.name: worker.process.pid for worker in self.cluster.workers}

    def client(self):
        return [systems.program("load"), "--url", self.cluster.url + "/v1/query"]


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stub = cls.enterClassContext(systems.Stub())

    def check(self, result, load):
        """All that was due was answered, in full, and the report has its fields."""
        self.assertEqual(result["failed"], 0, result["failures"])
        self.assertGreater(result["due"], 0)
        self.assertEqual(result["answered"], result["due"])
        self.assertEqual(result["tokens"], TOKENS * result["answered"])
        self.assertEqual(result["seconds"], load.seconds)
        for name in ("ttft_ms", "overhead_ms", "total_ms"):
            self.assertLessEqual(PERCENTILES, set(result[name]), name)
        self.assertLessEqual({"p50", "p99", "max"}, set(result["gap_ms"]))
        self.assertLessEqual({"own", "all", "stub", "client"}, set(result["cpu_ms"]))

    def test_client_counts_whole_answers_of_all_programs(self):
        self.stub.behave(tokens=TOKENS, interval_ms=5, embed_ms=1, vector_ms=2, keyword_ms=1,
                         rerank_ms=1, chat_ms=2)
        load = measure.Load(rate=20, tokens=TOKENS, seconds=1, warmup=0.5)
        with Cluster(upstream=self.stub, SLUICE_LOG_LEVEL="info") as cluster:
            result = measure.run(Given(cluster), None, self.stub, load)
            self.check(result, load)
            calls = self.stub.stats()
            self.assertGreaterEqual(calls["chat"]["calls"], result["answered"])
            self.assertEqual(calls["chat"]["in_flight"], 0)
            wrong = measure.run(Given(cluster), None, self.stub,
                                measure.Load(rate=20, tokens=TOKENS + 1, seconds=1, warmup=0))
            self.assertEqual(wrong["answered"], 0)
            self.assertEqual(wrong["failures"]["short"], wrong["due"])

    def test_floor_makes_the_five_calls(self):
        self.stub.behave(tokens=TOKENS, free=True)
        load = measure.Load(rate=20, tokens=TOKENS, seconds=1, warmup=0.5)
        with systems.FloorCalls(self.stub, None) as floor:
            result = measure.run(floor, None, self.stub, load)
        self.check(result, load)
        calls = self.stub.stats()
        for upstream in ("embed", "vector", "keyword", "rerank", "chat"):
            self.assertGreaterEqual(calls[upstream]["calls"], result["answered"])


class Rate(unittest.TestCase):
    def test_search_finds_the_highest_rate(self):
        for most in (6, 49, 50, 51, 777, 5000):
            tried = []

            def holds(value, most=most, tried=tried):
                tried.append(value)
                return value <= most
            found = rate.search(holds)
            self.assertLessEqual(found, most)
            self.assertTrue(found > most / rate.CLOSE or found >= most - 1, (found, most))
            self.assertLess(len(tried), 16)

    def test_search_ends_where_no_rate_holds_and_where_all_do(self):
        self.assertEqual(rate.search(lambda value: False), 0)
        self.assertEqual(rate.search(lambda value: True), rate.HIGHEST)


class Report(unittest.TestCase):
    @staticmethod
    def row(system, streams, p50, own, **more):
        times = dict.fromkeys(PERCENTILES, p50)
        return {"system": system, "streams": streams, "overhead_ms": times, "gap_ms": times,
                "answered": 9, "failed": 0, "cpu_ms": {"own": own, "all": own + 1}, **more}

    def result(self, mine):
        hops = {"system": "hops", "streams": 100, "chain_ms": {"p50": 4, "p99": 5}, "answered": 9,
                "cpu_us_per_message": 30, "broker_cpu_us_per_message": 60}
        return {"rows": [self.row("calls", 100, 1, 0.2), hops, self.row("asyncio", 100, 6, 8),
                         self.row("sluice", 100, mine, 1), {"system": "jobqueue", "streams": 100,
                                                            "skipped": True}]}

    def test_bars_under_the_floor_say_so(self):
        found = {bar.what: bar for bar in bars.table_bars(self.result(mine=7))}
        bar = found["TTFT above ideal, p50, 100 streams, the aim"]
        self.assertEqual(bar.bound, 7.5)  # 0.7 times 6 is less than the floor of 1 + 4.
        self.assertIn("under the floor", bar.note)
        self.assertTrue(bar.reached)
        self.assertFalse(found["TTFT above ideal, p50, 100 streams"].reached)
        self.assertTrue(found["own CPU a request, 100 streams"].reached)

    def test_table_has_a_line_for_each_system(self):
        text = report.text_of(streams_table.tables(self.result(mine=7)))
        lines = text.splitlines()
        self.assertEqual(len({len(line) for line in lines[:7]}), 1, text)
        for label in systems.LABELS.values():
            self.assertEqual(text.count(f" {label} "), 1, label)
        self.assertIn("collapsed before", text)

    def test_plot_leaves_out_what_was_not_measured(self):
        result = self.result(mine=7)
        drawing = dict(report.drawings("table", result))[report.TTFT_PLOT]
        self.assertEqual(drawing.count("<polyline"), 4)
        self.assertIn("prefers-color-scheme: dark", drawing)

    def test_page_has_what_was_measured(self):
        given = {"table": {"subject": "table", "command": "tests/bench/run --quick", "date": "2026-01-02",
                           "commit": "abc", "machine": "a machine", "result": self.result(mine=7)}}
        with tempfile.TemporaryDirectory() as docs:
            os.mkdir(os.path.join(docs, "docs"))
            with mock.patch.multiple(report, ROOT=docs, PAGE=os.path.join(docs, "docs", "B.md"),
                                     load_all=lambda: given):
                written = report.write_page({"table": streams_table})
            with open(os.path.join(docs, "docs", "B.md"), encoding="utf-8") as f:
                page = f.read()
        self.assertEqual(written, ["docs/B.md", "docs/" + report.TTFT_PLOT])
        self.assertIn("`tests/bench/run --quick`, 2026-01-02, commit abc;\na machine.", page)
        self.assertIn(f"]({report.TTFT_PLOT})", page)
        self.assertIn("| own CPU a request, 100 streams", page)

    def test_a_system_that_cannot_be_started_spoils_no_other(self):
        bench = SimpleNamespace(options=SimpleNamespace(streams=[10]),
                                wanted=lambda *names: [name for name in names if name != "hops"])

        @contextlib.contextmanager
        def broken(_name):
            raise measure.BenchError("no such program")
            yield
        bench.system = broken
        rows = streams_table.run(bench)["rows"]
        self.assertEqual([row["error"] for row in rows], ["no such program"] * 4)


if __name__ == "__main__":
    unittest.main()
