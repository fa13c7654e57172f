"""Streams outlive connections and gateways: a caller comes back to any gateway and misses nothing, and
requests with one idempotency key share one query."""

import http.client
import json
import threading
import unittest

from cluster import Cluster, free_port, wait_until  # First: it sets the path of what follows.
from answers import expected_tokens

TOKENS = 60


class Stream:
    """The events of one query, gathered over any number of connections."""

    def __init__(self, question, key=None, **fields):
        self.body = json.dumps({"query": question, **fields})
        self.headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if key is not None:
            self.headers["Idempotency-Key"] = key
        self.question = question
        self.id = self.last = self.connection = self.status = None
        self.events = []
        self.done = False

    def ask(self, port):
        return self._send(port, "POST", "/v1/query", self.body, self.headers)

    def resume(self, port):
        headers = {"Last-Event-ID": self.last} if self.last is not None else {}
        return self._send(port, "GET", f"/v1/queries/{self.id}/events", None, headers)

    def _send(self, port, method, path, body, headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.request(method, path, body, headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.id = self.response.headers["sluice-id"]
        return self

    def read(self, deltas=None):
        """Reads until so many more deltas have come, or to the end."""
        name = None
        while deltas != 0:
            line = self.response.readline().decode()
            if line.startswith("id: "):
                name = line[4:].strip()
            elif line.startswith("data: [DONE]"):
                self.done = True
                return self
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                self.last = name
                self.events.append((name, event))
                if deltas is not None and event["type"] == "delta":
                    deltas -= 1
            elif not line:
                return self
        return self

    def leave(self):
        self.response.close()
        self.connection.close()

    def ids(self):
        return [name for name, _ in self.events]

    def text(self):
        return "".join(event["text"] for _, event in self.events if event["type"] == "delta")

    def outcome(self):
        return self.events[-1][1]["type"] if self.events else None


class Resume(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(SLUICE_ORPHAN_GRACE="2s", SLUICE_CHAT_LIMIT=30)
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.other = free_port()
        cls.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{cls.other}")

    def setUp(self):
        self.upstream = self.cluster.upstream
        self.upstream.reset()
        self.upstream.behave(chat={"token_interval_ms": 25, "tokens": TOKENS})
        self.ports = (self.cluster.port, self.other)

    def chat(self):
        return self.upstream.stats()["chat"]

    def check_whole(self, stream):
        """Every event once and in order, the whole answer, and one terminal event at the end."""
        numbers = [tuple(map(int, name.split(":"))) for name in stream.ids()]
        generated = [seq for attempt, seq in numbers if attempt == 1]
        self.assertEqual(generated, list(range(len(generated))), stream.ids())
        self.assertEqual([n for n in numbers if n[0] == 0], [(0, 0)])
        self.assertEqual(stream.text(), "".join(expected_tokens(stream.question, TOKENS)))
        self.assertEqual([e["type"] for _, e in stream.events].count("done"), 1)
        self.assertEqual((stream.outcome(), stream.done), ("done", True))
        self.assertEqual(self.chat()["calls"], 1)

    def check_cancelled(self, seconds=10):
        wait_until(lambda: self.chat()["aborted"] == 1, seconds, "the model's call closed")
        self.assertLess(self.chat()["tokens"], TOKENS)

    def test_a_stream_survives_five_connections_at_two_gateways(self):
        for number, wish in enumerate(("grace:10", "continue")):
            with self.subTest(wish):
                self.upstream.reset()
                self.upstream.behave(chat={"token_interval_ms": 25, "tokens": TOKENS})
                stream = Stream(f"Question {number}: five?", on_disconnect=wish)
                stream.ask(self.ports[0]).read(deltas=4).leave()
                for turn in range(5):  # Once without having seen anything new.
                    stream.resume(self.ports[turn % 2]).read(deltas=0 if turn == 2 else 5).leave()
                stream.resume(self.ports[1]).read().leave()
                self.check_whole(stream)
                self.assertEqual(self.chat()["aborted"], 0)

    def test_a_query_that_has_ended_is_told_again_anywhere(self):
        first = Stream("Question 3: ended?").ask(self.ports[0]).read()
        first.leave()
        for port in self.ports:
            again = Stream(first.question)
            again.id = first.id
            again.resume(port).read().leave()
            self.assertEqual(again.events, first.events)
            last = Stream(first.question)
            last.id, last.last = first.id, first.last
            last.resume(port).read().leave()
            self.assertEqual((last.status, last.events, last.done), (200, [], True))
            last.last = "1:9999"
            self.assertEqual(last.resume(port).status, 400)
            last.leave()
        self.assertEqual(self.chat()["calls"], 1)

    def test_of_two_callers_the_last_one_cancels(self):
        self.upstream.behave(chat={"token_interval_ms": 200, "tokens": TOKENS})
        first = Stream("Question 4: two?").ask(self.ports[0]).read(deltas=3)
        second = Stream(first.question)
        second.id = first.id
        second.resume(self.ports[1]).read(deltas=3)
        first.leave()
        second.read(deltas=10)
        self.assertEqual(self.chat()["aborted"], 0)
        second.leave()
        self.check_cancelled()

    def test_nobody_comes_back_within_the_grace(self):
        stream = Stream("Question 5: grace?", on_disconnect="grace:1")
        self.upstream.behave(chat={"token_interval_ms": 200, "tokens": TOKENS})
        stream.ask(self.ports[0]).read(deltas=2).leave()
        self.check_cancelled()
        stream.resume(self.ports[1]).read().leave()
        self.assertEqual(stream.events[-1][1]["error"]["code"], "cancelled")

    def test_one_key_is_one_query_at_both_gateways(self):
        key = "an-order-number"
        first = Stream("Question 6: key?", key=key).ask(self.ports[0]).read(deltas=3)
        second = Stream(first.question, key=key).ask(self.ports[1]).read(deltas=3)
        third = Stream(first.question, key=key).ask(self.ports[0]).read()
        for stream in (first, second):
            stream.read()
        late = Stream(first.question, key=key).ask(self.ports[1]).read()
        for stream in (first, second, third, late):
            stream.leave()
            self.assertEqual(stream.id, first.id)
            self.assertEqual(stream.events, first.events)
            self.check_whole(stream)
        status, headers, body = self.cluster.post("/v1/query", {"query": first.question},
                                                  {"Idempotency-Key": key})
        self.assertEqual((status, headers["sluice-id"]), (200, first.id))
        self.assertEqual(json.loads(body)["answer"], first.text())
        status, _, body = self.cluster.post("/v1/query", {"query": "Question 7: another?"},
                                            {"Idempotency-Key": key})
        self.assertEqual((status, json.loads(body)["error"]["code"]), (409, "idempotency_conflict"))
        self.assertEqual(self.chat()["calls"], 1)

    def test_callers_of_one_key_leave_one_after_the_other(self):
        self.upstream.behave(chat={"token_interval_ms": 200, "tokens": TOKENS})
        first = Stream("Question 8: leave?", key="k-8").ask(self.ports[0]).read(deltas=2)
        second = Stream(first.question, key="k-8").ask(self.ports[1]).read(deltas=2)
        first.leave()
        second.read(deltas=10)
        second.leave()
        self.check_cancelled()

    def killed(self, question, **fields):
        """A stream whose gateway was killed after its third delta."""
        port = free_port()
        gateway = self.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{port}")
        stream = Stream(question, **fields).ask(port).read(deltas=3)
        self.cluster.kill(gateway)
        try:
            stream.read()  # What was on its way.
        except (http.client.HTTPException, OSError):
            pass
        stream.leave()
        return stream

    def test_a_killed_gateways_stream_goes_on_elsewhere(self):
        stream = self.killed("Question 9: killed?")
        stream.resume(self.ports[0]).read().leave()
        self.check_whole(stream)

    def test_all_streams_of_a_killed_gateway_go_on_at_once(self):
        self.upstream.behave(chat={"token_interval_ms": 60, "tokens": TOKENS})
        port = free_port()
        gateway = self.cluster.start("gateway", SLUICE_LISTEN=f"127.0.0.1:{port}")
        streams = [Stream(f"Question {n}: all?", on_disconnect="continue").ask(port)
                   for n in range(10, 40)]
        wait_until(lambda: self.chat()["tokens"] > 100, 20, "answers under way")

        def at_once(one):
            threads = [threading.Thread(target=one, args=(stream,)) for stream in streams]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def until_cut(stream):
            try:
                stream.read()
            except (http.client.HTTPException, OSError):
                pass
            stream.leave()

        threading.Timer(0.5, self.cluster.kill, (gateway,)).start()
        at_once(until_cut)
        at_once(lambda stream: stream.resume(self.ports[0]).read().leave())
        for stream in streams:
            self.assertEqual(stream.status, 200, stream.id)
            self.assertEqual(stream.text(), "".join(expected_tokens(stream.question, TOKENS)))
            self.assertEqual(len(stream.ids()), len(set(stream.ids())))
            self.assertEqual((stream.outcome(), stream.done), ("done", True))
        self.assertEqual(self.chat()["calls"], len(streams))

    def test_a_killed_gateways_query_that_nobody_resumes_is_cancelled(self):
        self.upstream.behave(chat={"token_interval_ms": 1000, "tokens": TOKENS})
        self.killed("Question 10: orphan?")
        self.check_cancelled(40)


if __name__ == "__main__":
    unittest.main()
