"""Tests of the scriptable upstream server and of the load client, over real sockets."""

import array
import asyncio
import base64
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import client
import upstream
from answers import embed, expected_tokens
from wire import HttpReader, SseReader

WAIT_S = 10.0
QUESTION = "Question 7: what is a watermark?"


def wait_until(condition):
    """Returns once the condition holds; fails the test where it does not within WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")
        time.sleep(0.005)


def events_of(body):
    """The data of all events of a whole stream; raises where the stream is malformed."""
    found = []
    reader = SseReader(lambda kind, event_id, data: found.append(data))
    reader.feed(body)
    reader.eof()
    return found


def chat_body(question=QUESTION, stream=True, **more):
    return {"model": "m", "stream": stream, "messages": [
        {"role": "system", "content": "Answer from the context."},
        {"role": "user", "content": f"[1] Some passage.\n\nQuestion: {question}\nAnswer:"}], **more}


class UpstreamTest(unittest.TestCase):
    """One server for all tests, reset before each."""

    @classmethod
    def setUpClass(cls):
        cls.server = upstream.UpstreamProcess()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def setUp(self):
        self.server.reset()

    def post(self, path, value):
        """(status, headers, body); the body is bytes, a broken one raises http.client errors."""
        conn = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
        try:
            conn.request("POST", path, json.dumps(value))
            answer = conn.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            conn.close()

    def ask(self, path, value):
        status, _, body = self.post(path, value)
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def open(self, path, value):
        """Sends a request on a socket of its own and returns the socket."""
        data = json.dumps(value).encode()
        sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=WAIT_S)
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data)
        return sock

    def stats(self, kind):
        return self.server.stats(events=False)[kind]

    def stream(self, **more):
        status, headers, body = self.post("/v1/chat/completions", chat_body(**more))
        self.assertEqual((status, headers["content-type"]), (200, "text/event-stream"))
        return events_of(body)


def content(events):
    """The text of a stream's chunks."""
    deltas = [json.loads(e)["choices"] for e in events if e != "[DONE]"]
    return "".join(c[0]["delta"].get("content", "") for c in deltas if c)


