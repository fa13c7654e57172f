"""GET /v1/queries/{id}: how far a query is, then its result, whoever asked the question."""

import json
import time
import unittest

from cluster import Cluster, free_port, get, wait_until  # First: it sets the path of what follows.


def uuid7(hours_ago):
    digits = f"{int((time.time() - hours_ago * 3600) * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}-7abc-8def-0123456789ab"


class Status(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        port = free_port()
        cls.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{port}")
        cls.urls = (cls.cluster.url, f"http://127.0.0.1:{port}")

    def setUp(self):
        self.cluster.upstream.reset()

    def look(self, query_id):
        """Status and body, of each gateway in turn: all say the same."""
        answers = []
        for url in self.urls:
            status, body = get(f"{url}/v1/queries/{query_id}", timeout=20)
            answers.append((status, json.loads(body)))
        return answers

    def result_of(self, query_id):
        def ended():
            status, body = self.look(query_id)[0]
            self.assertIn(status, (200, 404))
            return body if "outcome" in body else None
        result = wait_until(ended, 20, f"the result of {query_id}")
        for answer in self.look(query_id):
            self.assertEqual(answer, (200, result))
        return result

    def test_a_finished_query_gives_what_its_caller_got(self):
        status, answer = self.cluster.ask("Question 1: what remains?")
        self.assertEqual(status, 200)
        self.assertEqual(self.result_of(answer["id"]), answer)

    def test_a_failed_query_gives_its_result_with_200(self):
        self.cluster.upstream.behave(embed={"latency_ms": 2000})
        status, headers, _ = self.cluster.post("/v1/query", {"query": "Question 2: too late?",
                                                             "timeout_ms": 100})
        self.assertEqual(status, 504)
        result = self.result_of(headers["sluice-id"])
        self.assertEqual((result["outcome"], result["error"]["code"]), ("expired", "timeout"))

    def test_a_running_query_tells_its_stage(self):
        self.cluster.upstream.behave(chat={"token_interval_ms": 50, "tokens": 60})
        job = {"query": "Question 3: how far?"}
        self.cluster.produce("queries", json.dumps(job).encode(), key="far-1",
                             headers=("content-type=application/json", "sluice-id=far-1"))

        def generates():
            status, body = self.look("far-1")[0]
            return (status, body) if body.get("stage") == "generate" else None
        status, body = wait_until(generates, 20, "the stage generate")
        self.assertEqual((status, body), (200, {"id": "far-1", "state": "running",
                                                "stage": "generate"}))
        self.assertEqual(self.result_of("far-1")["outcome"], "done")

    def test_kafka_jobs_of_both_formats_have_their_result_over_http(self):
        question = b"Question 4: in which format?"
        jobs = {"form-json": (json.dumps({"query": question.decode()}).encode(), "application/json"),
                "form-msgpack": (b"\x81\xa5query" + bytes([0xa0 | len(question)]) + question,
                                 "application/msgpack")}
        results = {}
        for query_id, (job, kind) in jobs.items():
            self.cluster.produce("queries", job, key=query_id,
                                 headers=(f"content-type={kind}", f"sluice-id={query_id}"))
            results[query_id] = self.result_of(query_id)
        first, second = results.values()
        for name in ("outcome", "query", "answer", "source_chunks", "tenant", "model", "error"):
            self.assertEqual(first[name], second[name], name)
        self.assertEqual(sorted(first), sorted(second))
        self.assertEqual(first["outcome"], "done")

    def test_what_is_not_known_says_so(self):
        for query_id, status, code in (("nobodys-1", 404, "not_found"),
                                       (uuid7(1), 404, "not_found"),
                                       (uuid7(-48), 404, "not_found"),
                                       (uuid7(25), 410, "gone"),
                                       ("no%20id", 400, "invalid_id"),
                                       ("a" * 65, 400, "invalid_id")):
            for got, body in self.look(query_id):
                self.assertEqual((got, body["error"]["code"]), (status, code), query_id)


if __name__ == "__main__":
    unittest.main()
