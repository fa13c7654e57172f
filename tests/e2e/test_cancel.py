"""A caller that leaves takes its query along: nothing new begins, what runs is closed, permits return."""

import http.client
import json
import time
import unittest

from cluster import Cluster, get, wait_until  # First: it sets the path of what follows.
from answers import expected_tokens


class Caller:
    """One streamed query on a connection of its own, to be left at any moment."""

    def __init__(self, cluster, question, **fields):
        self.connection = http.client.HTTPConnection("127.0.0.1", cluster.port, timeout=30)
        self.connection.request("POST", "/v1/query", json.dumps({"query": question, **fields}),
                                {"Content-Type": "application/json", "Accept": "text/event-stream"})
        self.response = self.connection.getresponse()
        self.id = self.response.headers["sluice-id"]

    def events(self):
        """Data of each event as it comes, until `[DONE]`."""
        while True:
            line = self.response.readline().decode()
            if line.startswith("data: ") and line.strip() != "data: [DONE]":
                yield json.loads(line[6:])
            elif not line or line.strip() == "data: [DONE]":
                return

    def read_deltas(self, count):
        for event in self.events():
            count -= event["type"] == "delta"
            if count == 0:
                return

    def leave(self):
        self.response.close()
        self.connection.close()


class Cancel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)

    def setUp(self):
        self.upstream = self.cluster.upstream
        self.upstream.reset()

    def result_of(self, query_id):
        def found():
            return [r for r in self.cluster.consume("results") if r["headers"].get("sluice-id") == query_id]
        record = wait_until(found, 20, f"a result of {query_id}")[0]
        return record

    def wait_idle(self):
        """No call is open anywhere, and every permit is back."""
        wait_until(lambda: all(self.upstream.stats()[kind]["in_flight"] == 0 for kind in
                               ("embed", "vector", "keyword", "rerank", "chat")), 10, "no open calls")
        for worker in self.cluster.of("generate") + self.cluster.of("retrieve"):
            wait_until(lambda w=worker: w.metric("sluice_permits_in_use") == 0, 10, "permits back")

    def test_leaving_mid_stream_closes_the_models_connection(self):
        self.upstream.behave(chat={"token_interval_ms": 50, "tokens": 200})
        caller = Caller(self.cluster, "Question 1: how long?")
        caller.read_deltas(5)
        caller.leave()
        wait_until(lambda: self.upstream.stats()["chat"]["aborted"] == 1, 5, "the model's call closed")
        self.wait_idle()
        self.assertLess(self.upstream.stats()["chat"]["tokens"], 100)
        self.result_of(caller.id)

    def test_leaving_during_retrieval_stops_before_the_next_stage(self):
        self.upstream.behave(vector={"latency_ms": 3000}, keyword={"latency_ms": 3000})
        caller = Caller(self.cluster, "Question 2: where?")
        wait_until(lambda: self.upstream.stats()["vector"]["in_flight"] == 1, 10, "a search running")
        caller.leave()
        self.wait_idle()
        stats = self.upstream.stats()
        self.assertEqual((stats["vector"]["aborted"], stats["keyword"]["aborted"]), (1, 1))
        self.result_of(caller.id)
        self.assertEqual((stats["rerank"]["calls"], stats["chat"]["calls"]), (0, 0))

    def test_delete_ends_the_stream_with_cancelled(self):
        self.upstream.behave(chat={"token_interval_ms": 50, "tokens": 200})
        caller = Caller(self.cluster, "Question 3: which?")
        caller.read_deltas(1)
        connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port, timeout=10)
        connection.request("DELETE", f"/v1/queries/{caller.id}")
        self.assertEqual(connection.getresponse().status, 202)
        connection.close()
        last = list(caller.events())[-1]
        caller.leave()
        self.assertEqual((last["type"], last["error"]["code"]), ("error", "cancelled"))
        self.wait_idle()

    def test_continue_is_not_cancelled(self):
        self.upstream.behave(chat={"token_interval_ms": 5})
        caller = Caller(self.cluster, "Question 4: who?", on_disconnect="continue")
        caller.read_deltas(2)
        caller.leave()
        self.result_of(caller.id)
        stats = self.upstream.stats()["chat"]
        self.assertEqual((stats["completed"], stats["aborted"]), (1, 0))


class Limits(unittest.TestCase):
    def test_a_limit_holds_across_workers_and_all_are_answered(self):
        limits = {f"SLUICE_{name}_LIMIT": 2 for name in ("VECTOR", "KEYWORD", "RERANK", "CHAT")}
        workers = {"retrieve": 2, "rerank": 2, "generate": 2}
        with Cluster(workers=workers, **limits) as cluster:
            cluster.upstream.behave(chat={"latency_ms": 100, "token_interval_ms": 2},
                                    vector={"latency_ms": 50}, rerank={"latency_ms": 50})
            callers = [Caller(cluster, f"Question {n}: limits?") for n in range(16)]
            for caller in callers:
                self.assertEqual(list(caller.events())[-1]["type"], "done")
                caller.leave()
            stats = cluster.upstream.stats()
            for kind in ("vector", "keyword", "rerank", "chat"):
                self.assertLessEqual(stats[kind]["peak_concurrency"], 2, kind)
                self.assertEqual(stats[kind]["calls"], 16, kind)