class AnswersTest(UpstreamTest):
    """What a server without any fault answers."""

    def test_embeddings_are_the_same_as_floats_and_as_base64(self):
        value = {"input": ["first text", "second text"], "model": "e"}
        floats = self.ask("/v1/embeddings", value)
        packed = self.ask("/v1/embeddings", {**value, "encoding_format": "base64"})
        self.assertEqual([row["index"] for row in floats["data"]], [0, 1])
        self.assertGreater(floats["usage"]["total_tokens"], 0)
        for row, packed_row in zip(floats["data"], packed["data"]):
            vector = array.array("f", base64.b64decode(packed_row["embedding"]))
            self.assertEqual(len(vector), 384)
            for a, b in zip(row["embedding"], vector):
                self.assertAlmostEqual(a, b, places=6)
        self.assertEqual(floats["data"][0]["embedding"], embed("first text"))
        self.assertNotEqual(floats["data"][0]["embedding"], floats["data"][1]["embedding"])

    def test_embeddings_take_one_string_and_refuse_what_is_no_text(self):
        self.assertEqual(len(self.ask("/v1/embeddings", {"input": "one"})["data"]), 1)
        for value in ({}, {"input": []}, {"input": [""]}, {"input": [1]}, [1],
                      {"input": "a", "encoding_format": "hex"}):
            self.assertEqual(self.post("/v1/embeddings", value)[0], 400, value)

    def test_rerank_puts_the_document_with_the_words_of_the_query_first(self):
        value = {"query": "permits expire", "documents": ["bread", {"text": "how permits expire"},
                                                          "permits"]}
        results = self.ask("/v1/rerank", value)["results"]
        self.assertEqual([r["index"] for r in results], [1, 2, 0])
        scores = [r["relevance_score"] for r in results]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertEqual(self.ask("/v1/rerank", {**value, "top_n": 2})["results"], results[:2])

    def test_a_stream_has_role_tokens_finish_usage_and_done(self):
        events = self.stream(stream_options={"include_usage": True})
        self.assertEqual(events[-1], "[DONE]")
        chunks = [json.loads(e) for e in events[:-1]]
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual(content(events), "".join(expected_tokens(QUESTION)))
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "stop")
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 50)
        self.assertEqual({c["object"] for c in chunks}, {"chat.completion.chunk"})

    def test_an_answer_in_one_piece_has_the_same_text(self):
        value = self.ask("/v1/chat/completions", chat_body(stream=False))
        self.assertEqual(value["choices"][0]["message"]["content"],
                         "".join(expected_tokens(QUESTION)))
        self.assertEqual(value["choices"][0]["finish_reason"], "stop")

    def test_the_question_is_found_in_a_prompt(self):
        alone = expected_tokens("who holds it?")
        self.assertEqual(expected_tokens("Context: x\nQuestion: who holds it?\n\nAnswer:"), alone)
        self.assertEqual(expected_tokens("some passage\nwho holds it?\n"), alone)
        self.assertNotEqual(expected_tokens("who holds that?"), alone)

    def test_max_tokens_and_stop_end_an_answer_early(self):
        events = self.stream(max_tokens=3)
        self.assertEqual(content(events), "".join(expected_tokens(QUESTION, 3)))
        self.assertEqual(json.loads(events[-2])["choices"][0]["finish_reason"], "length")
        whole = "".join(expected_tokens(QUESTION))
        self.assertEqual(content(self.stream(stop=["-4 "])), whole[:whole.index("-4 ")])

    def test_models_health_and_unknown_paths(self):
        for path, status in (("/health", 200), ("/v1/models", 200), ("/nothing", 404),
                             ("/v1/embeddings", 405)):
            conn = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
            conn.request("GET", path)
            self.assertEqual(conn.getresponse().status, status, path)
            conn.close()

    def test_one_connection_serves_many_requests(self):
        conn = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
        for path, value in (("/v1/chat/completions", chat_body()), ("/v1/embeddings",
                                                                    {"input": "a"})) * 2:
            conn.request("POST", path, json.dumps(value))
            sock = conn.sock
            answer = conn.getresponse()
            answer.read()
            self.assertIs(conn.sock, sock)
        conn.close()

    def test_chunked_and_expected_bodies_are_read(self):
        body = json.dumps({"input": "a"}).encode()
        chunked = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
        for headers, data in ((b"Transfer-Encoding: chunked", chunked),
                              (b"Expect: 100-continue\r\nContent-Length: %d" % len(body), body)):
            with socket.create_connection(("127.0.0.1", self.server.port), WAIT_S) as sock:
                sock.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n")
                sock.sendall(data)
                answer = http.client.HTTPResponse(sock)
                answer.begin()
                self.assertEqual(answer.status, 200)

    def test_malformed_http_is_refused(self):
        for data in (b"POST / HTTP/1.1\nHost: a\n\n\r\n\r\n", b"hello\r\n\r\n",
                     b"GET / HTTP/1.1\r\n Folded: x\r\n\r\n",
                     b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                     b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
                     b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                     b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n"):
            with socket.create_connection(("127.0.0.1", self.server.port), WAIT_S) as sock:
                sock.sendall(data)
                answer = sock.makefile("rb").read()
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), data)


