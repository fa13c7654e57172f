"""What the gateways say that they gave their callers: the lines of their logs at level debug.

A ledger is {(query id, request id): Given}: the events of one request in the order of the log.
"""

import re
from dataclasses import dataclass, field

LINE = re.compile(r" \"(accept|event|leave)\" id=(\S+) request_id=(\S+) (?:attempt=(\d+) seq=(\d+) "
                  r"type=(\w+) )?fed=\w+ mono_ns=(\d+)\n")
TERMINAL = ("done", "error")


@dataclass
class Given:
    """What one request was given; `cut`: its gateway was killed, the last lines may be missing."""

    events: list = field(default_factory=list)  # (event id, type, mono_ns)
    cut: bool = False

    def ids(self):
        return [event_id for event_id, _, _ in self.events]


def read(lines, ledger, cut=False):
    """Adds the lines of one gateway's log."""
    for line in lines:
        found = LINE.search(line)
        if found:
            said, query, request, attempt, seq, kind, at = found.groups()
            given = ledger.setdefault((query, request), Given(cut=cut))
            if said == "event":
                given.events.append((f"{attempt}:{seq}", kind, int(at)))
    return ledger


def breaches(requests, calls, ledger):
    """What the accounts of the gateways, their callers and the models do not agree on."""
    for (query, _), given in ledger.items():
        yield from _of_one(query, given)
    chats = {}
    for call in calls:
        for question in call.questions:
            if call.kind == "chat":
                chats.setdefault(question, []).append(call)
    for request in requests:
        for request_id, seen in request.seen.items():
            given = ledger.get((request.id, request_id))
            yield from _of_caller(request, seen, given)
            if given:
                yield from _of_model(request, given, chats.get(request.question[:80], []))


def _of_one(query, given):
    ids = given.ids()
    twice = len(ids) - len(set(ids))
    if twice:
        yield f"{query}: a gateway gave {twice} events twice to one caller"
    kinds = [kind for _, kind, _ in given.events]
    if any(kind in TERMINAL for kind in kinds[:-1]):
        yield f"{query}: a gateway gave events after the end: {kinds[-3:]}"


def _of_caller(request, seen, given):
    if given is None:
        yield f"{request.id}: no gateway knows of a stream that its caller read"
        return
    ids = given.ids()
    # What a killed gateway gave last may not have reached its log.
    if seen != ids[:len(seen)] and not (given.cut and ids == seen[:len(ids)]):
        at = next((n for n, pair in enumerate(zip(seen, ids)) if pair[0] != pair[1]), len(ids))
        yield (f"{request.id}: its caller saw {len(seen)} events, its gateway gave {len(ids)}; they "
               f"differ at {at}: {seen[at:at + 2]}, {ids[at:at + 2]}")


def _of_model(request, given, calls):
    deltas = [at for _, kind, at in given.events if kind == "delta"]
    # The model's own note of its first token can come after the token.
    if deltas and not (calls and min(call.began_ns for call in calls) <= min(deltas)):
        yield f"{request.id}: a gateway gave text before the model was asked"
    elif deltas and len(deltas) > sum(call.tokens for call in calls):
        yield (f"{request.id}: a gateway gave {len(deltas)} pieces of text, the model sent "
               f"{sum(call.tokens for call in calls)}")
