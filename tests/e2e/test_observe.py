"""Each query leaves one analytics record, on its topic and in PostgreSQL, whatever dies meanwhile, and
`sluice report` says what they come to."""

import http.server
import json
import os
import random
import signal
import subprocess
import threading
import time
import unittest

from cluster import BIN, Cluster, wait_until  # First: it sets the path of what follows.
from postgres import PASSWORD, Postgres

JSON_TYPE = "content-type=application/json"


def result(query_id, outcome="done", **more):
    """A result as the pipeline writes it, made up."""
    return json.dumps({
        "id": query_id, "outcome": outcome, "query": f"question of {query_id}?",
        "answer": f"answer to {query_id}" if outcome == "done" else "",
        "source_chunks": [{"n": 1, "doc_id": "d", "chunk_id": "d_0", "chunk_index": 0,
                           "text": "an answer to all", "score": 0.5, "metadata": {}}],
        "retrieval_latency_ms": 20, "generation_latency_ms": 80, "ttft_ms": 40, "total_ms": 100,
        "stages": {"generate": {"queue_ms": 1, "wait_ms": 2, "work_ms": 77, "attempts": 1}},
        "degraded": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
                                  "estimated": False},
        "error": None if outcome == "done" else
        {"code": "timeout", "message": "too late", "stage": "generate"},
        "tenant": "default", "collection": "default", "model": "m", "source": None, **more})


def produce_results(cluster, ids, twice=0.1, **more):
    """In one go, some of them twice, as results may come."""
    lines = []
    for query_id in ids:
        for _ in range(2 if random.random() < twice else 1):
            lines.append(f"{query_id}\t{result(query_id, **more)}\n")
    subprocess.run(["kcat", "-P", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t",
                    cluster.topic("results"), "-K", "\t", "-H", JSON_TYPE],
                   input="".join(lines).encode(), check=True, timeout=60, capture_output=True)