class StoresTest(UpstreamTest):
    """The two search APIs over documents that the test loads."""

    DOCUMENTS = [
        {"doc_id": "a", "text": "A permit expires after fifteen seconds.", "metadata": {"k": "1"}},
        {"doc_id": "b", "text": "Bread is baked in an oven.", "tenant": "other"},
        {"doc_id": "c", "text": "A lease is renewed every four seconds.", "tenant": None},
    ]

    def setUp(self):
        super().setUp()
        self.server.load(self.DOCUMENTS)

    def qdrant(self, **body):
        found = self.ask("/collections/docs/points/query", {"with_payload": True, **body})
        self.assertEqual(found["status"], "ok")
        return [p["payload"]["doc_id"] for p in found["result"]["points"]]

    def opensearch(self, query, **body):
        found = self.ask("/docs/_search", {"query": query, **body})
        return [hit["_source"]["doc_id"] for hit in found["hits"]["hits"]]

    def test_qdrant_finds_the_nearest(self):
        vector = embed("when does a permit expire?")
        self.assertEqual(self.qdrant(query=vector, limit=1), ["a"])
        self.assertEqual(sorted(self.qdrant(query=vector)), ["a", "b", "c"])
        point = self.ask("/collections/docs/points/query", {
            "query": {"nearest": vector}, "limit": 1, "with_payload": True})["result"]["points"][0]
        self.assertEqual(point["payload"]["chunk_id"], "a_0")
        self.assertEqual(self.post("/collections/docs/points/query", {"query": [1.0]})[0], 400)

    def test_qdrant_filters(self):
        vector = embed("seconds")
        tenant = {"key": "tenant", "match": {"value": "default"}}
        missing = {"is_empty": {"key": "tenant"}}
        for rule, wanted in (({"must": [tenant]}, "a"), ({"should": [tenant, missing]}, "ac"),
                             ({"must_not": [tenant]}, "bc"),
                             ({"must": [{"should": [tenant, missing]},
                                        {"key": "metadata.k", "match": {"any": ["1"]}}]}, "a")):
            self.assertEqual("".join(sorted(self.qdrant(query=vector, filter=rule))), wanted, rule)
        self.assertEqual(self.post("/collections/docs/points/query", {
            "query": vector, "filter": {"musts": []}})[0], 400)

    def test_opensearch_match_bool_and_knn(self):
        match = {"match": {"text": {"query": "which permit is a lease"}}}
        self.assertEqual(sorted(self.opensearch(match)), ["a", "b", "c"])
        default = {"bool": {"should": [{"term": {"tenant": "default"}},
                                       {"bool": {"must_not": [{"exists": {"field": "tenant"}}]}}]}}
        self.assertEqual(sorted(self.opensearch({"bool": {"must": [match], "filter": [default]}})),
                         ["a", "c"])
        knn = {"vector": embed("bread"), "k": 2}
        self.assertEqual(self.opensearch({"knn": {"embedding": knn}})[0], "b")
        self.assertNotIn("b", self.opensearch({"knn": {"embedding": {**knn, "filter": default}}}))
        self.assertEqual(self.opensearch({"term": {"metadata.k.keyword": "1"}}, size=5), ["a"])

    def test_opensearch_refuses_a_query_it_does_not_know(self):
        status, _, body = self.post("/docs/_search", {"query": {"matches": {"text": "a"}}})
        self.assertEqual(status, 400)
        self.assertIn("matches", json.loads(body)["error"]["reason"])

    def test_kinds_are_counted_apart(self):
        self.opensearch({"match": {"text": "a"}})
        self.opensearch({"knn": {"embedding": {"vector": embed("a"), "k": 1}}})
        self.qdrant(query=embed("a"))
        self.assertEqual((self.stats("keyword")["calls"], self.stats("vector")["calls"]), (1, 2))

    def test_a_vector_search_is_noted_with_the_question_that_was_embedded(self):
        vector = self.ask("/v1/embeddings", {"input": QUESTION})["data"][0]["embedding"]
        self.qdrant(query=[round(x, 5) for x in vector])
        noted = [e["question"] for e in self.server.ledger() if e["kind"] == "vector"]
        self.assertEqual(noted, [QUESTION, QUESTION])


