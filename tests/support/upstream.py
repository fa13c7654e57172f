#!/usr/bin/env python3
"""A scriptable server that plays every service which a question meets: embeddings, rerank, chat,
and the vector and keyword stores. README.md in this folder describes its endpoints and behaviours.

One process, one thread. Each connection is an asyncio Protocol that reads at all times, so a client
that closes is seen at once whatever its call waits for. An answer is a Plan (its writes and how it
ends) that a Playback performs with one timer; there is no task per call. Timers sit in one queue
behind a timerfd: the event loop's own are late by up to a millisecond each, and that would look
like overhead of the pipeline under test.
"""

import argparse
import array
import asyncio
import base64
import collections
import ctypes
import gc
import heapq
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import answers
import behaviour
import plans
from answers import expected_tokens, question_of  # noqa: F401 (for those who import this file)
from behaviour import KINDS
from ledger import Ledger
from wire import HttpReader, WireError

BODY_LIMIT = 64 * 1024 * 1024
KNOWN_VECTORS = 100_000
# Tokens after the first go out on this grid, so that one wake-up serves many streams.
TOKEN_GRID_S = 0.001
RST_ON_CLOSE = struct.pack("ii", 1, 0)
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class TimerQueue:
    """Callbacks at monotonic times, exact to some tens of microseconds."""

    def __init__(self, loop):
        self._libc = ctypes.CDLL(None, use_errno=True)
        nonblock_cloexec = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, nonblock_cloexec)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._heap = []
        self._count = 0
        self._armed = None
        self.late_max = 0.0
        loop.add_reader(self._fd, self._on_ready)

    def at(self, when, callback):
        """Calls back once at `when` (time.monotonic()); returns a timer for cancel()."""
        self._count += 1
        timer = [when, self._count, callback]
        heapq.heappush(self._heap, timer)
        if self._armed is None or when < self._armed:
            self._arm()
        return timer

    @staticmethod
    def cancel(timer):
        timer[2] = None

    def _arm(self):
        while self._heap and self._heap[0][2] is None:
            heapq.heappop(self._heap)
        self._armed = self._heap[0][0] if self._heap else None
        # An all-zero time would disarm it, so the earliest is 1 ns after the boot.
        seconds, part = divmod(int((self._armed or 0) * 1e9), 1_000_000_000)
        spec = struct.pack("qqqq", 0, 0, seconds, part)
        absolute = 1
        if self._libc.timerfd_settime(self._fd, absolute, spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _on_ready(self):
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            when, _, callback = heapq.heappop(self._heap)
            if callback:
                self.late_max = max(self.late_max, now - when)
                callback()
        # Setting the next time also takes the readiness back, so the fd need not be read.
        self._arm()


class Call:
    """One request of a kind, from the moment it is complete. `questions` and `values` are None
    until the request has been read."""

    __slots__ = ("kind", "request_id", "id", "stats", "began_ns", "aborted_ns", "tokens",
                 "questions", "values")

    def __init__(self, kind, request_id):
        self.kind, self.request_id = kind, request_id
        self.id = self.began_ns = self.aborted_ns = self.tokens = 0
        self.stats = self.questions = self.values = None


class Playback:
    """Performs a Plan on a connection: one timer at a time, times counted from the begin of the
    call so that late writes do not push back those after them."""

    def __init__(self, server, conn, call, plan):
        self._server, self._conn, self.call, self._plan = server, conn, call, plan
        self._began = call.began_ns / 1e9
        self._next = 0
        self._timer = None

    def start(self):
        if self._plan.head is not None:
            self._at(self._plan.head_s, self._on_head)

    def stop(self):
        if self._timer:
            TimerQueue.cancel(self._timer)
            self._timer = None

    def _at(self, offset, callback):
        self._timer = None
        if offset <= 0:
            callback()
        else:
            self._timer = self._server.timers.at(self._began + offset, callback)

    def _on_head(self):
        plan = self._plan
        self._conn.send(plan.head)
        if plan.tokens:
            self._at(plan.head_s + plan.first_s, self._on_token)
        else:
            self._finish()

    def _on_token(self):
        plan, call = self._plan, self.call
        self._conn.send(plan.tokens[self._next])
        self._next += 1
        call.tokens = self._next
        if self._next == 1:
            self._server.ledger.first(call)
        if self._next == len(plan.tokens):
            self._finish()
        else:
            when = self._began + plan.head_s + plan.first_s + self._next * plan.interval_s
            if plan.interval_s > TOKEN_GRID_S:
                when = round(when / TOKEN_GRID_S) * TOKEN_GRID_S
            self._timer = self._server.timers.at(when, self._on_token)

    def _finish(self):
        self._timer = None
        if self._plan.tail:
            self._conn.send(self._plan.tail)
        self._conn.after_sent(self._on_sent)

    def _on_sent(self):
        ending = self._plan.ending
        if ending == "stall":
            return
        outcome = {"end": self._plan.status, "close": "cut", "reset": "reset"}[ending]
        self._server.ledger.end(self.call, outcome)
        self._conn.on_answered(ending)


class Connection(asyncio.Protocol):
    """One client: reads requests one after the other, always watching for its close."""

    def __init__(self, server):
        self._server = server
        self._reader = HttpReader(False, self._on_head, self._on_body, self._on_request)
        self._head = None
        self._body = bytearray()
        self._pieces = collections.deque()
        self._pumping = False
        self._split = 0
        self._sent_callback = None
        self._keep_alive = True
        self.call = None
        self._playback = None

    def connection_made(self, transport):
        self.transport = transport
        self.socket = transport.get_extra_info("socket")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.connections.add(self)

    def data_received(self, data):
        try:
            self._reader.feed(data)
        except WireError as error:
            self._refuse(400, str(error))

    def eof_received(self):
        self.on_gone()

    def connection_lost(self, _error):
        self.on_gone()
        self._server.connections.discard(self)

    def on_gone(self):
        """The client closed: its call, if it has one, is aborted."""
        self._pieces.clear()
        self._sent_callback = None
        if self._playback:
            self._playback.stop()
        if self.call:
            self._server.ledger.abort(self.call)
        self.call = self._playback = None

    def _on_head(self, head):
        self._head = head
        self._body.clear()
        if head.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _on_body(self, data):
        self._body += data
        if len(self._body) > BODY_LIMIT:
            raise WireError("body too large")

    def _on_request(self):
        self._keep_alive = self._head.keeps_alive()
        self._split = 0
        self._server.on_request(self, self._head, bytes(self._body))

    def _refuse(self, status, message):
        self._server.refused += 1
        self.on_gone()
        self._keep_alive = False
        self.answer(status, json.dumps({"error": {"message": message}}).encode())

    def answer(self, status, body, content_type="application/json"):
        """Answers at once, outside the counters."""
        self.send(plans.response(status, body, content_type))
        self.on_answered("end")

    def play(self, plan):
        self._split = self.call.values.get("split_bytes", 0)
        self._playback = Playback(self._server, self, self.call, plan)
        self._playback.start()

    def send(self, data):
        if self._split:
            self._pieces.extend(data[i:i + self._split] for i in range(0, len(data), self._split))
            self._pump()
        else:
            self.transport.write(data)

    def after_sent(self, callback):
        """Calls back when all pieces are written: at once where nothing is split."""
        if self._split:
            self._sent_callback = callback
            self._pump()
        else:
            callback()

    def _pump(self):
        if not self._pumping:
            self._pumping = True
            self._server.loop.call_soon(self._send_piece)

    def _send_piece(self):
        """Writes one piece on each turn of the loop, so that they go out apart."""
        self._pumping = False
        if self._pieces:
            self.transport.write(self._pieces.popleft())
            self._pump()
        elif self._sent_callback:
            callback, self._sent_callback = self._sent_callback, None
            callback()

    def on_answered(self, ending):
        self.call = self._playback = None
        if ending == "reset":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            self.transport.abort()
        elif ending == "close" or not self._keep_alive:
            self.transport.close()
        else:
            self._server.loop.call_soon(self._read_next)

    def _read_next(self):
        try:
            self._reader.resume()
        except WireError as error:
            self._refuse(400, str(error))


# The server

class Server:
    """The routes, the state that the control API changes, and the open connections."""

    def __init__(self, loop, options):
        self.loop = loop
        self._dim = options.dim
        self._document_count = options.documents
        self.timers = TimerQueue(loop)
        self.ledger = Ledger(KINDS, options.ledger)
        self._behaviours = behaviour.Behaviours(options.seed)
        self.connections = set()
        self._unread = collections.deque()
        self.reset(keep=())

    def reset(self, keep):
        self.refused = 0
        self.timers.late_max = 0.0
        self.ledger.reset()
        self._requests = {kind: collections.deque(maxlen=64) for kind in KINDS}
        if "behaviour" not in keep:
            self._behaviours.reset()
        if "documents" not in keep:
            self._known_vectors = {}
            self._corpus = answers.Corpus(self._dim)
            self._corpus.load(answers.synthetic_documents(self._document_count))

    def settle_closed(self, kind):
        """Before a call is counted that would raise the peak: notices the clients that closed
        already but whose close the loop has not come to, so that the peak is never too high."""
        stats = self.ledger.kinds[kind]
        if stats.in_flight < stats.peak:
            return
        poll, by_fd = select.poll(), {}
        for conn in self.connections:
            if conn.call and conn.call.kind == kind:
                by_fd[conn.socket.fileno()] = conn
                poll.register(conn.socket.fileno(), select.POLLRDHUP)
        for fd, events in poll.poll(0) if by_fd else ():
            if events & GONE:
                by_fd[fd].on_gone()

    def on_request(self, conn, head, body):
        path, _, query = head.target.partition("?")
        route = ROUTES.get((head.method, path))
        if route:
            route(self, conn, head, body, query)
        elif head.method == "POST" and QDRANT_PATH.match(path):
            self._on_call(conn, "vector", head, body, Server._answer_qdrant)
        elif head.method == "POST" and (match := OPENSEARCH_PATH.match(path)):
            index = urllib.parse.unquote(match[1])
            kind = "vector" if b'"knn"' in body else "keyword"
            self._on_call(conn, kind, head, body,
                          lambda self, call, request: self._answer_opensearch(call, request, index))
        else:
            known = any(path == p for _, p in ROUTES)
            status = 405 if known else 404
            conn.answer(status, behaviour.error_body("chat", status, plans.REASONS[status]))

    def _on_call(self, conn, kind, head, body, answer):
        """Counts a call. It is read and answered one loop turn later at the earliest, one call a
        turn: of a hundred that arrive together each gets its time of arrival, and the streams that
        run are not held up."""
        call = Call(kind, head.headers.get("sluice-id") or head.headers.get("x-request-id"))
        self.settle_closed(kind)
        self.ledger.begin(call)
        conn.call = call
        self._unread.append((conn, call, body, answer))
        if len(self._unread) == 1:
            self.loop.call_soon(self._read_one)

    def _read_one(self):
        conn, call, body, answer = self._unread.popleft()
        if self._unread:
            self.loop.call_soon(self._read_one)
        plan = self._plan(call, body, answer)
        if conn.call is call:
            conn.play(plan)

    def _plan(self, call, body, answer):
        """Reads a request, applies its behaviour, and makes the answer."""
        try:
            request, refusal = json.loads(body), None
            call.questions = self._questions(call.kind, request)
        except (ValueError, TypeError, AttributeError, answers.BadRequest) as error:
            call.questions, refusal = [], str(error)
        text = body.decode("utf-8", "replace")
        self._requests[call.kind].append(text[:65536])
        call.values = self._behaviours.choose(call.kind, text, "\n".join(call.questions))
        self.ledger.note_begin(call)
        if "error_status" in call.values:
            return plans.error_plan(call, call.values["error_status"], "scripted error")
        if refusal:
            return plans.error_plan(call, 400, refusal)
        try:
            return answer(self, call, request)
        except answers.BadRequest as error:
            return plans.error_plan(call, 400, str(error))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return plans.error_plan(call, 400, f"malformed request: {error!r}")

    def _questions(self, kind, request):
        """The texts that a call is about, for the ledger."""
        if kind == "embed":
            given = request.get("input")
            texts = [given] if isinstance(given, str) else given
            if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
                raise answers.BadRequest("'input' must be a string or an array of strings")
            return texts
        if kind == "rerank":
            return [str(request.get("query", ""))]
        if kind == "chat":
            return [question_of(answers.last_user_text(request.get("messages")))]
        if vector := answers.find_vector(request.get("query")):
            return [self._known_vectors.get(answers.vector_key(vector), "")]
        return [answers.find_match(request.get("query")) or ""]

    def _answer_embed(self, call, request):
        texts, limit = call.questions, call.values.get("too_long_chars")
        if not texts or not all(texts):
            raise answers.BadRequest("Input content cannot be empty")
        if limit is not None and max(map(len, texts)) > limit:
            return plans.error_plan(call, 500, plans.too_large(max(map(len, texts)), limit))
        encoding = request.get("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise answers.BadRequest("The format to return the embeddings in. Can be either float "
                                     "or base64")
        data = []
        for index, text in enumerate(texts):
            vector = answers.embed(text, self._dim)
            if len(self._known_vectors) < KNOWN_VECTORS:
                self._known_vectors[answers.vector_key(vector)] = text[:80]
            if encoding == "base64":
                vector = base64.b64encode(array.array("f", vector).tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        used = sum(map(answers.count_tokens, texts))
        return plans.json_plan(call, 200, json.dumps({
            "object": "list", "model": request.get("model") or "stub-embed", "data": data,
            "usage": {"prompt_tokens": used, "total_tokens": used}}).encode())

    def _answer_rerank(self, call, request):
        query, documents = request.get("query"), request.get("documents")
        if not isinstance(query, str) or not isinstance(documents, list) or not documents:
            raise answers.BadRequest("'query' and a non-empty 'documents' array must be provided")
        texts = [d if isinstance(d, str) else d["text"] for d in documents]
        limit, longest = call.values.get("too_long_chars"), max(map(len, texts))
        if limit is not None and longest > limit:
            return plans.error_plan(call, 500, plans.too_large(longest, limit))
        scores = answers.rerank(query, texts)
        order = sorted(range(len(texts)), key=lambda i: -scores[i])
        results = []
        for index in order[:request.get("top_n") or len(order)]:
            result = {"index": index, "relevance_score": scores[index]}
            if request.get("return_documents"):
                result["document"] = {"text": texts[index]}
            results.append(result)
        used = sum(map(answers.count_tokens, texts)) + answers.count_tokens(query) * len(texts)
        return plans.json_plan(call, 200, json.dumps({
            "model": request.get("model") or "stub-rerank", "object": "list", "results": results,
            "usage": {"prompt_tokens": used, "total_tokens": used}}).encode())

    def _answer_chat(self, call, request):
        if request.get("n", 1) != 1:
            raise answers.BadRequest("Only one completion choice is allowed")
        prompt = "\n".join(answers.message_text(m.get("content")) for m in request["messages"])
        limit = call.values.get("too_long_chars")
        if limit is not None and len(prompt) > limit:
            error = {"error": {"code": 400, "type": "exceed_context_size_error",
                               "message": "the request exceeds the available context size",
                               "n_prompt_tokens": answers.count_tokens(prompt),
                               "n_ctx": limit // 4}}
            return plans.json_plan(call, 400, json.dumps(error).encode())
        completion = plans.Completion(request, call.questions[0], call.values, prompt)
        if request.get("stream"):
            return plans.stream_plan(call, completion)
        values = call.values
        took = (values.get("first_token_ms", 0)
                + values.get("token_interval_ms", 0) * max(0, len(completion.tokens) - 1))
        call.tokens = len(completion.tokens)
        body = completion.whole(not values.get("no_finish"))
        return plans.json_plan(call, 200, body, took / 1000)

    def _answer_qdrant(self, call, request):
        return plans.json_plan(call, 200, self._corpus.qdrant_query(request).encode())

    def _answer_opensearch(self, call, request, index):
        found = self._corpus.opensearch_search(index, request)
        return plans.json_plan(call, 200, found.encode())

    # Routes

    def on_embeddings(self, conn, head, body, _query):
        self._on_call(conn, "embed", head, body, Server._answer_embed)

    def on_rerank(self, conn, head, body, _query):
        self._on_call(conn, "rerank", head, body, Server._answer_rerank)

    def on_chat(self, conn, head, body, _query):
        self._on_call(conn, "chat", head, body, Server._answer_chat)

    def on_models(self, conn, _head, _body, _query):
        models = [{"id": f"stub-{kind}", "object": "model", "created": 0, "owned_by": "stub"}
                  for kind in ("chat", "embed", "rerank")]
        conn.answer(200, json.dumps({"object": "list", "data": models}).encode())

    def on_health(self, conn, _head, _body, _query):
        conn.answer(200, b'{"status":"ok"}')

    def on_set_behaviour(self, conn, _head, body, _query):
        try:
            self._behaviours.set(json.loads(body))
        except (ValueError, behaviour.BadBehaviour) as error:
            conn.answer(400, json.dumps({"error": {"message": str(error)}}).encode())
            return
        self.on_get_behaviour(conn, None, None, None)

    def on_get_behaviour(self, conn, _head, _body, _query):
        conn.answer(200, json.dumps(self._behaviours.describe()).encode())

    def on_reset(self, conn, _head, body, _query):
        try:
            self.reset(json.loads(body or b"{}").get("keep", ()))
        except (ValueError, AttributeError) as error:
            conn.answer(400, json.dumps({"error": {"message": str(error)}}).encode())
            return
        conn.answer(200, b"{}")

    def on_documents(self, conn, _head, body, _query):
        """Takes the place of all documents, or adds to them where `append` is true."""
        try:
            given = json.loads(body)
            corpus = self._corpus.copy() if given.get("append") else answers.Corpus(self._dim)
            corpus.load(given["documents"])
        except (ValueError, TypeError, KeyError, AttributeError, answers.BadRequest) as error:
            conn.answer(400, json.dumps({"error": {"message": repr(error)}}).encode())
            return
        self._corpus = corpus
        conn.answer(200, json.dumps({"documents": len(corpus)}).encode())

    def on_stats(self, conn, _head, _body, query):
        with_events = urllib.parse.parse_qs(query).get("events") != ["0"]
        found = self.ledger.describe(with_events)
        found["server"] = {"now": time.monotonic_ns(), "connections": len(self.connections),
                           "refused": self.refused, "cpu_s": time.process_time(),
                           "late_ms_max": round(self.timers.late_max * 1000, 3)}
        conn.answer(200, json.dumps(found).encode())

    def on_ledger(self, conn, _head, _body, query):
        since = int(urllib.parse.parse_qs(query).get("since", ["0"])[0])
        conn.answer(200, self.ledger.lines(since).encode(), "application/x-ndjson")

    def on_requests(self, conn, _head, _body, query):
        """The last request bodies of a kind, for tests of what the pipeline sends."""
        kind = urllib.parse.parse_qs(query).get("kind", ["chat"])[0]
        conn.answer(200, json.dumps(list(self._requests.get(kind, ()))).encode())


QDRANT_PATH = re.compile(r"/collections/([^/]+)/points/query\Z")
OPENSEARCH_PATH = re.compile(r"/([^_/][^/]*)/_search\Z")
ROUTES = {
    ("POST", "/v1/embeddings"): Server.on_embeddings,
    ("POST", "/v1/rerank"): Server.on_rerank,
    ("POST", "/v1/chat/completions"): Server.on_chat,
    ("GET", "/v1/models"): Server.on_models,
    ("GET", "/health"): Server.on_health,
    ("POST", "/_control/behaviour"): Server.on_set_behaviour,
    ("GET", "/_control/behaviour"): Server.on_get_behaviour,
    ("POST", "/_control/reset"): Server.on_reset,
    ("POST", "/_control/documents"): Server.on_documents,
    ("GET", "/_control/stats"): Server.on_stats,
    ("GET", "/_control/ledger"): Server.on_ledger,
    ("GET", "/_control/requests"): Server.on_requests,
}


# For tests: the server as a process of its own

class UpstreamProcess:
    """The server on a free port; a context manager. It ends with the process that started it."""

    def __init__(self, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--port", "0", "--with-parent", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline().split()
        if len(line) != 2 or line[0] != "listening":
            self.stop()
            raise RuntimeError("the upstream server did not start")
        self.port = int(line[1])
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        self._process.terminate()
        self._process.wait(10)
        self._process.stdin.close()
        self._process.stdout.close()

    def control(self, path, value=None):
        """POSTs a value to the control API, or GETs where there is none; raises on an error."""
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(f"{self.url}/_control/{path}", data, timeout=30) as answer:
            return answer.read()

    def behave(self, **kinds):
        self.control("behaviour", kinds)

    def reset(self, *keep):
        self.control("reset", {"keep": keep})

    def load(self, documents, append=False):
        self.control("documents", {"documents": documents, "append": append})

    def stats(self, events=True):
        return json.loads(self.control("stats" if events else "stats?events=0"))

    def ledger(self, since=0):
        return [json.loads(line) for line in self.control(f"ledger?since={since}").splitlines()]


def parse_options():
    parser = argparse.ArgumentParser(description="A scriptable model and search server for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--port-file", help="write the port there once it listens")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of the vectors")
    parser.add_argument("--documents", type=int, default=40, help="made-up documents in the stores")
    parser.add_argument("--ledger", help="append one JSON line per event to this file")
    parser.add_argument("--seed", type=int, default=1, help="of error_rate and jitter")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin is closed")
    return parser.parse_args()


async def serve(options):
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if options.with_parent:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    server = Server(loop, options)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", options.port,
                                        backlog=4096)
    port = listener.sockets[0].getsockname()[1]
    print("listening", port, flush=True)
    if options.port_file:
        with open(options.port_file + ".new", "w", encoding="ascii") as file:
            file.write(f"{port}\n")
        os.rename(options.port_file + ".new", options.port_file)
    # A full collection would stop every stream for as long as it takes to walk the ledger.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    await stopped.wait()
    listener.close()
    for conn in list(server.connections):
        conn.transport.abort()


if __name__ == "__main__":
    asyncio.run(serve(parse_options()))
