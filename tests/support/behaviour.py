"""How the fake server is told to behave: rules for each kind of call.

A kind (embed, rerank, chat, vector, keyword) has one default rule and any number of rules that
apply only to requests whose body contains their `match`. Such a rule inherits the default's values,
so it says only what differs. The first rule that matches wins, in the order of their posting.

The keys in FAULTS are faults. `error_rate` makes the faults of its rule happen to a share of the
calls, `fail_times` to the first k calls of the rule; the others are served well, with the same
timing. Either alone means `error_status` 500.
"""

import json
import random

KINDS = ("embed", "rerank", "chat", "vector", "keyword")

_NUMBER = (int, float)
KEYS = {
    "match": str, "latency_ms": _NUMBER, "jitter_ms": _NUMBER, "tokens": int,
    "token_interval_ms": _NUMBER, "first_token_ms": _NUMBER, "error_status": int,
    "error_rate": _NUMBER, "retry_after_s": _NUMBER, "hang": bool, "hang_headers": bool,
    "cut_after_tokens": int, "reset_after_tokens": int, "stall_after_tokens": int,
    "no_finish": bool, "error_event_after_tokens": int, "malformed_after_tokens": int,
    "split_bytes": int, "fail_times": int, "finish_reason": str, "too_long_chars": int,
}
FAULTS = ("error_status", "hang", "hang_headers", "cut_after_tokens", "reset_after_tokens",
          "stall_after_tokens", "no_finish", "error_event_after_tokens", "malformed_after_tokens")


class BadBehaviour(Exception):
    """A rule that makes no sense; the text says which key of which kind."""


def _checked(kind, rule):
    if not isinstance(rule, dict):
        raise BadBehaviour(f"{kind}: a behaviour is an object")
    for name, value in rule.items():
        if name not in KEYS:
            raise BadBehaviour(f"{kind}: unknown key {name!r}")
        wanted = KEYS[name]
        if value is None:
            continue
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise BadBehaviour(f"{kind}: {name} has the wrong type")
        if not isinstance(value, (str, bool)) and value < 0:
            raise BadBehaviour(f"{kind}: {name} is negative")
    if rule.get("error_status") is not None and not 300 <= rule["error_status"] <= 599:
        raise BadBehaviour(f"{kind}: error_status is not an HTTP error")
    return rule


class _Rule:
    def __init__(self, values):
        self.values = values
        self.failures_left = values.get("fail_times")


class Behaviours:
    """The rules of all kinds, with the random numbers that they need (the same for each seed)."""

    def __init__(self, seed):
        self._seed = seed
        self.reset()

    def reset(self):
        self._defaults = {kind: _Rule({}) for kind in KINDS}
        self._matching = {kind: {} for kind in KINDS}
        self._random = {kind: random.Random(f"{self._seed}:{kind}") for kind in KINDS}

    def describe(self):
        return {kind: [self._defaults[kind].values] + [r.values for r in
                                                       self._matching[kind].values()]
                for kind in KINDS}

    def set(self, given):
        """Takes {kind: rule or [rules]}; a rule without `match` replaces the kind's default, one
        with it replaces the rule of the same `match`. Nothing is changed on an error."""
        if not isinstance(given, dict):
            raise BadBehaviour("a JSON object is needed")
        checked = []
        for kind, rules in given.items():
            if kind not in KINDS:
                raise BadBehaviour(f"unknown kind {kind!r}: one of {', '.join(KINDS)}")
            for rule in rules if isinstance(rules, list) else [rules]:
                checked.append((kind, _checked(kind, rule)))
        for kind, rule in checked:
            if rule.get("match"):
                self._matching[kind][rule["match"]] = _Rule(rule)
            else:
                self._defaults[kind] = _Rule(rule)

    def choose(self, kind, body, query):
        """The values that apply to one call, with its faults taken out if it is to be served well
        and `latency_ms` drawn with its jitter."""
        rule = self._defaults[kind]
        values = dict(rule.values)
        for match, candidate in self._matching[kind].items():
            if match in body or match in query:
                rule = candidate
                values.update(candidate.values)
                break
        values = {name: value for name, value in values.items() if value is not None}
        draw = self._random[kind]
        if jitter := values.get("jitter_ms"):
            values["latency_ms"] = values.get("latency_ms", 0) + draw.uniform(0, jitter)
        if not self._strikes(rule, values, draw):
            for name in FAULTS:
                values.pop(name, None)
        elif ("fail_times" in values or "error_rate" in values) and not values.keys() & set(FAULTS):
            values["error_status"] = 500
        return values

    def _strikes(self, rule, values, draw):
        if "error_rate" in values and draw.random() >= values["error_rate"]:
            return False
        if rule.failures_left is None:
            return True
        rule.failures_left -= 1
        return rule.failures_left >= 0


def error_body(kind, status, message):
    """The error object that the real server of this kind answers with."""
    if kind == "vector":
        error = {"status": {"error": message}, "time": 0.0}
    elif kind == "keyword":
        cause = {"type": "exception", "reason": message}
        error = {"error": {"root_cause": [cause], **cause}, "status": status}
    else:
        types = {400: "invalid_request_error", 401: "authentication_error",
                 404: "not_found_error", 429: "rate_limit_exceeded", 503: "unavailable_error"}
        error = {"error": {"code": status, "message": message, "param": None,
                           "type": types.get(status, "server_error")}}
    return json.dumps(error).encode()
