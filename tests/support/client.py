#!/usr/bin/env python3
"""A load client for the gateway that checks every byte of what it gets.

Each request asks a question of its own ("Question 17: ..."), and where the models are those of
upstream.py the tokens of its answer are known, so the client compares the whole text. Streams are
read strictly: event ids without gaps or repeats, one terminal event, `[DONE]` last.

Closed loop: `--concurrency` connections, opened before the clock starts, each asking one question
after the other. Open loop (`--rate`): questions start at fixed times whatever the answers do; each
is timed from when it was due, so that a stall counts against all that it delayed.

Some clients can leave early (`--leave-fraction`). With `--upstream` the client then joins what it
did with the ledger of upstream.py: how long each model call lived on after its caller had left, and
which calls began after that.
"""

import argparse
import asyncio
import json
import math
import os
import random
import socket
import struct
import sys
import time
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from answers import expected_tokens
from wire import HttpReader, SseReader, WireError

MODES = ("query-sse", "query-json", "chat-sse")
TOPICS = ("what keeps a consumer's place when a worker restarts?",
          "how long is a permit held after its worker died?",
          "which topic holds work that could not be done?",
          "what happens to a stream when its gateway stops?",
          "when is an expired question dropped?")
TERMINAL = ("done", "error")
RST_ON_CLOSE = struct.pack("ii", 1, 0)


def question_text(number):
    return f"Question {number}: {TOPICS[number % len(TOPICS)]}"


class Record:
    """What happened to one request. Times `*_ns` are CLOCK_MONOTONIC."""

    def __init__(self, number, leaves):
        self.number = number
        self.question = question_text(number)
        self.leaves = leaves
        self.id = None
        self.status = 0
        self.should_retry = None
        self.due_ns = self.sent_ns = self.left_ns = self.ended_ns = None
        self.ttft_ms = self.total_ms = self.max_gap_ms = None
        self.deltas = 0
        self.text = ""
        self.sources = None
        self.terminal = None
        self.error = None
        self.done_seen = False
        self.gaps = self.dups = self.restarts = 0
        self.problems = []
        self.request_id = None
        self.seen = {}  # {x-request-id: [event id, ...]}
        self.verdict = None

    def describe(self):
        return dict(self.__dict__)


class EventReader:
    """Follows the events of `query-sse`: ATTEMPT:SEQ in order, one terminal event, then [DONE]."""

    def __init__(self, record):
        self._record = record
        self._attempt = self._next_seq = 0

    def on_event(self, kind, event_id, data):
        record = self._record
        if record.done_seen:
            record.problems.append("event after [DONE]")
        elif data == "[DONE]":
            record.done_seen = True
            if record.terminal is None:
                record.problems.append("[DONE] without a terminal event")
        elif record.terminal is not None:
            record.problems.append(f"event {kind} after the terminal one")
        else:
            self._on_typed(kind, event_id, data)

    def _on_typed(self, kind, event_id, data):
        record = self._record
        try:
            attempt, seq = map(int, event_id.split(":"))
            value = json.loads(data)
            told = (value["type"], value["attempt"], value["seq"], value["id"])
        except (AttributeError, KeyError, TypeError, ValueError):
            record.problems.append(f"bad event {kind} {event_id}")
            return
        record.seen.setdefault(record.request_id, []).append(event_id)
        if told != (kind, attempt, seq, record.id or told[3]):
            record.problems.append(f"event {kind} {event_id} has data of {told}")
        self._count(kind, attempt, seq)
        if kind == "sources":
            record.sources = value.get("source_chunks")
        elif kind == "delta":
            record.deltas += 1
            record.text += value.get("text", "")
        elif kind == "restart":
            record.restarts += 1
            record.text = ""
        elif kind in TERMINAL:
            record.terminal = kind
            record.error = value.get("error")
        else:
            record.problems.append(f"unknown event {kind}")

    def _count(self, kind, attempt, seq):
        record = self._record
        if attempt > self._attempt:
            if self._attempt > 0 and record.deltas and kind != "restart":
                record.problems.append(f"attempt {attempt} without a restart event")
            self._attempt, self._next_seq = attempt, 0
        if attempt < self._attempt or seq < self._next_seq:
            record.dups += 1
            return
        record.gaps += seq - self._next_seq
        self._next_seq = seq + 1


