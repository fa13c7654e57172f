"""The checker says what is wrong with made-up runs, one for each thing that can be."""

import json
import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]

import checker  # noqa: E402
import gateway_ledger  # noqa: E402
import documents  # noqa: E402
import offsets  # noqa: E402
import results  # noqa: E402
from checker import Findings, Request, Rules, Usage, check  # noqa: E402
from gateway_ledger import Given  # noqa: E402
from offsets import Account, Commit, Record  # noqa: E402

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


class Offsets(unittest.TestCase):
    """Records 0, 1 and 2 of one partition, done with at 1000, 3000 and 2000 ms."""

    DONE = [(Record("queries", 0, n, 500, f"id{n}"), at) for n, at in enumerate((1000, 3000, 2000))]

    def violations(self, *commits, done=None, end=3):
        found = Findings()
        commits = [Commit("queries", 0, offset, at_ms) for offset, at_ms in commits]
        account = Account(commits, self.DONE if done is None else done, {("queries", 0): end}, 0)
        checker.check_offsets(found, account)
        self.assertTrue(all(invariant == "I5" for invariant, _ in found.violations))
        return found.skipped, len(found.violations)

    def test_commits_of_what_is_done_are_good(self):
        self.assertEqual(self.violations((1, 1500), (3, 3000)), (0, 0))

    def test_a_commit_beyond_an_unfinished_record_is_told(self):
        self.assertEqual(self.violations((1, 1500), (3, 2500)), (1, 1))

    def test_a_commit_beyond_what_is_never_done_is_told(self):
        never = [(record, None) for record, _ in self.DONE]
        self.assertEqual(self.violations((3, 9000), done=never), (3, 3))

    def test_a_lag_that_stays_is_told(self):
        self.assertEqual(self.violations((1, 1500), done=self.DONE[:1]), (0, 1))
        self.assertEqual(self.violations(done=[]), (0, 1))

    def test_a_rewind_asks_nothing_of_what_was_done_before(self):
        self.assertEqual(self.violations((3, 4000), (0, 5000), (3, 6000)), (0, 0))

    def test_a_commit_is_read_in_each_form(self):
        key = b"\0\1" + b"\0\5group" + b"\0\5topic" + b"\0\0\0\7"
        offset, at_ms = (9).to_bytes(8), (1234).to_bytes(8)
        wanted = ("group", Commit("topic", 7, 9, 1234))
        for value in (b"\0\1" + offset + b"\0\0" + at_ms + bytes(8),
                      b"\0\3" + offset + b"\0\0\0\1" + b"\0\2ab" + at_ms,
                      b"\0\4" + offset + b"\0\0\0\1" + b"\3ab" + at_ms + b"\0"):
            self.assertEqual(offsets.commit_of(key, value), wanted)
        self.assertIsNone(offsets.commit_of(key, b""))
        self.assertIsNone(offsets.commit_of(b"\0\2" + b"\0\5group", b"\0\3"))


class Caps(unittest.TestCase):
    def told(self, **most):
        found = Findings()
        checker.check_usage(found, {"embed": Usage(**most)}, Rules(rss_mb=100, fds=50, depth=20))
        return [invariant for invariant, _ in found.violations]

    def test_a_process_below_its_caps_is_good(self):
        self.assertEqual(self.told(rss_mb=100, fds=50, depth=20), [])

    def test_each_cap_is_held(self):
        for most in ({"rss_mb": 101}, {"fds": 51}, {"depth": 21}):
            self.assertEqual(self.told(**most), ["I7"], most)


