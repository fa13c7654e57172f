"""Joins what the callers saw, what the gateways say that they gave them, what the scripted upstream
saw and what is on the results topic, and says which invariant was broken. Nothing here asks a worker:
its own metrics are not evidence.

  I1  each accepted request has one terminal event, and at least one result, all equal, that says
      the same
  I2  a stream is one generation: no gaps, no repeats, the text is what the model sent, and each
      account of it (the model's, the gateway's, the caller's) is covered by the one before it
  I3  calls in flight at an upstream never exceed its limit
  I4  no generation begins after an earlier one of the same question showed a token, but for a
      restart that was asked for; further calls within what the row allows
  I5  no group commits an offset beyond a record that its stage is not done with, and its lag
      returns to 0
  I6  no call begins after its request's deadline or lives on past it by more than 500 ms; the
      terminal event comes by then
  I7  no process grows beyond its caps: memory, open files, jobs that it works on
  I9  each process ends with 0, within its time to drain; the sanitizers are silent

I8, the time to recover, is a figure: from the heal, or from the fault where nothing is healed, to
the last ending of the requests that were open then.
"""

import os
import sys
from dataclasses import dataclass, field

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))

from answers import expected_tokens  # noqa: E402

import gateway_ledger  # noqa: E402
import results as result_records  # noqa: E402

KINDS = ("embed", "vector", "keyword", "rerank", "chat")
GRACE_NS = 500_000_000
# Between a client's write and the gateway's clock, on a busy machine.
ACCEPT_NS = 100_000_000


@dataclass
class Request:
    """One question as its caller saw it. Times are CLOCK_MONOTONIC ns; `id` is None where nothing
    came back. `terminal` is what the stream or the response said; a request that went straight to
    Kafka has only its result."""

    question: str
    id: str = None
    accepted: bool = False
    streamed: bool = True
    terminal: str = None
    code: str = None
    text: str = ""
    restarts: int = 0
    problems: list = field(default_factory=list)
    sent_ns: int = 0
    left_ns: int = None
    ended_ns: int = None
    timeout_ms: int = 60000
    seen: dict = field(default_factory=dict)  # {x-request-id: [event id, ...]}

    @property
    def deadline_ns(self):
        return self.sent_ns + self.timeout_ms * 1_000_000

    @property
    def over_ns(self):
        return self.left_ns or self.ended_ns


def request_of(record, timeout_ms):
    """A Request from a record of tests/support/client.py."""
    error = record["error"] or {}
    terminal = record["terminal"] or ("error" if error and record["status"] != 200 else None)
    accepted = record["status"] == 200 or record["should_retry"] == "false"
    return Request(question=record["question"], id=record["id"], accepted=accepted,
                   terminal=terminal, code=error.get("code"), text=record["text"],
                   restarts=record["restarts"], problems=record["problems"],
                   sent_ns=record["sent_ns"] or 0, left_ns=record["left_ns"],
                   ended_ns=record["ended_ns"], timeout_ms=timeout_ms, seen=record["seen"])


@dataclass
class Call:
    """One call as the upstream saw it; `over_ns` is None while it lasts."""

    kind: str
    questions: list
    began_ns: int
    first_ns: int = None
    over_ns: int = None
    outcome: object = None
    tokens: int = 0

    def answered(self):
        return self.outcome == 200

    def lasts_to(self, now):
        return self.over_ns or now


def calls_of(events):
    """The calls of a ledger, in the order in which they began."""
    calls = {}
    for event in sorted(events, key=lambda e: (e["event"] != "begin", e["t"])):
        key = (event["kind"], event["id"])
        if event["event"] == "begin":
            calls[key] = Call(event["kind"], event["questions"], event["t"])
        elif key in calls:
            call = calls[key]
            if event["event"] == "first":
                call.first_ns = event["t"]
            else:
                call.over_ns, call.tokens = event["t"], event["tokens"]
                call.outcome = event.get("outcome", "abort")
    return sorted(calls.values(), key=lambda c: c.began_ns)


@dataclass
class Rules:
    """What a row allows. `codes`: errors by their most; `chat_calls`: generations of one question
    begun at most; `repeated`: calls of something that was already answered, in all, None for any;
    `over_limit`: where the documented exception applies; `text_known`: the tokens are those of
    upstream.py; `tokens`: how many a whole answer has."""

    codes: dict = field(default_factory=dict)
    chat_calls: int = 1
    repeated: int = 0
    limits: dict = field(default_factory=dict)
    over_limit: bool = False
    silent_repeats: bool = False
    tokens: int = 40
    refused: int = 0
    unread: bool = False
    rss_mb: int = 300
    fds: int = 256
    depth: int = 1024


