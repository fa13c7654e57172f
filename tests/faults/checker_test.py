"""The checker says what is wrong with made-up runs, one for each thing that can be."""

import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import checker  # noqa: E402
import results  # noqa: E402
from checker import Request, Rules, check  # noqa: E402

MS = 1_000_000
QUESTION = "Question 1: what?"
WORDS = "".join(checker.expected_tokens(QUESTION, 40))
NOW = 100_000 * MS


def request(**changes):
    values = {"question": QUESTION, "id": "a", "accepted": True, "terminal": "done", "text": WORDS,
              "sent_ns": 1000 * MS, "ended_ns": 2000 * MS}
    return Request(**(values | changes))


def call(number, begin, over, first=None, kind="chat", outcome=200, question=QUESTION):
    """The events of one call, times in ms."""
    base = {"kind": kind, "id": number, "tokens": 40, "question": question}
    events = [base | {"event": "begin", "t": begin * MS, "questions": [question]}]
    if first:
        events.append(base | {"event": "first", "t": first * MS})
    if over:
        events.append(base | {"event": "end", "t": over * MS, "outcome": outcome})
    return events


def result(outcome="done", code=None, answer=WORDS):
    error = {"code": code} if code else None
    return json.dumps({"outcome": outcome, "error": error, "answer": answer}).encode()


class Checker(unittest.TestCase):
    def violated(self, requests, events, topic, rules=None):
        found = check(requests, events, topic, rules or Rules(), NOW)
        return {invariant for invariant, _ in found.violations}

    def test_a_good_run_has_no_violation(self):
        self.assertEqual(self.violated([request()], call(1, 1100, 1900, 1200), {"a": [result()]}),
                         set())

    def test_a_request_without_an_end_is_lost(self):
        silent = request(terminal=None, text="", problems=["no end within the client's time-out"])
        found = check([silent], [], {}, Rules(), NOW)
        self.assertEqual(found.lost, 1)
        self.assertIn("I1", {i for i, _ in found.violations})

    def test_an_ended_request_without_a_result_is_lost(self):
        found = check([request()], [], {}, Rules(), NOW)
        self.assertEqual((found.lost, [i for i, _ in found.violations]), (1, ["I1"]))

    def test_results_that_differ_from_each_other_or_from_the_stream_are_told(self):
        twice = {"a": [result(), result("failed", "internal")]}
        self.assertEqual(self.violated([request()], [], twice), {"I1"})
        self.assertEqual(self.violated([request()], [], {"a": [result("failed", "x")]}), {"I1"})

    def test_an_error_is_told_unless_the_row_allows_as_many(self):
        lost = request(terminal="error", code="worker_lost", text=WORDS[:20])
        topic = {"a": [result("failed", "worker_lost")]}
        self.assertEqual(self.violated([lost], [], topic), {"I1"})
        self.assertEqual(self.violated([lost], [], topic, Rules(codes={"worker_lost": 1})), set())

    def test_refusals_are_told_unless_the_row_allows_them(self):
        refused = request(accepted=False, terminal="error", code="overloaded", text="")
        self.assertEqual(self.violated([refused], [], {}), {"I1"})
        self.assertEqual(self.violated([refused], [], {}, Rules(refused=1)), set())

    def test_a_text_of_two_generations_is_spliced(self):
        mixed = request(text=WORDS[:20] + WORDS)
        found = check([mixed], [], {"a": [result()]}, Rules(), NOW)
        self.assertEqual((found.spliced, [i for i, _ in found.violations]), (1, ["I2"]))
        late = request(problems=["event delta after the terminal one"])
        self.assertEqual(self.violated([late], [], {"a": [result()]}), {"I2"})

    def test_one_call_more_than_the_limit_is_told(self):
        events = call(1, 1100, 1500) + call(2, 1400, 1900, question="Question 2: what?")
        found = check([request()], events, {"a": [result()]}, Rules(limits={"chat": 1}), NOW)
        self.assertEqual(found.over_limit_ms, 100)
        self.assertEqual([i for i, _ in found.violations], ["I3"])
        events = call(1, 1100, 1500) + call(2, 1500, 1900, question="Question 2: what?")
        self.assertEqual(self.violated([request()], events, {"a": [result()]},
                                       Rules(limits={"chat": 1})), set())

    def test_a_generation_after_the_first_token_is_silent_without_a_restart(self):
        events = call(1, 1100, 1300, 1200, outcome="cut") + call(2, 1400, 1900, 1500)
        rules = Rules(chat_calls=2)
        found = check([request()], events, {"a": [result()]}, rules, NOW)
        self.assertEqual((found.silent, [i for i, _ in found.violations]), (1, ["I4"]))
        told = request(restarts=1)
        self.assertEqual(self.violated([told], events, {"a": [result()]}, rules), set())

    def test_more_generations_than_allowed_are_told(self):
        events = call(1, 1100, 1300, outcome=500) + call(2, 1400, 1900, 1500)
        self.assertEqual(self.violated([request()], events, {"a": [result()]}), {"I4"})

    def test_a_repeated_search_is_told(self):
        events = call(1, 1100, 1200, kind="vector") + call(2, 1300, 1400, kind="vector")
        found = check([request()], events, {"a": [result()]}, Rules(), NOW)
        self.assertEqual((found.repeated, [i for i, _ in found.violations]), (1, ["I4"]))

    def test_calls_and_endings_after_the_deadline_are_told(self):
        late = request(timeout_ms=500, ended_ns=2500 * MS)
        topic = {"a": [result()]}
        self.assertEqual(self.violated([late], [], topic), {"I6"})
        short = request(timeout_ms=500, ended_ns=1500 * MS)
        self.assertEqual(self.violated([short], call(1, 1700, 1800), topic), {"I6"})
        self.assertEqual(self.violated([short], call(1, 1100, 2300), topic), {"I6"})
        self.assertEqual(self.violated([short], call(1, 1100, None), topic), {"I6"})

    def test_recovery_is_the_last_end_of_what_was_open(self):
        requests = [request(), request(id="b", sent_ns=1100 * MS, ended_ns=4000 * MS),
                    request(id="c", sent_ns=3000 * MS, ended_ns=9000 * MS)]
        found = check(requests, [], {}, Rules(), NOW, fault_ns=1500 * MS)
        self.assertAlmostEqual(found.recovery_s, 2.5)


class Decode(unittest.TestCase):
    def test_a_result_in_messagepack_is_read(self):
        packed = (b"\xde\x00\x03\xa7outcome\xa4done\xa5error\xc0\xa6answer\xda\x00\x02hi")
        self.assertEqual(results.decode(packed), {"outcome": "done", "error": None, "answer": "hi"})

    def test_cut_bytes_are_refused(self):
        for data in (b"\xa5hi", b"\x92\x01", b"\x01\x02", b"\xc1"):
            with self.assertRaises(ValueError):
                results.unpack(data)


if __name__ == "__main__":
    unittest.main()