class BehaviourTest(UpstreamTest):
    """Each behaviour once."""

    def test_latency_and_token_times(self):
        self.server.behave(embed={"latency_ms": 60, "jitter_ms": 10}, chat={
            "latency_ms": 30, "first_token_ms": 30, "token_interval_ms": 10, "tokens": 4})
        self.ask("/v1/embeddings", {"input": "a"})
        self.stream()
        at = {(e["kind"], e["event"]): e["t"] / 1e6 for e in self.server.ledger()}
        self.assertGreaterEqual(at["embed", "end"] - at["embed", "begin"], 60)
        self.assertGreaterEqual(at["chat", "first"] - at["chat", "begin"], 60)
        # Tokens after the first keep to a grid of 1 ms, half of it to either side.
        self.assertGreaterEqual(at["chat", "end"] - at["chat", "begin"], 89)

    def test_error_status_with_retry_after_in_each_server_s_own_words(self):
        for kind, path in (("embed", "/v1/embeddings"), ("rerank", "/v1/rerank"),
                           ("chat", "/v1/chat/completions"), ("keyword", "/d/_search"),
                           ("vector", "/collections/d/points/query")):
            self.server.behave(**{kind: {"error_status": 429, "retry_after_s": 2}})
            status, headers, body = self.post(path, {"input": "a"})
            self.assertEqual((status, headers["retry-after"]), (429, "2"), kind)
            value = json.loads(body)
            shown = value["status"]["error"] if kind == "vector" else value["error"]
            self.assertTrue(shown, kind)
            self.assertEqual(self.stats(kind)["statuses"], {"429": 1})

    def test_the_first_k_calls_fail(self):
        self.server.behave(embed={"fail_times": 2, "error_status": 503})
        found = [self.post("/v1/embeddings", {"input": "a"})[0] for _ in range(4)]
        self.assertEqual(found, [503, 503, 200, 200])

    def test_the_first_call_is_cut_and_the_second_is_whole(self):
        self.server.behave(chat={"fail_times": 1, "cut_after_tokens": 3})
        with self.assertRaises(http.client.IncompleteRead):
            self.stream()
        self.assertEqual(self.stream()[-1], "[DONE]")

    def test_a_share_of_calls_fails_the_same_for_each_run(self):
        def statuses():
            self.server.reset()
            self.server.behave(embed={"error_rate": 0.5})
            return [self.post("/v1/embeddings", {"input": "a"})[0] for _ in range(40)]
        first = statuses()
        self.assertEqual(set(first), {200, 500})
        self.assertEqual(statuses(), first)

    def test_a_rule_with_match_inherits_and_wins(self):
        self.server.behave(chat=[{"tokens": 5}, {"match": "Question 8", "finish_reason": "length"}])
        for number, finish in ((7, "stop"), (8, "length")):
            events = self.stream(question=f"Question {number}: why?")
            self.assertEqual(content(events).count(" "), 5)
            self.assertEqual(json.loads(events[-2])["choices"][0]["finish_reason"], finish)

    def test_hang_answers_nothing_until_the_client_leaves(self):
        self.server.behave(rerank={"hang": True})
        sock = self.open("/v1/rerank", {"query": "a", "documents": ["b"]})
        wait_until(lambda: self.stats("rerank")["in_flight"] == 1)
        sock.close()
        wait_until(lambda: self.stats("rerank")["aborted"] == 1)
        self.assertEqual(self.stats("rerank")["in_flight"], 0)

    def test_hang_headers_sends_the_headers_alone(self):
        self.server.behave(chat={"hang_headers": True}, embed={"hang_headers": True})
        for path, value in (("/v1/chat/completions", chat_body()), ("/v1/embeddings",
                                                                    {"input": "a"})):
            with self.open(path, value) as sock:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += sock.recv(4096)
                self.assertTrue(data.startswith(b"HTTP/1.1 200 "))
                self.assertTrue(data.endswith(b"\r\n\r\n"))

    def test_cut_ends_the_connection_in_the_middle(self):
        self.server.behave(chat={"cut_after_tokens": 3}, embed={"cut_after_tokens": 1},
                           rerank={"cut_after_tokens": 0})
        with self.assertRaises(http.client.IncompleteRead) as cut:
            self.post("/v1/chat/completions", chat_body())
        self.assertEqual(content(events_of(cut.exception.partial)),
                         "".join(expected_tokens(QUESTION, 3)))
        with self.assertRaises(http.client.IncompleteRead):
            self.post("/v1/embeddings", {"input": "a"})
        with self.assertRaises(http.client.RemoteDisconnected):
            self.post("/v1/rerank", {"query": "a", "documents": ["b"]})
        self.assertEqual((self.stats("chat")["cut"], self.stats("chat")["tokens"]), (1, 3))

    def test_reset_is_a_tcp_reset(self):
        self.server.behave(chat={"reset_after_tokens": 2})
        with self.assertRaises(ConnectionResetError):
            self.post("/v1/chat/completions", chat_body())

    def test_stall_sends_nothing_more_and_keeps_the_connection(self):
        self.server.behave(chat={"stall_after_tokens": 2})
        with self.open("/v1/chat/completions", chat_body()) as sock:
            last, data = expected_tokens(QUESTION, 2)[1].encode(), b""
            while last not in data:
                data += sock.recv(4096)
            self.assertEqual(self.stats("chat")["in_flight"], 1)
            self.assertNotIn(b"finish_reason\":\"stop", data)
        wait_until(lambda: self.stats("chat")["aborted"] == 1)

    def test_no_finish_is_a_clean_end_without_finish_or_done(self):
        self.server.behave(chat={"no_finish": True})
        events = self.stream()
        self.assertEqual(content(events), "".join(expected_tokens(QUESTION)))
        self.assertNotIn("[DONE]", events)
        self.assertTrue(all(json.loads(e)["choices"][0]["finish_reason"] is None for e in events))

    def test_an_error_event_ends_the_stream(self):
        self.server.behave(chat={"error_event_after_tokens": 4})
        events = self.stream()
        self.assertEqual(json.loads(events[-1])["error"]["code"], 500)
        self.assertEqual(content(events[:-1]), "".join(expected_tokens(QUESTION, 4)))

    def test_a_malformed_line_stands_in_place_of_a_token(self):
        self.server.behave(chat={"malformed_after_tokens": 4}, rerank={"malformed_after_tokens": 0})
        events = self.stream()
        with self.assertRaises(ValueError):
            json.loads(events[5])
        self.assertEqual((len(events), events[-1]), (53, "[DONE]"))
        _, _, body = self.post("/v1/rerank", {"query": "a", "documents": ["b"]})
        with self.assertRaises(ValueError):
            json.loads(body)

    def test_split_writes_change_no_byte(self):
        self.server.behave(chat={"split_bytes": 3, "tokens": 5}, embed={"split_bytes": 1})
        self.assertEqual(content(self.stream()), "".join(expected_tokens(QUESTION, 5)))
        self.assertEqual(len(self.ask("/v1/embeddings", {"input": "a"})["data"]), 1)

    def test_split_cut_sends_all_pieces_first(self):
        self.server.behave(chat={"split_bytes": 3, "cut_after_tokens": 5})
        with self.assertRaises(http.client.IncompleteRead) as cut:
            self.stream()
        self.assertEqual(content(events_of(cut.exception.partial)),
                         "".join(expected_tokens(QUESTION, 5)))

    def test_an_input_too_long_fails_its_whole_batch(self):
        self.server.behave(embed={"too_long_chars": 10}, chat={"too_long_chars": 10})
        self.assertEqual(self.post("/v1/embeddings", {"input": ["short", "x" * 11]})[0], 500)
        self.assertEqual(self.post("/v1/embeddings", {"input": ["short"]})[0], 200)
        status, _, body = self.post("/v1/chat/completions", chat_body())
        self.assertEqual((status, json.loads(body)["error"]["type"]),
                         (400, "exceed_context_size_error"))

    def test_a_wrong_behaviour_is_refused_by_name(self):
        for value, word in (({"chats": {}}, "chats"), ({"chat": {"latency": 1}}, "latency"),
                            ({"chat": {"tokens": "1"}}, "tokens"), ({"chat": 1}, "chat"),
                            ({"chat": {"hang": 1}}, "hang"), ({"embed": {"tokens": -1}}, "tokens")):
            status, _, body = self.post("/_control/behaviour", value)
            self.assertEqual(status, 400)
            self.assertIn(word, json.loads(body)["error"]["message"])


