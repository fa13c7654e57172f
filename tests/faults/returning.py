"""Callers that lose their connections and come back, to any of several gateways.

Each asks one question and reads its stream strictly, as tests/support/client.py does; the events of
all its connections together must be one stream. What it does in between is its Plan.
"""

import asyncio
import json
import random
import socket
import sys
import threading
import time
from dataclasses import dataclass, field

from cluster import ROOT

sys.path.insert(0, ROOT + "/tests/support")

from client import RST_ON_CLOSE, EventReader, Record  # noqa: E402
from wire import HttpReader, SseReader, WireError  # noqa: E402

COMES_BACK_SECONDS = 30
READ_SECONDS = 130


class Dropped(Exception):
    """The caller hangs up, as its plan says."""


@dataclass
class Plan:
    """`drops`: after how many more deltas each connection is reset, one after the other; `leaves`:
    after the last of them he does not come back; `returns`: whether he does when a connection
    breaks; `key`: of idempotency; `start`: the gateway asked first; `forgets`: he takes
    it that nobody knows his stream any more, since Redis may have lost its state."""

    drops: list = field(default_factory=list)
    leaves: bool = False
    returns: bool = True
    key: str = None
    start: int = 0
    forgets: bool = False


class Caller:
    def __init__(self, number, plan, ports, body):
        self.record = Record(number, plan.leaves)
        self.broken = 0
        self.forgotten = False
        self._plan, self._ports = plan, ports
        self._body = json.dumps({"query": self.record.question, **body}).encode()
        self._reader = EventReader(self.record)
        self._turn = plan.start
        self._last = self._wanted = None
        self._drops = list(plan.drops)

    async def run(self):
        record = self.record
        record.sent_ns = record.due_ns = time.monotonic_ns()
        give_up = None
        while record.terminal is None and record.left_ns is None:
            try:
                await self._connection()
                give_up = None
                if record.terminal is None:
                    break  # A refusal that is not worth a repetition.
            except Dropped:
                if not self._drops and self._plan.leaves:
                    record.left_ns = time.monotonic_ns()
            except (OSError, WireError, EOFError) as error:
                self.broken += 1
                if self._wanted:
                    self._drops.insert(0, self._wanted)
                give_up = give_up or time.monotonic() + COMES_BACK_SECONDS
                if not self._plan.returns:
                    record.left_ns = time.monotonic_ns()
                elif time.monotonic() > give_up or not (record.id or self._plan.key):
                    record.problems.append(f"connection lost: {error}")
                    break
                await asyncio.sleep(0.5)
            self._turn += 1
        record.ended_ns = time.monotonic_ns()
        if record.gaps or record.dups:
            record.problems.append(f"{record.gaps} events missing, {record.dups} twice")
        if record.terminal and record.status == 200 and not record.done_seen:
            record.problems.append("no [DONE]")

    def _request(self, port):
        common = f"Host: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
        if self.record.id:
            last = f"Last-Event-ID: {self._last}\r\n" if self._last else ""
            return (f"GET /v1/queries/{self.record.id}/events HTTP/1.1\r\n"
                    f"{common}{last}\r\n").encode()
        key = f"Idempotency-Key: {self._plan.key}\r\n" if self._plan.key else ""
        return (f"POST /v1/query HTTP/1.1\r\n{common}{key}Content-Type: application/json\r\n"
                f"Content-Length: {len(self._body)}\r\n\r\n").encode() + self._body

    async def _connection(self):
        port = self._ports[self._turn % len(self._ports)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._wanted = self._drops.pop(0) if self._drops else None
        self._head, self._plain, self._over, self._sse = None, bytearray(), False, None
        http = HttpReader(True, self._on_head, self._on_body, self._on_end)
        try:
            writer.write(self._request(port))
            while not self._over:
                data = await asyncio.wait_for(reader.read(65536), READ_SECONDS)
                if not data:
                    http.eof()
                    raise EOFError("closed before the end")
                http.feed(data)
        except asyncio.TimeoutError:
            raise EOFError(f"nothing came for {READ_SECONDS} s") from None
        finally:
            conn = writer.get_extra_info("socket")
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            writer.transport.abort()

    def _on_head(self, head):
        self._head, record = head, self.record
        if head.status == 200:
            record.status, record.id = 200, head.headers["sluice-id"]
            record.request_id = head.headers["x-request-id"]
            record.seen.setdefault(record.request_id, [])
            self._sse = SseReader(self._on_event)
            if self._wanted == 0:
                raise Dropped

    def _on_body(self, data):
        if self._sse:
            self._sse.feed(data)
        else:
            self._plain += data

    def _on_event(self, kind, event_id, data):
        before = self.record.deltas
        self._last = event_id or self._last
        self._reader.on_event(kind, event_id, data)
        if self._wanted is not None and self.record.deltas > before:
            self._wanted -= 1
            if self._wanted == 0:
                raise Dropped

    def _on_end(self):
        self._over = True
        if self._sse:
            self._sse.eof()
            return
        if self._head.status == 503 and (self.record.id or self._plan.key):
            raise EOFError("503")  # Worth coming back.
        if self._head.status == 404 and self._plan.forgets:
            self.forgotten, self.record.left_ns = True, time.monotonic_ns()
        elif self.record.id:
            self.record.problems.append(f"coming back was answered {self._head.status}")
        else:
            self.record.status = self._head.status
            self.record.should_retry = self._head.headers.get("x-should-retry")
        self.record.error = json.loads(self._plain).get("error")


class Returning(threading.Thread):
    """Runs callers at a rate, or so many at once; `plans` has one for each question."""

    def __init__(self, ports, plans, first=0, rate=None, concurrency=50, timeout_ms=60000,
                 **body):
        super().__init__(daemon=True)
        # Several callers of one key ask the same question.
        numbers, self.callers = {}, []
        for nth, plan in enumerate(plans):
            number = numbers.setdefault(plan.key or nth, first + nth)
            self.callers.append(Caller(number, plan, ports, {"timeout_ms": timeout_ms, **body}))
        self.timeout_ms = timeout_ms
        self._rate, self._concurrency = rate, concurrency
        self._error = None
        self.start()

    def run(self):
        try:
            asyncio.run(self._run())
        except Exception as error:  # Raised again where the row waits for it.
            self._error = error

    async def _run(self):
        gate = asyncio.Semaphore(self._concurrency)

        async def one(caller, at):
            if self._rate:
                await asyncio.sleep(at / self._rate)
                await caller.run()
            else:
                async with gate:
                    await caller.run()
        await asyncio.gather(*(one(caller, at) for at, caller in enumerate(self.callers)))

    def records(self, seconds):
        """What the callers saw, once all have ended."""
        self.join(seconds)
        if self._error:
            raise self._error
        if self.is_alive():
            raise AssertionError(f"the callers did not end within {seconds} s")
        return [caller.record.describe() for caller in self.callers]


def dropping(count, seed, last, **plan):
    """Plans of callers whose connections are reset five times, the third without a new event."""
    draw = random.Random(seed)
    return [Plan(drops=[draw.randint(1, last), draw.randint(1, last), 0, draw.randint(1, last),
                        draw.randint(1, last)], start=nth, **plan) for nth in range(count)]
