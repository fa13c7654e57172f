"""What the fake server saw: counters for each kind of call, and a ledger of their events.

Times are CLOCK_MONOTONIC nanoseconds, the same clock in every process of the machine, so that the
ledger can be joined with what a client or a worker wrote down. The events of a call are
  begin   its request is complete
  first   the first token is written
  end     the answer is complete, or was cut or reset as scripted (`outcome` says which)
  abort   the client closed before that
"""

import collections
import json
import time

EVENTS_LIMIT = 100_000
QUESTIONS_LIMIT = 256


class KindStats:
    """The counters of one kind. A call keeps the object it began with, also across a reset."""

    def __init__(self):
        self.calls = self.in_flight = self.peak = 0
        self.completed = self.cut = self.aborted = self.tokens = 0
        self.aborted_times = collections.deque(maxlen=EVENTS_LIMIT)
        self.statuses = collections.Counter()

    def describe(self):
        return {"calls": self.calls, "in_flight": self.in_flight, "peak_concurrency": self.peak,
                "completed": self.completed, "cut": self.cut, "aborted": self.aborted,
                "tokens": self.tokens, "statuses": dict(self.statuses),
                "aborted_times": list(self.aborted_times)}


class Ledger:
    """Counters and events of all kinds; the events also go to a file, one line each, if given."""

    def __init__(self, kinds, path=None):
        self._kinds = kinds
        self._file = open(path, "a", buffering=1, encoding="utf-8") if path else None
        self._next_id = 0
        self.reset()

    def reset(self):
        self.kinds = {kind: KindStats() for kind in self._kinds}
        self._events = collections.deque(maxlen=EVENTS_LIMIT)

    def begin(self, call):
        """Numbers a call and counts it as begun now; the caller has settled closed connections
        before. What it asks is not known yet: note_begin() follows."""
        call.began_ns = time.monotonic_ns()
        self._next_id += 1
        call.id, call.stats = self._next_id, self.kinds[call.kind]
        call.stats.calls += 1
        call.stats.in_flight += 1
        call.stats.peak = max(call.stats.peak, call.stats.in_flight)

    def note_begin(self, call):
        """Writes the begin of a call whose questions are known by now, and its abort if the client
        left in between."""
        questions = [q[:80] for q in call.questions[:QUESTIONS_LIMIT]]
        self._note("begin", call, call.began_ns, questions=questions, request_id=call.request_id)
        if call.aborted_ns:
            self._note("abort", call, call.aborted_ns)

    def first(self, call):
        self._note("first", call, time.monotonic_ns())

    def end(self, call, outcome):
        """`outcome`: an HTTP status for a whole answer, or "cut" or "reset"."""
        call.stats.in_flight -= 1
        call.stats.tokens += call.tokens
        if isinstance(outcome, int):
            call.stats.completed += 1
            call.stats.statuses[str(outcome)] += 1
        else:
            call.stats.cut += 1
        self._note("end", call, time.monotonic_ns(), outcome=outcome)

    def abort(self, call):
        call.stats.in_flight -= 1
        call.stats.aborted += 1
        call.stats.tokens += call.tokens
        call.aborted_ns = time.monotonic_ns()
        call.stats.aborted_times.append(call.aborted_ns)
        if call.questions is not None:
            self._note("abort", call, call.aborted_ns)

    def _note(self, event, call, now, **more):
        entry = {"t": now, "kind": call.kind, "id": call.id, "event": event,
                 "question": call.questions[0][:80] if call.questions else "",
                 "batch": len(call.questions), "tokens": call.tokens, **more}
        line = json.dumps(entry, ensure_ascii=False)
        self._events.append((now, call.kind, line))
        if self._file:
            self._file.write(line + "\n")

    def describe(self, with_events):
        found = {kind: stats.describe() for kind, stats in self.kinds.items()}
        if with_events:
            for kind in found:
                found[kind]["events"] = []
            for _, kind, line in self._events:
                found[kind]["events"].append(json.loads(line))
        return found

    def lines(self, since):
        return "".join(line + "\n" for t, _, line in self._events if t > since)