class LedgerTest(UpstreamTest):
    """What the server counts and notes."""

    def test_a_disconnect_is_noticed_while_the_call_sleeps_and_while_it_streams(self):
        self.server.behave(embed={"latency_ms": 60000},
                           chat={"token_interval_ms": 60000, "tokens": 9})
        for kind, path, value in (("embed", "/v1/embeddings", {"input": "a"}),
                                  ("chat", "/v1/chat/completions", chat_body())):
            for linger in (None, struct.pack("ii", 1, 0)):
                self.server.reset("behaviour")
                sock = self.open(path, value)
                wait_until(lambda k=kind: any(e["kind"] == k for e in self.server.ledger()))
                if linger:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                left = time.monotonic_ns()
                sock.close()
                wait_until(lambda k=kind: self.stats(k)["aborted"] == 1)
                stats = self.stats(kind)
                self.assertEqual((stats["in_flight"], stats["completed"]), (0, 0))
                self.assertGreaterEqual(stats["aborted_times"][0], left)
                abort = self.server.ledger()[-1]
                self.assertEqual((abort["event"], abort["t"]), ("abort", stats["aborted_times"][0]))

    def test_peak_concurrency(self):
        self.server.behave(rerank={"hang": True})
        socks = [self.open("/v1/rerank", {"query": "a", "documents": ["b"]}) for _ in range(8)]
        wait_until(lambda: self.stats("rerank")["in_flight"] == 8)
        for sock in socks:
            sock.close()
        wait_until(lambda: self.stats("rerank")["in_flight"] == 0)
        stats = self.stats("rerank")
        self.assertEqual((stats["peak_concurrency"], stats["calls"], stats["aborted"]), (8, 8, 8))

    def test_a_call_that_follows_a_close_never_raises_the_peak(self):
        self.server.behave(rerank={"hang": True})
        body = {"query": "a", "documents": ["b"]}
        held = [self.open("/v1/rerank", body) for _ in range(4)]
        wait_until(lambda: self.stats("rerank")["in_flight"] == 4)
        # The new caller's connection is there first, so the server may see its request first.
        for _ in range(50):
            data = json.dumps(body).encode()
            sock = socket.create_connection(("127.0.0.1", self.server.port), WAIT_S)
            held.pop(0).close()
            sock.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
                         % len(data) + data)
            held.append(sock)
        wait_until(lambda: self.stats("rerank")["calls"] == 54)
        self.assertEqual(self.stats("rerank")["peak_concurrency"], 4)
        for sock in held:
            sock.close()

    def test_events_of_a_batch_and_of_a_stream(self):
        self.ask("/v1/embeddings", {"input": ["one", "two"]})
        self.stream()
        noted = [(e["kind"], e["event"], e["batch"], e["tokens"]) for e in self.server.ledger()]
        self.assertEqual(noted, [("embed", "begin", 2, 0), ("embed", "end", 2, 0),
                                 ("chat", "begin", 1, 0), ("chat", "first", 1, 1),
                                 ("chat", "end", 1, 50)])
        events = self.server.stats()["embed"]["events"]
        self.assertEqual((events[0]["question"], events[0]["questions"]), ("one", ["one", "two"]))
        self.assertEqual(self.server.ledger(since=events[-1]["t"])[0]["kind"], "chat")

    def test_the_last_requests_can_be_read(self):
        self.ask("/v1/chat/completions", chat_body(stream=False, temperature=0))
        sent = json.loads(self.server.control("requests?kind=chat"))
        self.assertEqual(json.loads(sent[-1])["temperature"], 0)

    def test_the_ledger_and_the_port_go_to_files(self):
        with tempfile.TemporaryDirectory() as folder:
            ledger, port = os.path.join(folder, "ledger"), os.path.join(folder, "port")
            with upstream.UpstreamProcess("--ledger", ledger, "--port-file", port, "--dim",
                                          "16") as server:
                wait_until(lambda: os.path.exists(port))
                with open(port, encoding="ascii") as file:
                    self.assertEqual(int(file.read()), server.port)
                conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
                conn.request("POST", "/v1/embeddings", json.dumps({"input": "a"}))
                found = json.loads(conn.getresponse().read())
                self.assertEqual(len(found["data"][0]["embedding"]), 16)
                conn.close()
            with open(ledger, encoding="utf-8") as file:
                self.assertEqual([json.loads(line)["event"] for line in file], ["begin", "end"])