class Judge(http.server.BaseHTTPRequestHandler):
    """Says what the test told it to, and how often it was asked."""

    content = ""
    asked = 0

    def do_POST(self):
        Judge.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"choices": [{"message": {"content": Judge.content}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Observe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.database = Postgres()
        cls.database.__enter__()
        cls.addClassCleanup(cls.database.__exit__)

    def setUp(self):
        self.database.sql("DROP TABLE IF EXISTS sluice_queries, sluice_schema")

    def cluster(self, **options):
        options.setdefault("SLUICE_ANALYTICS_URL", self.database.url)
        cluster = Cluster(**options)
        cluster.__enter__()
        self.addCleanup(lambda: cluster.__exit__(None, None, None))
        return cluster

    def count(self):
        return int(self.database.sql("SELECT count(*) FROM sluice_queries", check=False) or 0)

    def wait_for_rows(self, ids, seconds=60):
        wait_until(lambda: self.count() >= len(ids), seconds, f"{len(ids)} rows")
        rows = self.database.sql("SELECT query_id FROM sluice_queries ORDER BY 1").split("\n")
        self.assertEqual(rows, sorted(ids))

    def test_a_question_leaves_a_record_and_a_row(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        Judge.asked = 0
        Judge.content = '```json\n{"groundedness": 0.75, "relevance": 1, "relevance_reason": "yes"}\n```'
        cluster = self.cluster(SLUICE_QUALITY_SHARE=1,
                               SLUICE_JUDGE_URL=f"http://127.0.0.1:{server.server_port}/v1")
        observe = cluster.start("observe")
        _, answered = cluster.ask("Question 1: what is kept?")
        _, searched = cluster.ask("Question 2: what is found?", "/v1/search")
        self.wait_for_rows([answered["id"], searched["id"]])
        records = wait_until(lambda: (r := cluster.consume("analytics")) and len(r) == 2 and r, 20,
                             "two records")
        by_id = {r["key"]: json.loads(r["payload"]) for r in records}
        self.assertEqual({r["headers"]["content-type"] for r in records}, {"application/json"})
        record = by_id[answered["id"]]
        self.assertEqual((record["query"], record["outcome"]), ("Question 1: what is kept?", "done"))
        self.assertEqual(record["response_preview"], answered["answer"][:200])
        self.assertEqual(record["latency_ms"], answered["total_ms"])
        self.assertEqual(record["stages"], answered["stages"])
        self.assertEqual([s["chunk_id"] for s in record["sources"]],
                         [s["chunk_id"] for s in answered["source_chunks"]])
        self.assertLess(abs(record["time"] - time.time() * 1000), 60000)
        self.assertEqual((record["quality"]["groundedness"], record["quality"]["relevance"]), (0.75, 1))
        self.assertEqual(Judge.asked, 1)
        self.assertIsNone(by_id[searched["id"]]["quality"])
        row = self.database.sql(
            "SELECT latency_ms, prompt_tokens, stages->'generate'->>'work_ms', quality->>'groundedness',"
            f" array_length(degraded, 1) FROM sluice_queries WHERE query_id = '{answered['id']}'")
        self.assertEqual(row.split("|"), [
            str(answered["total_ms"]), str(answered["usage"]["prompt_tokens"]),
            str(answered["stages"]["generate"]["work_ms"]), "0.75", ""])
        self.assertEqual(observe.metric("sluice_quality_groundedness_count"), 1)
        self.assertNotIn(PASSWORD, observe.log())

    def locked(self, seconds):
        """The table is locked for so long: what is to be inserted waits, also when its client dies."""
        lock = f"BEGIN; LOCK TABLE sluice_queries; SELECT pg_sleep({seconds}); COMMIT"
        thread = threading.Thread(target=self.database.sql, args=(lock,))
        thread.start()
        self.addCleanup(thread.join)
        wait_until(lambda: self.database.sql(
            "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"), 10, "the lock")

    def test_killed_at_any_moment_it_loses_and_repeats_nothing(self):
        cluster = self.cluster(gateway=False, stages=())
        observe = cluster.start("observe")
        ids = []
        for kill in range(6):
            more = [f"k{kill}-{i}" for i in range(2000)]
            ids += more
            before = self.count()
            threading.Thread(target=produce_results, args=(cluster, more)).start()
            wait_until(lambda: self.count() > before, 40, "it is at work")  # After its group noticed.
            if kill % 2 == 1:
                # Longer than a commit of offsets takes: those of rows that wait must not be in it.
                self.locked(3)
                time.sleep(1.5)
            else:
                time.sleep(random.uniform(0, 0.3))
            cluster.kill(observe)
            observe = cluster.start("observe", wait=False)
        self.wait_for_rows(ids)
        seen = {r["key"] for r in cluster.consume("analytics")}
        self.assertEqual(seen, set(ids))
        self.assertEqual(cluster.consume("results.dlq"), [])
        wait_until(lambda: observe.ready() and observe.metric("sluice_consumer_lag") == 0, 30, "no lag")

    def test_a_database_that_is_away_delays_no_answer_and_loses_nothing(self):
        cluster = self.cluster()
        observe = cluster.start("observe")
        ids = [f"a{i}" for i in range(2000)]
        for part, number in enumerate((signal.SIGQUIT, signal.SIGINT)):
            half = ids[part * 1000:part * 1000 + 1000]
            produce_results(cluster, half[:500])
            self.database.stop(number)
            produce_results(cluster, half[500:])
            began = time.monotonic()
            status, answered = cluster.ask(f"Question {part}: who waits?")
            self.assertEqual((status, answered["outcome"]), (200, "done"))
            self.assertLess(time.monotonic() - began, 20)
            ids.append(answered["id"])
            wait_until(lambda: not observe.ready(), 20, "not ready without its database")
            self.assertGreater(observe.metric("sluice_analytics_failures_total"), 0)
            self.database.start()
        self.wait_for_rows(ids)
        wait_until(observe.ready, 30, "ready again")

    def test_two_that_start_together_make_the_tables_once_and_share_the_work(self):
        cluster = self.cluster(gateway=False, stages=())
        both = [cluster.start("observe", wait=False) for _ in range(2)]
        for worker in both:
            wait_until(worker.ready, 40, "ready")
        ids = [f"b{i}" for i in range(1000)]
        produce_results(cluster, ids)
        self.wait_for_rows(ids)
        self.assertEqual(self.database.sql("SELECT version FROM sluice_schema ORDER BY 1"), "1\n2")

    def test_tables_of_an_older_version_are_brought_up_and_a_newer_one_left_alone(self):
        cluster = self.cluster(gateway=False, stages=())
        observe = cluster.start("observe")
        observe.stop()
        self.database.sql("DROP INDEX sluice_queries_time; DELETE FROM sluice_schema WHERE version = 2")
        observe = cluster.start("observe")
        observe.stop()
        self.assertEqual(self.database.sql(
            "SELECT indexname FROM pg_indexes WHERE indexname = 'sluice_queries_time'"),
            "sluice_queries_time")
        self.database.sql("INSERT INTO sluice_schema VALUES (9)")
        observe = cluster.start("observe", wait=False)
        produce_results(cluster, ["n1"])
        wait_until(lambda: "version 9" in observe.log(), 20, "a word about the version")
        self.assertFalse(observe.ready())
        self.assertEqual(self.count(), 0)
        self.database.sql("DELETE FROM sluice_schema WHERE version = 9")
        self.wait_for_rows(["n1"])

    def test_a_row_that_the_database_refuses_stops_no_other(self):
        cluster = self.cluster(gateway=False, stages=())
        cluster.start("observe")
        self.database.sql("ALTER TABLE sluice_queries ADD CHECK (collection <> 'odd')")
        ids = [f"r{i}" for i in range(200)]
        produce_results(cluster, ids[:100])
        produce_results(cluster, ["odd"], twice=0, collection="odd")
        produce_results(cluster, ids[100:])
        self.wait_for_rows(ids)
        listed = wait_until(lambda: cluster.sluice("dead", "list", "--json").stdout, 20, "a dead letter")
        letter, = [json.loads(line) for line in listed.splitlines()]
        self.assertEqual((letter["key"], letter["stage"]), ("odd", "observe"))
        self.assertIn("the database refuses its row", letter["message"])

    def test_bytes_that_are_no_result_are_a_dead_letter_as_they_came(self):
        cluster = self.cluster(gateway=False, stages=())
        cluster.start("observe")
        cluster.produce("results", b"\x93no result\xff", key="x")
        produce_results(cluster, ["after"], twice=0)
        self.wait_for_rows(["after"])
        letter, = wait_until(lambda: cluster.consume("results.dlq"), 20, "a dead letter")
        self.assertEqual(letter["payload"], b"\x93no result\xff")

    def report(self, cluster, *arguments, **environment):
        return subprocess.run([os.path.join(BIN, "sluice"), "report", *arguments], check=False,
                              env=cluster.environment(**environment), capture_output=True, text=True,
                              timeout=60)

    def test_a_report_says_the_same_from_the_database_and_from_the_topic(self):
        cluster = self.cluster(gateway=False, stages=())
        both = ({}, {"SLUICE_ANALYTICS_URL": ""})
        done = self.report(cluster)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("no analytics yet", done.stderr)
        cluster.start("observe")
        for environment in both:
            done = self.report(cluster, **environment)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done)
            self.assertIn("No query ended in this time", done.stdout)
        totals = random.sample(range(10, 5000), 57)
        ids = [f"q{i}" for i in range(len(totals))]
        for query_id, total in zip(ids, totals):
            produce_results(cluster, [query_id], twice=0.3, total_ms=total, degraded=["rerank"])
        produce_results(cluster, ["e1", "e2"], outcome="expired")
        self.wait_for_rows([*ids, "e1", "e2"])
        wait_until(lambda: len({r["key"] for r in cluster.consume("analytics")}) == len(ids) + 2, 20,
                   "all records")
        reports = []
        for environment in both:
            done = self.report(cluster, "--since", "10m", "--json", **environment)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done)
            reports.append(json.loads(done.stdout))
            for name in ("from", "from_ms", "to_ms"):
                reports[-1].pop(name)
            shown = self.report(cluster, "--day", **environment).stdout
            for words in ("queries", "59", "timeout", "first token", "generate, waiting", "p95",
                          "words found in the sources"):
                self.assertIn(words, shown)
        for report in reports:  # Sums of fractions differ in their last digits.
            report["quality"] = {k: v if v is None else round(v, 6) for k, v in report["quality"].items()}
        self.assertEqual(reports[0], reports[1])
        report = reports[0]
        self.assertEqual(report["queries"], 59)
        self.assertEqual(report["outcomes"], {"done": 57, "failed": 0, "cancelled": 0, "expired": 2})
        self.assertEqual(report["errors"], [{"code": "timeout", "stage": "generate", "count": 2}])
        self.assertEqual((report["degraded"], report["degraded_parts"]["rerank"]), (57, 57))
        ranked = sorted(totals)
        self.assertEqual(report["times_ms"]["total"], {
            "count": 57, "p50": ranked[28], "p95": ranked[54], "p99": ranked[56]})
        self.assertEqual(report["times_ms"]["generate_waiting"]["p50"], 3)
        self.assertEqual(report["prompt_tokens"], 590)
        self.assertEqual(report["quality"]["answers"], 57)

    def test_a_report_that_cannot_be_read_says_where_it_looked(self):
        cluster = self.cluster(gateway=False, stages=())
        for code, environment in (
                (2, {"SLUICE_ANALYTICS_URL": "postgresql://h/x?colour=red"}),
                (1, {"SLUICE_ANALYTICS_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"}),
                (1, {"SLUICE_ANALYTICS_URL": "", "SLUICE_TOPIC_PREFIX": "no-such"})):
            done = self.report(cluster, **environment)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn("no-such.analytics" if code == 1 and "SLUICE_TOPIC_PREFIX" in environment
                          else "SLUICE_ANALYTICS_URL", done.stderr)
            self.assertNotIn(PASSWORD, done.stderr)
        self.assertEqual(self.report(cluster, "--day", "--hour").returncode, 2)

    def test_a_wrong_address_stops_it_at_start_with_the_variable_s_name(self):
        cluster = self.cluster(gateway=False, stages=())
        for url in ("mysql://localhost/x", "postgresql://u:pa%zzword@h/x", "postgresql://h/x?colour=red",
                    "postgresql://h:99999/x", f"postgresql://u:{PASSWORD}@h/x?sslmode=maybe"):
            done = subprocess.run([os.path.join(BIN, "sluice-observe")], capture_output=True, text=True,
                                  env=cluster.environment(SLUICE_ANALYTICS_URL=url), timeout=30,
                                  check=False)
            said = done.stdout + done.stderr
            self.assertEqual(done.returncode, 2, (url, said))
            self.assertIn("SLUICE_ANALYTICS_URL", said, url)
            for secret in ("pa%zzword", PASSWORD):
                self.assertNotIn(secret, said)


if __name__ == "__main__":
    unittest.main()