class Workers(unittest.TestCase):
    def test_a_drained_worker_finishes_its_stream(self):
        with Cluster() as cluster:
            cluster.upstream.behave(chat={"token_interval_ms": 20, "tokens": 60})
            caller = Caller(cluster, "Question 1: drain?")
            caller.read_deltas(1)
            first = cluster.of("generate")[0]
            cluster.start("generate")
            first.process.terminate()
            self.assertEqual(list(caller.events())[-1]["type"], "done")
            caller.leave()
            self.assertEqual(first.process.wait(20), 0)
            status, result = cluster.ask("Question 2: and now?")
            self.assertEqual((status, result["outcome"]), (200, "done"))

    def test_a_killed_workers_query_is_taken_over(self):
        with Cluster(workers={"rerank": 2}) as cluster:
            cluster.upstream.behave(rerank={"latency_ms": 4000}, chat={"token_interval_ms": 1})
            caller = Caller(cluster, "Question 1: killed?")
            began = time.monotonic()
            busy = wait_until(lambda: [w for w in cluster.of("rerank")
                                       if w.metric("sluice_jobs_in_flight") > 0], 10, "a rerank")
            wait_until(lambda: cluster.upstream.stats()["rerank"]["in_flight"] == 1, 10, "its call")
            cluster.kill(busy[0])
            cluster.upstream.behave(rerank={"latency_ms": 0})
            self.assertEqual(list(caller.events())[-1]["type"], "done")
            caller.leave()
            stats = cluster.upstream.stats()
            self.assertEqual((stats["embed"]["calls"], stats["vector"]["calls"]), (1, 1))
            self.assertEqual((stats["rerank"]["calls"], stats["chat"]["calls"]), (2, 1))
            self.assertLess(time.monotonic() - began, 40)

    def killed_mid_stream(self, cluster, number, **fields):
        """The events of a stream whose generate worker was killed after its third delta."""
        cluster.upstream.behave(chat={"token_interval_ms": 50, "tokens": 40})
        caller = Caller(cluster, f"Question {number}: killed?", **fields)
        seen = []
        for event in caller.events():
            seen.append(event)
            if sum(e["type"] == "delta" for e in seen) == 3:
                break
        cluster.kill(next(w for w in cluster.of("generate")
                          if w.metric("sluice_permits_in_use") > 0))
        seen += list(caller.events())
        caller.leave()
        return seen

    def test_an_answer_is_not_paid_for_twice_unasked(self):
        with Cluster(workers={"generate": 3}) as cluster:
            seen = self.killed_mid_stream(cluster, 1)
            self.assertEqual((seen[-1]["type"], seen[-1]["error"]["code"]), ("error", "worker_lost"))
            self.assertEqual((seen[-1]["attempt"], seen[-1]["seq"]),
                             (seen[-2]["attempt"], seen[-2]["seq"] + 1))
            self.assertEqual(cluster.upstream.stats()["chat"]["calls"], 1)
            seen = self.killed_mid_stream(cluster, 2, on_worker_lost="restart")
            kinds = [e["type"] for e in seen]
            self.assertEqual((kinds.count("restart"), kinds[-1]), (1, "done"))
            again = seen[kinds.index("restart") + 1:-1]
            self.assertEqual("".join(e["text"] for e in again),
                             "".join(expected_tokens("Question 2: killed?", 40)))
            self.assertEqual(cluster.upstream.stats()["chat"]["calls"], 3)


class Gateways(unittest.TestCase):
    def test_a_drained_gateway_finishes_its_streams(self):
        with Cluster() as cluster:
            cluster.upstream.behave(chat={"token_interval_ms": 20, "tokens": 60})
            caller = Caller(cluster, "Question 1: drain?")
            caller.read_deltas(1)
            gateway = cluster.of("gateway")[0]
            gateway.process.terminate()
            wait_until(lambda: get(cluster.url + "/v1/models")[0] == 0, 5, "no new connections")
            self.assertEqual(list(caller.events())[-1]["type"], "done")
            caller.leave()
            self.assertEqual(gateway.process.wait(20), 0)
            self.assertEqual(cluster.upstream.stats()["chat"]["aborted"], 0)

    def test_a_gateway_told_twice_to_end_cancels_what_its_callers_wait_for(self):
        with Cluster() as cluster:
            cluster.upstream.behave(chat={"token_interval_ms": 50, "tokens": 400})
            caller = Caller(cluster, "Question 1: now?")
            caller.read_deltas(3)
            gateway = cluster.of("gateway")[0]
            gateway.process.terminate()
            wait_until(lambda: "draining" in gateway.log(), 5, "the first signal")
            gateway.process.terminate()
            self.assertEqual(gateway.process.wait(10), 1)
            cluster.killed.append(gateway)
            caller.leave()
            wait_until(lambda: cluster.upstream.stats()["chat"]["aborted"] == 1, 5, "the call closed")
            record = wait_until(lambda: cluster.consume("results"), 20, "a result")[0]
            self.assertIn(b"cancelled", record["payload"])


if __name__ == "__main__":
    unittest.main()