@dataclass
class Findings:
    """Violations as (invariant, text), and the figures of the table."""

    violations: list = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    lost: int = 0
    repeated: int = 0
    silent: int = 0
    spliced: int = 0
    over_limit_ms: float = 0.0
    skipped: int = 0
    reprocessed: int = 0
    peaks: dict = field(default_factory=dict)
    wasted_ms: float = 0.0
    recovery_s: float = None
    endings: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def add(self, invariant, text):
        self.violations.append((invariant, text))


def check(requests, events, topic, rules, now_ns, fault_ns=None, heal_ns=None, given=None):
    """The Findings of a run; `topic` is {query id: [payload, ...]}, `given` that of
    gateway_ledger.py."""
    found = Findings(requests=len(requests))
    calls = calls_of(events)
    for request in requests:
        _check_terminal(found, request, topic, rules)
        _check_stream(found, request, rules)
    _check_endings(found, requests, rules)
    _check_limits(found, calls, rules, now_ns)
    _check_spend(found, requests, calls, rules)
    _check_deadlines(found, requests, calls, rules, now_ns)
    if given is not None:
        for text in gateway_ledger.breaches(requests, calls, given):
            found.add("I2", text)
    at = heal_ns or fault_ns
    if at:
        ends = [r.ended_ns for r in requests if r.ended_ns and r.sent_ns <= at < r.ended_ns]
        found.recovery_s = (max(ends) - at) / 1e9 if ends else 0.0
    return found


def _name(request):
    return f"{request.question.split(':')[0]} ({request.id})"


def _check_terminal(found, request, topic, rules):
    if not request.accepted:
        found.refused += 1
        return
    name = _name(request)
    expects_end = request.streamed and request.left_ns is None and not rules.unread
    if expects_end and request.terminal is None:
        found.lost += 1
        found.add("I1", f"{name} has no terminal event: {request.problems[:2]}")
    payloads = topic.get(request.id, [])
    if not payloads:
        found.lost += not (expects_end and request.terminal is None)
        found.add("I1", f"{name} has no result on the topic, its caller saw {request.terminal}")
        return
    if any(p != payloads[0] for p in payloads):
        found.add("I1", f"{name} has {len(payloads)} results that differ")
    result = result_records.decode(payloads[0])
    code = (result.get("error") or {}).get("code")
    if expects_end and (result["outcome"] == "done") != (request.terminal == "done"):
        found.add("I1", f"{name} ended as {request.terminal} {request.code}, its result says "
                        f"{result['outcome']} {code}")
    if not request.streamed:
        request.terminal = "done" if result["outcome"] == "done" else "error"
        request.code, request.text = code, result["answer"] or ""


def _check_stream(found, request, rules):
    if not request.accepted:
        return
    whole = "".join(expected_tokens(request.question, rules.tokens))
    problems = [p for p in request.problems if not _is_of_the_connection(p)]
    if not (request.text == whole if request.terminal == "done" else
            whole.startswith(request.text)):
        problems.append(f"text that the model did not send: {request.text[-60:]!r}")
    if problems:
        found.spliced += 1
        found.add("I2", f"{_name(request)}: {problems[:3]}")


def _is_of_the_connection(problem):
    return problem.startswith(("connection", "cannot connect", "no end within"))


def _check_endings(found, requests, rules):
    """Counts how requests ended, and those that a row does not allow to."""
    for request in requests:
        ending = request.code or request.terminal
        if not request.accepted:
            ending = f"refused {request.code}" if request.terminal else "no answer"
        elif request.left_ns is not None:
            ending = "left"
        found.endings[ending or "nothing"] = found.endings.get(ending or "nothing", 0) + 1
    for ending, count in found.endings.items():
        if ending in ("done", "left", "nothing") or (rules.unread and ending == "no answer"):
            continue
        if ending.startswith(("refused", "no answer")):
            continue
        if count > rules.codes.get(ending, 0):
            found.add("I1", f"{count} requests ended with {ending}, "
                            f"the row allows {rules.codes.get(ending, 0)}")
    if found.refused > rules.refused:
        found.add("I1", f"{found.refused} requests were refused, the row allows {rules.refused}")


def _check_limits(found, calls, rules, now_ns):
    for kind in KINDS:
        limit, level, since = rules.limits.get(kind), 0, 0
        steps = sorted([(c.began_ns, 1) for c in calls if c.kind == kind]
                       + [(c.lasts_to(now_ns), -1) for c in calls if c.kind == kind])
        over_ns = 0
        for at, step in steps:
            if limit is not None and level > limit:
                over_ns += at - since
            level, since = level + step, at
            found.peaks[kind] = max(found.peaks.get(kind, 0), level)
        found.over_limit_ms += over_ns / 1e6
        if over_ns and not rules.over_limit:
            found.add("I3", f"{kind}: {found.peaks[kind]} calls at a limit of {limit}, "
                            f"{over_ns / 1e6:.0f} ms above it")


