"""Rows 18 to 29: what comes in twice, broken or too large, and models that do not do as they should."""

import json
import os
import subprocess
import time

import results
from checker import Request, Rules
from cluster import ROOT, STAGES, wait_until
from trial import BEHAVIOUR, Trial, row, two_of_each

POISON = {"cut": bytes.fromhex("82a5"), "8 GiB": bytes.fromhex("dd10000000"),
          "16 GiB map": bytes.fromhex("df10000000"), "huge": bytes.fromhex("ddff000000"),
          "deep": b"\x91" * 40 + b"\x01", "number": b"\x2a", "text": b"\xa5hello",
          "not JSON": b"{\"query\": ", "noise": bytes(range(128, 256))}


def produced(t, number, query_id, **fields):
    """A question that goes straight to Kafka, and how it is followed."""
    question = f"Question {number}: produced?"
    request = Request(question=question, id=query_id, accepted=True, streamed=False,
                      sent_ns=time.monotonic_ns())
    t.requests.append(request)
    return json.dumps({"query": question, **fields}).encode()


@row("18", "each query produced twice with one id", ci=True)
def produced_twice():
    with Trial(two_of_each()) as t:
        for number in range(20):
            query_id = f"{t.cluster.prefix}-{number}"
            value = produced(t, number, query_id)
            headers = (f"sluice-id={query_id}", "content-type=application/json")
            # Different keys: the two land on different partitions, and so with different workers.
            for copy in range(2):
                t.cluster.produce("queries", value, key=f"{number}-{copy}", headers=headers)
        t.finish(Rules())
    return t.findings


def rewind(t):
    """Each stage's group back to the first record of its topics; no worker may run."""
    libraries = os.path.join(os.environ.get("SLUICE_LOCAL", os.path.join(ROOT, ".local")), "kafka",
                             "libs", "*")
    groups = [word for stage in STAGES for word in ("--group", f"{t.cluster.prefix}.{stage}")]
    subprocess.run(["java", "-cp", libraries,
                    "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                    "--bootstrap-server", os.environ["SLUICE_TEST_BROKERS"], *groups, "--all-topics",
                    "--reset-offsets", "--to-earliest", "--execute"],
                   check=True, capture_output=True, timeout=60)


@row("18-rewind", "all groups' offsets set back to the beginning")
def offsets_rewound():
    with Trial(two_of_each()) as t:
        t.load(60, "--concurrency", 30)
        t.wait_load()
        calls = {kind: s["calls"] for kind, s in t.cluster.upstream.stats(events=False).items()
                 if kind != "server"}
        for worker in [w for stage in STAGES for w in t.cluster.of(stage)]:
            worker.stop()
        rewind(t)
        if len(t.lag()) < len(STAGES):
            raise AssertionError(f"the offsets were not set back: {t.lag()}")
        for stage in STAGES:
            t.cluster.start(stage, wait=False)
        for stage in STAGES:
            wait_until(t.cluster.of(stage)[0].ready, 40, f"{stage} ready")
        t.load(10, "--concurrency", 10, first=100)
        t.finish(Rules())
        for kind, count in calls.items():
            now = t.cluster.upstream.stats(events=False)[kind]["calls"]
            if kind != "embed" and now != count + 10:
                t.violation("I4", f"{now - count - 10} calls of {kind} for what was read again")
    return t.findings


@row("19", "poison pills on each stage's topic", ci=True)
def poison():
    topics = ("queries", "retrieve", "rerank", "generate")
    with Trial() as t:
        t.load(40, "--rate", 5)
        t.fault()
        for topic in topics:
            for value in POISON.values():
                t.cluster.produce(topic, value)

        def dead():
            return {topic: [r["payload"] for r in t.cluster.consume(topic + ".dlq")]
                    for topic in topics}
        t.finish(Rules())
        missing = [(topic, name) for topic, found in dead().items()
                   for name, value in POISON.items() if found.count(value) != 1]
        if missing:
            t.violation("I1", f"not one dead letter of each: {missing}")
    return t.findings