class ChunkReader:
    """Follows the chunks of `chat-sse`."""

    def __init__(self, record):
        self._record = record

    def on_event(self, kind, event_id, data):
        record = self._record
        if record.done_seen:
            record.problems.append("event after [DONE]")
        elif data == "[DONE]":
            record.done_seen = True
        elif kind is not None or event_id is not None:
            record.problems.append("a chat chunk has no event type or id")
        else:
            self._on_chunk(data)

    def _on_chunk(self, data):
        record = self._record
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                record.terminal, record.error = "error", chunk["error"]
                return
            if "citations" in chunk and record.sources is None:
                record.sources = chunk["citations"]
            for choice in chunk["choices"]:
                if choice["delta"].get("content"):
                    record.deltas += 1
                    record.text += choice["delta"]["content"]
                if choice.get("finish_reason"):
                    record.terminal = "done"
        except (AttributeError, KeyError, TypeError, ValueError):
            record.problems.append(f"bad chunk {data[:80] if data else data}")


class Connection(asyncio.Protocol):
    """One connection; asks one question at a time and is used again where the server allows it."""

    def __init__(self, options):
        self._options = options
        self._record = None
        self.usable = True

    def connection_made(self, transport):
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = HttpReader(True, self._on_head, self._on_body, self._on_end)

    async def ask(self, record, request):
        """Sends the request; returns when its answer is complete, broken, or left."""
        loop = asyncio.get_running_loop()
        self._record, self._body, self._sse = record, bytearray(), None
        self._finished = loop.create_future()
        self._last_delta_ns = None
        record.sent_ns = time.monotonic_ns()
        record.due_ns = record.due_ns or record.sent_ns
        self._transport.write(request)
        timers = [loop.call_later(self._options.timeout, self._on_timeout)]
        if record.leaves and self._options.leave_unit == "ms":
            timers.append(loop.call_later(self._options.leave_count / 1000, self._leave))
        try:
            await self._finished
        finally:
            for timer in timers:
                timer.cancel()

    def close(self):
        self._transport.close()

    def data_received(self, data):
        if self._record is None:
            self.usable = False
            self._transport.close()
            return
        try:
            self._reader.feed(data)
        except WireError as error:
            if self._record:
                self._break(str(error))

    def eof_received(self):
        self.usable = False
        if self._record:
            try:
                self._reader.eof()
            except WireError as error:
                self._break(str(error))

    def connection_lost(self, error):
        self.usable = False
        if self._record:
            self._break(f"connection lost: {error or 'closed before the answer'}")

    def _break(self, problem):
        self._record.problems.append(problem)
        self.usable = False
        self._transport.close()
        self._finish()

    def _finish(self):
        record = self._record
        record.ended_ns = time.monotonic_ns()
        self._record = None
        self._finished.set_result(None)

    def _on_timeout(self):
        if self._record:
            self._break("no end within the client's time-out")

    def _leave(self):
        if self._record is None:
            return
        self.usable = False
        if self._options.leave_how == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self._record.left_ns = time.monotonic_ns()
        self._transport.abort()
        self._finish()

    def _on_head(self, head):
        record = self._record
        if record is None:
            raise WireError("an answer that nobody asked for")
        record.status = head.status
        record.id = head.headers.get("sluice-id")
        record.request_id = head.headers.get("x-request-id")
        record.should_retry = head.headers.get("x-should-retry")
        self.usable = head.keeps_alive()
        if head.headers.get("content-type", "").startswith("text/event-stream"):
            chat = self._options.mode == "chat-sse"
            self._events = ChunkReader(record) if chat else EventReader(record)
            self._sse = SseReader(self._events.on_event)

    def _on_body(self, data):
        if self._record is None:
            return
        if self._sse is None:
            self._body += data
            return
        record, before = self._record, self._record.deltas
        self._sse.feed(data)
        if record.deltas > before:
            self._on_deltas(record)

    def _on_deltas(self, record):
        now = time.monotonic_ns()
        if self._last_delta_ns is None:
            record.ttft_ms = (now - record.due_ns) / 1e6
        else:
            gap = (now - self._last_delta_ns) / 1e6
            record.max_gap_ms = max(record.max_gap_ms or 0.0, gap)
        self._last_delta_ns = now
        if record.leaves and self._options.leave_unit == "tokens":
            if record.deltas >= self._options.leave_count:
                self._leave()

    def _on_end(self):
        record = self._record
        if record is None:
            return
        record.total_ms = (time.monotonic_ns() - record.due_ns) / 1e6
        if self._sse is not None:
            self._sse.eof()
        else:
            self._on_json(record)
        self._finish()

    def _on_json(self, record):
        try:
            value = json.loads(self._body)
            record.error = value.get("error")
            if self._options.mode == "query-json" and record.status == 200:
                record.terminal = value["outcome"]
                record.text = value["answer"] or ""
                record.sources = value["source_chunks"]
        except (AttributeError, KeyError, ValueError):
            record.problems.append("the body is not the JSON that it should be")