def _check_spend(found, requests, calls, rules):
    by_question = {}
    for call in calls:
        for question in call.questions:
            by_question.setdefault((call.kind, question), []).append(call)
    for request in requests:
        for kind in KINDS:
            of_it = by_question.get((kind, request.question[:80]), [])
            found.repeated += _repeated(of_it)
            if kind == "chat":
                _check_generations(found, request, of_it, rules)
    if rules.repeated is not None and found.repeated > rules.repeated:
        found.add("I4", f"{found.repeated} calls repeat an answered one, the row allows "
                        f"{rules.repeated}")


def _repeated(calls):
    """Calls that began after an earlier one of the same question had been answered."""
    return sum(any(e.answered() and e.over_ns <= c.began_ns for e in calls[:at])
               for at, c in enumerate(calls))


def _check_generations(found, request, calls, rules):
    if len(calls) > rules.chat_calls:
        found.add("I4", f"{_name(request)} began {len(calls)} generations, the row allows "
                        f"{rules.chat_calls}")
    again = sum(any(e.first_ns and e.first_ns < c.began_ns for e in calls[:at])
                for at, c in enumerate(calls))
    if again > request.restarts:
        found.silent += again - request.restarts
        if not rules.silent_repeats:
            found.add("I4", f"{_name(request)} was generated again after its first token, "
                            f"{again} times with {request.restarts} restarts told")
    if request.over_ns and request.terminal != "done":
        found.wasted_ms += sum(max(0, c.over_ns - request.over_ns) / 1e6 for c in calls
                               if c.over_ns and c.began_ns < request.over_ns)


def _check_deadlines(found, requests, calls, rules, now_ns):
    deadlines = {r.question[:80]: r.deadline_ns for r in requests if r.sent_ns}
    for call in calls:
        # A batch lasts as long as one of its members.
        ends = [deadlines[q] for q in call.questions if q in deadlines]
        if not ends:
            continue
        late = (call.began_ns - max(ends) - ACCEPT_NS) / 1e6
        if late > 0:
            found.add("I6", f"{call.kind} of {call.questions[0].split(':')[0]} began {late:.0f} ms "
                            "after the deadline")
        elif call.lasts_to(now_ns) > max(ends) + ACCEPT_NS + GRACE_NS and not rules.over_limit:
            late = (call.lasts_to(now_ns) - max(ends)) / 1e6
            found.add("I6", f"{call.kind} of {call.questions[0].split(':')[0]} was open {late:.0f} "
                            "ms after the deadline")
    for request in requests:
        if request.ended_ns and not request.left_ns:
            late = (request.ended_ns - request.deadline_ns) / 1e6
            if late > (GRACE_NS + ACCEPT_NS) / 1e6:
                found.add("I6", f"{_name(request)} ended {late:.0f} ms after its deadline")


def check_offsets(found, account):
    """I5, of an offsets.Account: a record's first commit is the first that goes beyond it."""
    by_partition, reached = {}, {}
    for commit in account.commits:
        at = (commit.topic, commit.partition)
        by_partition.setdefault(at, []).append(commit)
        reached[at] = commit.offset
    for record, done_ms in account.done:
        commits = by_partition.get((record.topic, record.partition), ())
        beyond = next((c for c in commits if c.offset > record.offset), None)
        if beyond and (done_ms is None or done_ms > beyond.at_ms):
            found.skipped += 1
            when = "never" if done_ms is None else f"{done_ms - beyond.at_ms} ms later"
            found.add("I5", f"{record.topic}:{record.partition} committed up to {beyond.offset}, "
                            f"its record {record.offset} ({record.id}) was done {when}")
    for at, end in account.ends.items():
        if reached.get(at, 0) != end:
            found.add("I5", f"{at[0]}:{at[1]} ends at {end}, its last commit is "
                            f"{reached.get(at, 'none')}")
    found.reprocessed = account.again


@dataclass
class Usage:
    """The most that a process was seen to hold."""

    rss_mb: float = 0.0
    fds: int = 0
    depth: int = 0


def check_usage(found, usage, rules, rss_factor=1):
    """I7, of {program: Usage}."""
    for name, most in usage.items():
        for what, value, cap in (("MB", most.rss_mb, rules.rss_mb * rss_factor),
                                 ("open files", most.fds, rules.fds),
                                 ("jobs at once", most.depth, rules.depth)):
            if value > cap:
                found.add("I7", f"{name} held {value:.0f} {what}, its cap is {cap:.0f}")