class Chunks(unittest.TestCase):
    SOURCE = "One two three. Four five six.\n\nSeven eight."

    def test_chunks_that_cover_the_source_are_good(self):
        good = [(0, "One two three."), (1, "three. Four five six."), (2, "Seven eight.")]
        self.assertIsNone(documents.misplaced(self.SOURCE, good))

    def test_missing_repeated_and_foreign_chunks_are_told(self):
        first, second, third = "One two three.", "Four five six.", "Seven eight."
        for chunks in ([(0, first), (2, third)], [(0, first), (1, third)],
                       [(0, first), (1, second)],
                       [(0, first), (1, second), (1, second), (2, third)],
                       [(0, first), (1, first), (2, second), (3, third)],
                       [(0, first), (1, "Four five ten."), (2, third)], []):
            self.assertIsNotNone(documents.misplaced(self.SOURCE, chunks), chunks)


class Gateways(unittest.TestCase):
    """The account of a gateway, of its caller and of the model, held against each other."""

    SEEN = ["0:0", "1:0", "1:1", "1:2"]
    GIVEN = [("0:0", "sources", 1150), ("1:0", "delta", 1250), ("1:1", "delta", 1300),
             ("1:2", "done", 1950)]

    def violations(self, given, seen=None, events=None, cut=False):
        read = request(seen={"r": self.SEEN if seen is None else seen})
        entry = Given([(name, kind, at * MS) for name, kind, at in given], cut)
        events = call(1, 1100, 1900, 1200) if events is None else events
        found = check([read], events, {"a": [result()]}, Rules(), NOW, given={("a", "r"): entry})
        return [text for invariant, text in found.violations if invariant == "I2"]

    def test_accounts_that_agree_are_no_violation(self):
        self.assertEqual(self.violations(self.GIVEN), [])

    def test_a_caller_who_saw_less_is_none(self):
        self.assertEqual(self.violations(self.GIVEN, self.SEEN[:2]), [])

    def test_an_event_that_the_gateway_did_not_give_is_told(self):
        self.assertIn("differ at 2", self.violations(self.GIVEN[:2] + self.GIVEN[3:])[0])

    def test_another_order_is_told(self):
        self.assertIn("differ at 1", self.violations(self.GIVEN, ["0:0", "1:1", "1:0"])[0])

    def test_only_a_killed_gateways_account_may_be_short(self):
        self.assertEqual(len(self.violations(self.GIVEN[:2])), 1)
        self.assertEqual(self.violations(self.GIVEN[:2], cut=True), [])
        self.assertEqual(len(self.violations(self.GIVEN[1:2], cut=True)), 1)

    def test_an_event_given_twice_is_told(self):
        twice = self.GIVEN[:2] + self.GIVEN[1:]
        self.assertIn("1 events twice", self.violations(twice, self.SEEN[:2])[0])

    def test_an_event_after_the_end_is_told(self):
        late = self.GIVEN + [("1:3", "delta", 1960)]
        self.assertIn("after the end", self.violations(late)[0])

    def test_a_stream_that_no_gateway_knows_is_told(self):
        read = request(seen={"r": self.SEEN})
        found = check([read], call(1, 1100, 1900, 1200), {"a": [result()]}, Rules(), NOW, given={})
        self.assertEqual([i for i, _ in found.violations], ["I2"])

    def test_text_before_the_models_or_more_than_its_is_told(self):
        early = call(1, 1260, 1900, 1280)
        self.assertIn("before the model", self.violations(self.GIVEN, events=early)[0])
        short = [dict(e, tokens=1) for e in call(1, 1100, 1900, 1200)]
        self.assertIn("2 pieces of text", self.violations(self.GIVEN, events=short)[0])

    def test_lines_of_a_log_are_read(self):
        lines = ['T debug sluice-gateway "accept" id=a request_id=r fed=live mono_ns=1\n',
                 'T debug sluice-gateway "event" id=a request_id=r attempt=1 seq=2 type=delta '
                 'fed=live mono_ns=7\n', 'T info sluice-gateway "query" id=a request_id=r\n',
                 'T debug sluice-gateway "event" id=a request_id=r attempt=1 seq=3 type=del']
        ledger = gateway_ledger.read(lines, {})
        self.assertEqual(ledger, {("a", "r"): Given([("1:2", "delta", 7)])})


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