# The load client

def event(attempt, seq, kind, **more):
    data = json.dumps({"id": "q1", "type": kind, "attempt": attempt, "seq": seq, **more})
    return f"id: {attempt}:{seq}\nevent: {kind}\ndata: {data}\n\n"


def answer_events(question, tokens=3):
    return [event(0, 0, "sources", source_chunks=[])] + [
        event(1, i, "delta", text=t) for i, t in enumerate(expected_tokens(question, tokens))] + [
        event(1, tokens, "done", outcome="done"), "data: [DONE]\n\n"]


def sse_response(parts):
    body = "".join(parts).encode()
    return (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nsluice-id: q1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def run_client(respond, *arguments):
    """Runs the client against a server that answers respond(body), bytes, to each request."""
    class Gateway(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.body = transport, bytearray()
            self.reader = HttpReader(False, lambda head: self.body.clear(), self.body.extend,
                                     self.on_request)

        def data_received(self, data):
            self.reader.feed(data)

        def on_request(self):
            self.transport.write(respond(json.loads(self.body)))
            asyncio.get_running_loop().call_soon(self.reader.resume)

    async def run():
        server = await asyncio.get_running_loop().create_server(Gateway, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        options = client.parse_options(["--url", f"http://127.0.0.1:{port}", "--tokens", "3",
                                        "--timeout", str(WAIT_S), *arguments])
        load = client.Load(options)
        await load.run()
        server.close()
        for record in load.records:
            client.judge(record, options)
        return load.records
    return asyncio.run(run())


class ClientTest(UpstreamTest):
    """The client notices everything that can be wrong with an answer."""

    def test_good_streams_are_ok(self):
        records = run_client(lambda body: sse_response([": keep-alive\n\n"] +
                                                       answer_events(body["query"])),
                             "--n", "20", "--concurrency", "4")
        self.assertEqual({r.verdict for r in records}, {"ok"}, records[0].problems)
        self.assertEqual({(r.deltas, r.sources == [], r.terminal) for r in records},
                         {(3, True, "done")})
        self.assertEqual(len({r.question for r in records}), 20)

    def test_bad_streams_are_broken(self):
        def without(place):
            return lambda e: e[:place] + e[place + 1:]
        cases = {
            "missing delta": without(2), "no [DONE]": without(-1), "no terminal": without(-2),
            "event twice": lambda e: e[:3] + e[2:],
            "after the terminal": lambda e: e[:-1] + [event(1, 9, "delta", text="x")] + e[-1:],
            "after [DONE]": lambda e: e + [event(1, 9, "delta", text="x")],
            "wrong text": lambda e: [x.replace("-1 ", "-9 ") for x in e],
            "type differs": lambda e: [x.replace('"type": "delta"', '"type": "done"') for x in e],
            "cut in an event": lambda e: e[:-1] + ["data: [DO"],
            "unknown field": lambda e: ["events: x\n\n"] + e,
            "new attempt without restart": lambda e: e[:2] + [
                event(2, i, "delta", text=f"{i}") for i in range(3)] + e[-2:],
        }
        for name, change in cases.items():
            record, = run_client(lambda body, c=change: sse_response(
                c(answer_events(body["query"]))), "--n", "1")
            self.assertEqual(record.verdict, "broken", name)
            self.assertTrue(record.problems, name)

    def test_a_restart_begins_the_text_again(self):
        def respond(body):
            tokens = expected_tokens(body["query"], 3)
            again = [event(2, 0, "restart")] + [
                event(2, i + 1, "delta", text=t) for i, t in enumerate(tokens)]
            return sse_response(answer_events(body["query"])[:3] + again + [
                event(2, 4, "done"), "data: [DONE]\n\n"])
        record, = run_client(respond, "--n", "1")
        self.assertEqual((record.verdict, record.restarts), ("ok", 1), record.problems)

    def test_an_error_event_and_an_error_status_are_failed(self):
        def failed(body):
            events = answer_events(body["query"])
            return sse_response(events[:2] + [event(1, 1, "error", error={"code": "timeout"}),
                                              events[-1]])
        data = b'{"error": {"code": "overloaded"}}'
        refused = (b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        for respond, code in ((failed, "timeout"), (lambda body: refused, "overloaded")):
            record, = run_client(respond, "--n", "1")
            self.assertEqual((record.verdict, record.error["code"]), ("failed", code))

    def test_json_answers_are_compared(self):
        def respond(body, text=None):
            value = {"outcome": "done", "source_chunks": [], "error": None,
                     "answer": text or "".join(expected_tokens(body["query"], 3))}
            data = json.dumps(value).encode()
            return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(data), data))
        for text, verdict in ((None, "ok"), ("short", "broken")):
            records = run_client(lambda body, t=text: respond(body, t), "--mode", "query-json",
                                 "--n", "3")
            self.assertEqual({r.verdict for r in records}, {verdict})

    def test_a_connection_that_breaks_is_broken(self):
        half = sse_response(["data: [DONE]\n\n"])[:-9]
        record, = run_client(lambda body: half, "--n", "1", "--timeout", "0.2")
        self.assertEqual(record.verdict, "broken")

    def run_program(self, *arguments):
        """Runs client.py against the upstream server's chat; (exit code, report and records)."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "out.json")
            done = subprocess.run(
                [sys.executable, client.__file__, "--url", self.server.url, "--mode", "chat-sse",
                 "--json", path, *arguments], stdout=subprocess.PIPE, text=True, timeout=60,
                check=False)
            self.assertIn("first token", done.stdout)
            with open(path, encoding="utf-8") as file:
                return done.returncode, json.load(file)

    def test_a_closed_loop_against_the_model_server(self):
        self.server.behave(chat={"latency_ms": 5, "token_interval_ms": 1})
        code, found = self.run_program("--n", "40", "--concurrency", "10")
        self.assertEqual((code, found["report"]["verdicts"]), (0, {"ok": 40}))
        self.assertEqual(self.stats("chat")["peak_concurrency"], 10)
        self.assertEqual(self.stats("chat")["completed"], 40)

    def test_an_open_loop_starts_at_its_rate(self):
        code, found = self.run_program("--n", "20", "--rate", "100")
        due = [r["due_ns"] for r in found["records"]]
        self.assertEqual({b - a for a, b in zip(due, due[1:])}, {10_000_000})
        self.assertEqual((code, found["report"]["verdicts"]), (0, {"ok": 20}))

    def test_some_clients_leave_and_the_ledger_tells_when_their_calls_ended(self):
        self.server.behave(chat={"token_interval_ms": 10})
        for how, at in (("reset", "tokens:5"), ("close", "ms:100")):
            self.server.reset("behaviour")
            code, found = self.run_program(
                "--n", "30", "--leave-fraction", "0.5", "--leave-at", at, "--leave-how", how,
                "--upstream", self.server.url)
            verdicts = found["report"]["verdicts"]
            self.assertEqual((code, verdicts["ok"] + verdicts["left"]), (0, 30))
            self.assertEqual(self.stats("chat")["aborted"], verdicts["left"])
            chat = found["report"]["leavers"]["chat"]
            self.assertEqual((chat["closed_after_ms"]["n"], chat["begun_after"]),
                             (verdicts["left"], 0))

    def test_a_wrong_text_makes_the_exit_code_1(self):
        self.server.behave(chat={"malformed_after_tokens": 3})
        code, found = self.run_program("--n", "2")
        self.assertEqual((code, found["report"]["verdicts"]), (1, {"broken": 2}))


del UpstreamTest  # holds no tests of its own

if __name__ == "__main__":
    unittest.main()