@row("21", "oversize questions, bodies and histories", ci=True)
def oversize():
    turn = {"role": "user", "content": "x" * 30000}
    asked = [(413, {"query": "x" * (10 << 20)}), (400, {"query": "x" * 32769}),
             (200, {"query": "Question 1: " + "x" * 32000, "max_tokens": 5}),
             (None, {"query": "Question 2: long history?", "history": [turn] * 30, "max_tokens": 5})]
    with Trial() as t:
        t.load(20, "--rate", 5, first=100)
        for expected, body in asked:
            status, _, answer = t.cluster.post("/v1/query", body, timeout=70)
            t.notes.append(f"{len(body['query']) + 30000 * len(body.get('history', []))} B: {status}")
            if expected not in (None, status) or status in (0, 500, 504):
                raise AssertionError(f"a body of {len(json.dumps(body))} B: {status} {answer[:300]}")
        t.finish(Rules())
    return t.findings


@row("27", "the model answers 429 with Retry-After: 5 for 15 s", ci=True)
def rate_limited():
    with Trial(two_of_each()) as t:
        t.load(60, "--rate", 3)
        time.sleep(3)
        t.fault()
        t.cluster.upstream.behave(chat=BEHAVIOUR["chat"] | {"error_status": 429, "retry_after_s": 5})
        time.sleep(15)
        t.cluster.upstream.behave(chat=BEHAVIOUR["chat"])
        t.heal()
        # Who was refused three times is told so.
        t.finish(Rules(chat_calls=3, codes={"upstream_error": 3}))
        events = t.cluster.upstream.ledger()
        refused = sorted(e["t"] for e in events if e["event"] == "end" and e["outcome"] == 429)
        begun = [e["t"] for e in events if e["event"] == "begin" and e["kind"] == "chat"]
        # Those that were already on their way to a permit when the answer came are no probes.
        inside = [b for b in begun if any(r + 300_000_000 < b < r + 4_800_000_000 for r in refused)]
        t.notes.append(f"{len(refused)} calls answered 429, {len(inside)} began in a cool-down")
        if inside:
            t.violation("I3", f"{len(inside)} calls began inside a cool-down")
        probes = [r for r in refused if r > refused[0] + 4_800_000_000]
        if any(b - a < 4_800_000_000 for a, b in zip(probes, probes[1:])):
            t.violation("I3", f"{len(probes)} probes, not one after each cool-down")
    return t.findings


BREAKS = {"close": {"cut_after_tokens": 10}, "reset": {"reset_after_tokens": 10},
          "stall": {"stall_after_tokens": 10}, "headers only": {"hang_headers": True},
          "no answer": {"hang": True}, "no finish": {"no_finish": True},
          "error event": {"error_event_after_tokens": 10},
          "malformed": {"malformed_after_tokens": 10}, "split": {"split_bytes": 7}}


@row("28", "streams of the model break in nine ways", ci=True)
def streams_break():
    rules = [BEHAVIOUR["chat"]]
    numbers = {}
    for nth, (name, fault) in enumerate(BREAKS.items()):
        for number in range(nth * 4, nth * 4 + 4):
            rules.append({"match": f"Question {number}:", **fault})
            numbers[number] = name
    with Trial(two_of_each(), {"chat": rules}) as t:
        t.load(len(numbers), "--concurrency", len(numbers), timeout_ms=8000)
        t.finish(Rules(codes={"upstream_error": 24, "timeout": 16}, chat_calls=3))
        seen = {}
        for request in t.requests:
            number = int(request.question.split(":")[0].split()[1])
            name = numbers[number]
            seen.setdefault(name, set()).add(request.code or request.terminal)
            if (request.terminal == "done") != (name == "split"):
                t.violation("I2", f"{name}: ended as {request.terminal}")
        t.notes.append(", ".join(f"{name}: {'/'.join(map(str, v))}" for name, v in seen.items()))
        for request in t.requests:
            payload = t.topic()[request.id][0] if request.code == "upstream_error" else None
            if payload and request.text and not results.decode(payload).get("usage"):
                t.violation("I4", f"{request.question}: no usage of the part that was written")
    return t.findings


@row("29", "first token after 30 s for half, at a deadline of 5 s", ci=True)
def slow_model():
    rules = [BEHAVIOUR["chat"]] + [{"match": f"Question {n}:", "first_token_ms": 30000}
                                   for n in range(0, 40, 2)]
    with Trial(two_of_each(), {"chat": rules}) as t:
        t.load(40, "--rate", 5, timeout_ms=5000)
        t.finish(Rules(codes={"timeout": 20}))
        if t.findings.endings.get("done") != 20:
            t.violation("I1", f"the others' endings: {t.findings.endings}")
    return t.findings
