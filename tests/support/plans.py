"""Answers as the bytes that are written, with the faults that a call's behaviour asks for.

A Plan says what goes out and when, and how it ends; it does no I/O and knows no clock. The bytes of
every token are made here, before the first is due, so that a token costs one write.
"""

import json
import os
import time

import answers
import behaviour

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large",
           429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
           503: "Service Unavailable", 504: "Gateway Timeout"}


class Plan:
    """What is written for one call: `head` after `head_s` (None: nothing, ever), then the tokens,
    then `tail`, then the ending: "end" (a whole answer), "close", "reset", or "stall" (nothing
    more, kept open)."""

    __slots__ = ("status", "head_s", "head", "first_s", "interval_s", "tokens", "tail", "ending")

    def __init__(self, status, head_s, head, tokens=(), tail=b"", ending="end"):
        self.status, self.head_s, self.head, self.tail = status, head_s, head, tail
        self.tokens, self.ending = tokens, ending
        self.first_s = self.interval_s = 0.0


def response(status, body, content_type="application/json", extra=""):
    reason = REASONS.get(status, "Status")
    return (f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


STREAM_HEAD = (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
               b"Transfer-Encoding: chunked\r\n\r\n")
LAST_CHUNK = b"0\r\n\r\n"


def sse_event(text):
    return f"data: {text}\n\n".encode()


def sse_chunk(text):
    """One event as one chunk of the body."""
    data = sse_event(text)
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_plan(call, status, body, extra_s=0.0, extra=""):
    """The plan of an answer that is one JSON body, with the call's faults."""
    values = call.values
    plan = Plan(status, values.get("latency_ms", 0) / 1000 + extra_s, b"")
    whole = response(status, body, extra=extra)
    for key, ending in (("cut_after_tokens", "close"), ("reset_after_tokens", "reset"),
                        ("stall_after_tokens", "stall")):
        if key in values:
            plan.head = whole[:len(whole) - len(body) // 2 - 1] if values[key] else b""
            plan.ending = ending
            return plan
    if values.get("hang"):
        plan.head = None
    elif values.get("hang_headers"):
        plan.head, plan.ending = whole[:len(whole) - len(body)], "stall"
    elif "malformed_after_tokens" in values:
        plan.head = response(status, body[:len(body) // 2], extra=extra)
    elif "error_event_after_tokens" in values:
        plan.head = response(status, behaviour.error_body(call.kind, 500, "scripted error"))
    else:
        plan.head = whole
    return plan


def error_plan(call, status, message):
    retry_after = call.values.get("retry_after_s")
    extra = "" if retry_after is None else f"Retry-After: {retry_after:g}\r\n"
    return json_plan(call, status, behaviour.error_body(call.kind, status, message), extra=extra)


class Completion:
    """One chat answer: which tokens, how it ends, and its objects as OpenAI writes them."""

    def __init__(self, request, question, values, prompt):
        self._model = request.get("model") or "stub-chat"
        self.tokens = answers.expected_tokens(question, values.get("tokens", 50))
        self._finish = values.get("finish_reason", "stop")
        limit = request.get("max_completion_tokens", request.get("max_tokens"))
        if isinstance(limit, int) and 0 <= limit < len(self.tokens):
            del self.tokens[limit:]
            self._finish = "length"
        self._apply_stop(request.get("stop"))
        self._id = "chatcmpl-" + os.urandom(12).hex()
        self._created = int(time.time())
        self._prompt_tokens = answers.count_tokens(prompt)
        options = request.get("stream_options") or {}
        self._include_usage = bool(options.get("include_usage"))

    def _apply_stop(self, stop):
        if not stop:
            return
        whole = "".join(self.tokens)
        found = [at for s in ([stop] if isinstance(stop, str) else stop)
                 if s and (at := whole.find(s)) >= 0]
        if not found:
            return
        kept, size = [], min(found)
        for token in self.tokens:
            if size <= 0:
                break
            kept.append(token[:size])
            size -= len(token)
        self.tokens = kept

    def usage(self):
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": len(self.tokens),
                "total_tokens": self._prompt_tokens + len(self.tokens)}

    def _chunk(self, choices, **more):
        return {"id": self._id, "object": "chat.completion.chunk", "created": self._created,
                "model": self._model, "choices": choices, **more}

    def _delta(self, delta, finish=None):
        # As OpenAI does it: with include_usage every other chunk says that it has none yet.
        more = {"usage": None} if self._include_usage else {}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps(self._chunk([choice], **more), separators=(",", ":"))

    def stream_parts(self):
        """(role chunk, token chunks, the chunks after them), each encoded for the body."""
        role = sse_chunk(self._delta({"role": "assistant", "content": ""}))
        before, after = sse_event(self._delta({"content": "@"})).split(b"@")
        size = len(before) + len(after)
        tokens = [b"%x\r\n%b%b%b\r\n" % (size + len(token), before, token, after)
                  for token in map(str.encode, self.tokens)]
        tail = sse_chunk(self._delta({}, self._finish))
        if self._include_usage:
            usage = self._chunk([], usage=self.usage())
            tail += sse_chunk(json.dumps(usage, separators=(",", ":")))
        return role, tokens, tail + sse_chunk("[DONE]") + LAST_CHUNK

    def whole(self, has_finish):
        message = {"role": "assistant", "content": "".join(self.tokens)}
        choice = {"index": 0, "message": message,
                  "finish_reason": self._finish if has_finish else None}
        return json.dumps({"id": self._id, "object": "chat.completion", "created": self._created,
                           "model": self._model, "choices": [choice],
                           "usage": self.usage()}).encode()


def stream_plan(call, completion):
    """The plan of a streamed answer, with the call's faults."""
    values = call.values
    role, tokens, tail = completion.stream_parts()
    plan = Plan(200, values.get("latency_ms", 0) / 1000, STREAM_HEAD + role, tokens, tail)
    plan.first_s = values.get("first_token_ms", 0) / 1000
    plan.interval_s = values.get("token_interval_ms", 0) / 1000
    for key, ending in (("cut_after_tokens", "close"), ("reset_after_tokens", "reset"),
                        ("stall_after_tokens", "stall")):
        if key in values:
            plan.tokens, plan.tail, plan.ending = tokens[:values[key]], b"", ending
            return plan
    if values.get("hang"):
        plan.head = None
    elif values.get("hang_headers"):
        plan.head, plan.tokens, plan.tail, plan.ending = STREAM_HEAD, [], b"", "stall"
    elif values.get("no_finish"):
        plan.tail = LAST_CHUNK
    elif "error_event_after_tokens" in values:
        error = behaviour.error_body("chat", 500, "scripted error").decode()
        plan.tokens = tokens[:values["error_event_after_tokens"]]
        plan.tail = sse_chunk(error) + LAST_CHUNK
    elif "malformed_after_tokens" in values:
        at = values["malformed_after_tokens"]
        tokens[at:at + 1] = [sse_chunk('{"choices":[{"index":0,"delta":{"content":')]
    return plan


def too_large(chars, limit):
    """llama.cpp's words for an input beyond its physical batch."""
    return (f"input ({answers.count_tokens('x' * chars)} tokens) is too large to process. increase "
            f"the physical batch size (current batch size: {limit // 4})")