class Load:
    """Asks all questions, closed or open loop."""

    def __init__(self, options):
        self._options = options
        address = urllib.parse.urlsplit(options.url)
        self._host, self._port = address.hostname, address.port or 80
        self._idle = []
        draw = random.Random(options.seed)
        numbers = range(options.first, options.first + options.n)
        self.records = [Record(n, draw.random() < options.leave_fraction) for n in numbers]

    async def run(self):
        if self._options.rate:
            await self._open_loop()
        else:
            await self._closed_loop()
        for conn in self._idle:
            conn.close()

    async def _closed_loop(self):
        count = min(self._options.concurrency, self._options.n)
        self._idle = [await self._connect() for _ in range(count)]
        left = iter(self.records)

        async def one_after_the_other():
            for record in left:
                await self._ask(record)
        await asyncio.gather(*(one_after_the_other() for _ in range(count)))

    async def _open_loop(self):
        began, tasks = time.monotonic_ns(), []
        for place, record in enumerate(self.records):
            record.due_ns = began + int(place * 1e9 / self._options.rate)
            wait = (record.due_ns - time.monotonic_ns()) / 1e9
            if wait > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._ask(record)))
        await asyncio.gather(*tasks)

    async def _connect(self):
        loop = asyncio.get_running_loop()
        _, conn = await loop.create_connection(lambda: Connection(self._options), self._host,
                                               self._port)
        return conn

    async def _ask(self, record):
        conn = None
        while self._idle and conn is None:
            candidate = self._idle.pop()
            conn = candidate if candidate.usable else None
        try:
            conn = conn or await self._connect()
        except OSError as error:
            record.problems.append(f"cannot connect: {error}")
            return
        await conn.ask(record, self._request(record))
        if conn.usable:
            self._idle.append(conn)

    def _request(self, record):
        options = self._options
        if options.mode == "chat-sse":
            path, accept = "/v1/chat/completions", "text/event-stream"
            body = {"model": options.model, "stream": True,
                    "messages": [{"role": "user", "content": record.question}],
                    "stream_options": {"include_usage": True}}
        else:
            path, body = "/v1/query", {"query": record.question}
            json_only = options.mode == "query-json"
            accept = "application/json" if json_only else "text/event-stream"
        body.update(options.body)
        data = json.dumps(body).encode()
        extra = "".join(f"{line}\r\n" for line in options.header)
        return (f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: {accept}\r\n"
                f"Content-Type: application/json\r\n{extra}"
                f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def judge(record, options):
    """Sets the verdict: ok, left, failed (an error said so) or broken (something is wrong)."""
    if record.left_ns is not None:
        record.verdict = "broken" if record.problems or record.gaps or record.dups else "left"
        return
    streamed = options.mode != "query-json"
    if record.gaps or record.dups:
        record.problems.append(f"{record.gaps} events missing, {record.dups} twice")
    if record.status == 200 and streamed and not record.done_seen and not record.problems:
        record.problems.append("no [DONE]")
    if record.status == 200 and record.terminal is None and not record.problems:
        record.problems.append("no terminal event")
    if record.terminal == "done" and options.tokens:
        if record.text != "".join(expected_tokens(record.question, options.tokens)):
            record.problems.append("the text differs from what the model sent")
    if record.problems:
        record.verdict = "broken"
    else:
        good = record.status == 200 and record.terminal == "done"
        record.verdict = "ok" if good else "failed"


def percentile(values, share):
    """The nearest-rank percentile of a list that is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values):
    values = [v for v in values if v is not None]
    if not values:
        return None
    return {"n": len(values), "min": min(values), "p50": percentile(values, 0.5),
            "p90": percentile(values, 0.9), "p99": percentile(values, 0.99), "max": max(values)}


def leave_report(records, events):
    """Joins the clients that left with the ledger of upstream.py, by question: for each kind how
    long a call lived on after its caller left, and how many began only then."""
    left = {r.question[:80]: r.left_ns for r in records if r.left_ns is not None}
    begun, found = {}, {}
    for event in events:
        kind = found.setdefault(event["kind"], {"closed_after_ms": [], "ended_after": 0,
                                                "begun_after": 0})
        key = (event["kind"], event["id"])
        if event["event"] == "begin":
            begun[key] = event
            # A batch is only wasted work when all of its callers have left.
            times = [left.get(q) for q in event["questions"]]
            if times and None not in times and event["t"] > max(times):
                kind["begun_after"] += 1
        elif event["event"] in ("abort", "end") and key in begun:
            times = [left.get(q) for q in begun[key]["questions"]]
            if times and None not in times and begun[key]["t"] <= max(times) < event["t"]:
                if event["event"] == "abort":
                    kind["closed_after_ms"].append((event["t"] - max(times)) / 1e6)
                else:
                    kind["ended_after"] += 1
    for kind in found.values():
        kind["closed_after_ms"] = summary(kind["closed_after_ms"])
    return found


def count_by(records, key):
    counts = {}
    for record in records:
        counts[key(record)] = counts.get(key(record), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: str(item[0])))


def report(records, options):
    ends = [r.ended_ns for r in records if r.ended_ns]
    starts = [r.due_ns for r in records if r.due_ns]
    seconds = (max(ends) - min(starts)) / 1e9 if ends and starts else 0.0
    ended = [r for r in records if r.left_ns is None]
    found = {
        "mode": options.mode, "n": len(records), "seconds": seconds,
        "answers_per_s": sum(r.verdict == "ok" for r in records) / seconds if seconds else 0.0,
        "verdicts": count_by(records, lambda r: r.verdict),
        "statuses": count_by(records, lambda r: r.status),
        "ttft_ms": summary([r.ttft_ms for r in records]),
        "total_ms": summary([r.total_ms for r in ended]),
        "max_gap_ms": summary([r.max_gap_ms for r in records]),
        "gaps": sum(r.gaps for r in records), "dups": sum(r.dups for r in records),
        "restarts": sum(r.restarts for r in records),
        "problems": count_by([(p,) for r in records for p in r.problems], lambda p: p[0]),
        "errors": count_by([r for r in ended if r.error], lambda r: json.dumps(r.error)[:120]),
    }
    if options.ideal_ms is not None and found["ttft_ms"]:
        found["ttft_above_ideal_ms"] = {name: value - options.ideal_ms for name, value
                                        in found["ttft_ms"].items() if name != "n"}
    return found


def print_times(name, values):
    if values:
        cells = "".join(f"{values[k]:10.1f}" for k in ("min", "p50", "p90", "p99", "max"))
        print(f"{name:<24}{cells}")


def print_report(found, leavers):
    print(f"{found['mode']}: {found['n']} requests in {found['seconds']:.2f} s, "
          f"{found['answers_per_s']:.1f} good answers/s")
    for name, label in (("verdicts", "verdict"), ("statuses", "status"), ("errors", "error"),
                        ("problems", "problem")):
        for key, count in found[name].items():
            print(f"  {label:<10} {count:>6}  {key}")
    print(f"  events missing {found['gaps']}, twice {found['dups']}, restarts {found['restarts']}")
    print(f"{'ms':<24}{'min':>10}{'p50':>10}{'p90':>10}{'p99':>10}{'max':>10}")
    print_times("first token", found["ttft_ms"])
    print_times("first token - ideal", found.get("ttft_above_ideal_ms"))
    print_times("whole answer", found["total_ms"])
    print_times("longest pause", found["max_gap_ms"])
    for kind, row in (leavers or {}).items():
        print_times(f"left, {kind} closed", row["closed_after_ms"])
        print(f"  {kind}: begun after leaving {row['begun_after']}, "
              f"ran to its end {row['ended_after']}")


def leave_at(text):
    unit, _, count = text.partition(":")
    if unit not in ("tokens", "ms") or not count.isdigit() or int(count) < 1:
        raise argparse.ArgumentTypeError("tokens:N or ms:N")
    return unit, int(count)


def parse_options(arguments=None):
    parser = argparse.ArgumentParser(description="Load for the gateway, every token checked.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--mode", choices=MODES, default="query-sse")
    parser.add_argument("--n", type=int, default=100, help="requests in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first question")
    parser.add_argument("--concurrency", type=int, default=100, help="of the closed loop")
    parser.add_argument("--rate", type=float, help="open loop: questions per second")
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds for each request")
    parser.add_argument("--tokens", type=int, default=50,
                        help="tokens that upstream.py sends; 0 compares no text")
    parser.add_argument("--model", default="sluice", help="of chat-sse")
    parser.add_argument("--body", type=json.loads, default={}, help="more fields, a JSON object")
    parser.add_argument("--header", action="append", default=[], help="one more 'name: value'")
    parser.add_argument("--leave-fraction", type=float, default=0.0)
    parser.add_argument("--leave-at", type=leave_at, default=("tokens", 20),
                        metavar="tokens:N|ms:N")
    parser.add_argument("--leave-how", choices=("reset", "close"), default="reset",
                        help="RST (SO_LINGER 0) or a plain close")
    parser.add_argument("--seed", type=int, default=1, help="of who leaves")
    parser.add_argument("--ideal-ms", type=float, help="also print TTFT minus this")
    parser.add_argument("--upstream", metavar="URL", help="of upstream.py, to follow who left")
    parser.add_argument("--json", metavar="FILE", help="write the report and all records")
    options = parser.parse_args(arguments)
    options.leave_unit, options.leave_count = options.leave_at
    return options


def fetch_ledger(url, since):
    # The close of the last one to leave may still be on its way through the pipeline.
    time.sleep(1.0)
    with urllib.request.urlopen(f"{url}/_control/ledger?since={since}", timeout=30) as answer:
        return [json.loads(line) for line in answer.read().splitlines()]


def main():
    options = parse_options()
    began = time.monotonic_ns()
    load = Load(options)
    asyncio.run(load.run())
    for record in load.records:
        judge(record, options)
    found, leavers = report(load.records, options), None
    if options.upstream:
        leavers = leave_report(load.records, fetch_ledger(options.upstream, began))
        found["leavers"] = leavers
    print_report(found, leavers)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"report": found, "records": [r.describe() for r in load.records]}, file)
    return 0 if found["verdicts"].keys() <= {"ok", "left"} else 1


if __name__ == "__main__":
    sys.exit(main())
