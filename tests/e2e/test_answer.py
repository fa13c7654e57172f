"""A question is answered, through every way in, with every token of the model and nothing else."""

import json
import unittest

import openai

from cluster import Cluster, get, wait_until  # First: it sets the path of what follows.
from answers import expected_tokens


def text_of(question, n=50):
    return "".join(expected_tokens(question, n))


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        cls.cluster.upstream.behave(chat={"token_interval_ms": 2})

    def test_json_answer_has_all_that_a_result_has(self):
        status, result = self.cluster.ask("Question 1: what is a lease?")
        self.assertEqual(status, 200, result)
        self.assertEqual(result["outcome"], "done")
        self.assertEqual(result["answer"], text_of("Question 1: what is a lease?"))
        self.assertEqual(len(result["source_chunks"]), 5)
        self.assertEqual([c["n"] for c in result["source_chunks"]], [1, 2, 3, 4, 5])
        for name in ("doc_id", "chunk_id", "chunk_index", "text", "score", "metadata"):
            self.assertIn(name, result["source_chunks"][0])
        self.assertEqual(sorted(result["stages"]), ["embed", "generate", "rerank", "retrieve"])
        self.assertEqual(result["degraded"], [])
        self.assertIsNone(result["error"])
        self.assertGreater(result["usage"]["completion_tokens"], 0)
        self.assertFalse(result["usage"]["estimated"])
        self.assertEqual((result["tenant"], result["collection"]), ("default", "default"))
        self.assertGreaterEqual(result["total_ms"], result["ttft_ms"])

    def test_sse_stream_is_sources_deltas_done(self):
        status, headers, body = self.cluster.post(
            "/v1/query", {"query": "Question 2: what is a fence?"}, {"Accept": "text/event-stream"})
        self.assertEqual(status, 200)
        self.assertIn("text/event-stream", headers["content-type"])
        self.assertTrue(headers["sluice-id"] and headers["x-request-id"])
        events = [block for block in body.decode().split("\n\n") if block and block[0] != ":"]
        self.assertEqual(events[-1], "data: [DONE]")
        parsed = []
        for block in events[:-1]:
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            data = json.loads(fields["data"])
            self.assertEqual(fields["id"], f"{data['attempt']}:{data['seq']}")
            self.assertEqual(fields["event"], data["type"])
            self.assertEqual(data["id"], headers["sluice-id"])
            parsed.append(data)
        self.assertEqual(parsed[0]["type"], "sources")
        self.assertEqual(parsed[-1]["type"], "done")
        self.assertEqual([p["seq"] for p in parsed[1:]], list(range(len(parsed) - 1)))
        self.assertEqual("".join(p["text"] for p in parsed[1:-1]),
                         text_of("Question 2: what is a fence?"))

    def test_search_ends_after_rerank(self):
        calls = self.cluster.upstream.stats()["chat"]["calls"]
        status, result = self.cluster.ask("Question 3: which topic?", "/v1/search", top_n=3)
        self.assertEqual(status, 200, result)
        self.assertEqual(len(result["source_chunks"]), 3)
        self.assertEqual(result["answer"], "")
        self.assertEqual(self.cluster.upstream.stats()["chat"]["calls"], calls)

    def test_official_openai_client(self):
        client = openai.OpenAI(base_url=self.cluster.url + "/v1", api_key="none", max_retries=0)
        question = "Question 4: what does a window hold?"
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"},
                    {"role": "assistant", "content": "hi"}, {"role": "user", "content": question}]
        whole = client.chat.completions.create(model="sluice", messages=messages)
        self.assertEqual(whole.choices[0].message.content, text_of(question))
        self.assertEqual(whole.choices[0].finish_reason, "stop")
        self.assertTrue(whole.id.startswith("chatcmpl-"))
        self.assertEqual(len(whole.citations), 5)
        stream = client.chat.completions.create(
            model="stub-chat", messages=messages, stream=True,
            stream_options={"include_usage": True})
        chunks = list(stream)
        self.assertEqual(len(chunks[0].citations), 5)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, text_of(question))
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop")
        self.assertGreater(chunks[-1].usage.completion_tokens, 0)
        self.assertEqual([m.id for m in client.models.list()], ["sluice", "stub-chat"])
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=messages)
        with self.assertRaises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="sluice", messages=messages, n=2)
        self.assertEqual(refused.exception.param, "n")

    def test_errors_name_the_field(self):
        cases = [
            (b"{", 400, None), (b"[]", 400, None), (b"{}", 400, "query"),
            (b'{"query":""}', 400, "query"), (b'{"query":1}', 400, "query"),
            (b'{"query":"x","nonsense":1}', 400, "nonsense"),
            (b'{"query":"x","top_n":51}', 400, "top_n"),
            (b'{"query":"x","on_disconnect":"grace:x"}', 400, "on_disconnect"),
            (b'{"query":"' + b"x" * 40000 + b'"}', 400, "query"),
            (b'{"query":"' + b"x" * 2000000 + b'"}', 413, None),
        ]
        for body, status, param in cases:
            with self.subTest(body=body[:40]):
                got, headers, answer = self.cluster.post("/v1/query", body)
                self.assertEqual(got, status, answer)
                error = json.loads(answer)["error"]
                self.assertEqual(sorted(error), ["code", "message", "param", "type"])
                if param:
                    self.assertEqual(error["param"], param)

    def test_kafka_alone_gets_a_result(self):
        question = "Question 5: who leads a partition?"
        self.cluster.produce("queries", json.dumps({"query": question}).encode(), key="mine-1",
                             headers=("content-type=application/json", "sluice-id=mine-1"))

        def result():
            return [r for r in self.cluster.consume("results") if r["key"] == "mine-1"]
        record = wait_until(result, 20, "a result on the results topic")[0]
        self.assertEqual(record["headers"]["sluice-id"], "mine-1")
        body = json.loads(record["payload"])
        self.assertEqual((body["outcome"], body["answer"]), ("done", text_of(question)))
        self.assertEqual(body["source"]["topic"], self.cluster.topic("queries"))

    def test_a_result_has_the_key_of_its_job(self):
        job = json.dumps({"query": "Question 6: whose key?"}).encode()
        self.cluster.produce("queries", job, key="user-7",
                             headers=("content-type=application/json", "sluice-id=keyed-1"))

        def result():
            return [r for r in self.cluster.consume("results")
                    if r["headers"].get("sluice-id") == "keyed-1"]
        self.assertEqual(wait_until(result, 20, "a result")[0]["key"], "user-7")

    def test_bad_kafka_jobs_get_a_result_or_a_dead_letter(self):
        self.cluster.produce("queries", b'{"query":"x","bad":1}', key="k-bad",
                             headers=("content-type=application/json", "sluice-id=k-bad"))
        self.cluster.produce("queries", b"\xdd\x10\x00\x00\x00", key="k-poison")

        def both():
            results = [r for r in self.cluster.consume("results") if r["key"] == "k-bad"]
            dead = [r for r in self.cluster.consume("queries.dlq") if r["key"] == "k-poison"]
            return (results, dead) if results and dead else None
        results, dead = wait_until(both, 20, "a result and a dead letter")
        body = json.loads(results[0]["payload"])
        self.assertEqual(body["error"]["code"], "bad_request")
        self.assertIn("bad", body["error"]["message"])
        self.assertEqual(dead[0]["payload"], b"\xdd\x10\x00\x00\x00")
        self.assertEqual(dead[0]["headers"]["__connect.errors.topic"], self.cluster.topic("queries"))
        metrics = get(self.cluster.of("embed")[0].admin() + "/metrics")[1].decode()
        for topic, count in (("queries", 1), ("chunks", 0)):  # Told from the start.
            self.assertIn(f'sluice_dead_letters_total{{topic="{self.cluster.topic(topic)}"}} {count}\n',
                          metrics)


if __name__ == "__main__":
    unittest.main()
