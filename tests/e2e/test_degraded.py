"""What fails beside the answer degrades it; what fails in it is an error and never a short answer."""

import unittest

from cluster import Cluster  # First: it sets the path of what follows.
from client import TOPICS

FAST = {"SLUICE_RETRIEVE_TIMEOUT": "800ms", "SLUICE_RERANK_TIMEOUT": "800ms",
        "SLUICE_CHAT_IDLE_TIMEOUT": "800ms", "SLUICE_CHAT_FIRST_BYTE_TIMEOUT": "1500ms"}


class Degraded(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(**FAST)
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)

    def setUp(self):
        self.cluster.upstream.reset()

    def ask(self, number, **behaviour):
        self.cluster.upstream.reset()
        self.cluster.upstream.behave(**{"chat": {"token_interval_ms": 1}, **behaviour})
        return self.cluster.ask(f"Question {number}: {TOPICS[0]}")

    def test_a_search_or_the_reranker_that_fails_or_hangs(self):
        number = 100
        for part in ("vector", "keyword", "rerank"):
            for fault in ({"error_status": 500}, {"hang": True}, {"error_status": 400},
                          {"reset_after_tokens": 0}):
                number += 1
                with self.subTest(part=part, fault=fault):
                    status, result = self.ask(number, **{part: fault})
                    self.assertEqual(status, 200, result)
                    self.assertEqual(result["degraded"], [part])
                    self.assertEqual(result["outcome"], "done")
                    self.assertEqual(len(result["source_chunks"]), 5)

    def test_both_searches_failing_is_an_error(self):
        status, body = self.ask(200, vector={"error_status": 500}, keyword={"hang": True})
        self.assertEqual(status, 502, body)
        self.assertEqual(body["error"]["code"], "retrieval_failed")

    def test_a_generation_that_breaks_is_an_error(self):
        number = 300
        for fault in ({"cut_after_tokens": 10}, {"reset_after_tokens": 10},
                      {"stall_after_tokens": 10}, {"no_finish": True},
                      {"error_event_after_tokens": 10}, {"malformed_after_tokens": 10}):
            number += 1
            with self.subTest(fault=fault):
                status, body = self.ask(number, chat={"token_interval_ms": 1, **fault})
                self.assertEqual(status, 502, body)
                self.assertEqual(body["error"]["code"], "upstream_error")
                self.assertEqual(self.cluster.upstream.stats()["chat"]["calls"], 1)

    def test_a_generation_that_fails_before_its_first_token_is_tried_again(self):
        status, result = self.ask(400, chat={"token_interval_ms": 1, "fail_times": 2,
                                             "error_status": 503})
        self.assertEqual(status, 200, result)
        self.assertEqual(self.cluster.upstream.stats()["chat"]["calls"], 3)
        self.assertEqual(result["stages"]["generate"]["attempts"], 3)

    def test_a_deadline_ends_the_query_and_its_calls(self):
        self.cluster.upstream.behave(chat={"hang": True})
        status, body = self.cluster.ask("Question 500: too slow?", timeout_ms=700)
        self.assertEqual(status, 504, body)
        self.assertEqual(body["error"]["code"], "timeout")
        chat = self.cluster.upstream.stats()["chat"]
        self.assertEqual((chat["in_flight"], chat["aborted"]), (0, chat["calls"]))


if __name__ == "__main__":
    unittest.main()
