"""The command line against a gateway and admin ports that the test plays."""

import http.server
import json
import os
import signal
import subprocess
import threading
import unittest

from cluster import BIN, ensure_servers, free_port

SOURCES = {"type": "sources", "source_chunks": [
    {"n": 1, "doc_id": "guide/leases.md", "chunk_id": "guide/leases.md_3", "chunk_index": 3,
     "text": "A lease ends by itself.\nNobody has to say so.", "score": 0.875, "metadata": {}}]}
DONE = {"type": "done", "outcome": "done", "degraded": ["rerank"], "total_ms": 812, "ttft_ms": 700,
        "stages": {"embed": {"queue_ms": 1, "wait_ms": 2, "work_ms": 33, "attempts": 1},
                   "generate": {"queue_ms": 4, "wait_ms": 5, "work_ms": 666, "attempts": 2}}}


def delta(text):
    return {"type": "delta", "text": text}


class Gateway:
    """Answers each POST by calling script(handler, body); keeps the requests it saw."""

    def __init__(self, script):
        gateway = self
        self.requests = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                gateway.requests.append((self.path, dict(self.headers), body))
                self.close_connection = True
                script(self, body)

            def do_GET(self):
                gateway.requests.append((self.path, dict(self.headers), None))
                self.close_connection = True
                script(self, None)

            def do_DELETE(self):
                gateway.requests.append((self.path, dict(self.headers), None))
                self.close_connection = True
                reply(self, 202, {"state": "cancelling"})

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def reply(handler, status, body, content_type="application/json"):
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(data)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def begin_stream(handler, query_id=None):
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    if query_id is not None:
        handler.send_header("sluice-id", query_id)
    handler.send_header("Connection", "close")
    handler.end_headers()


def event(handler, data, name="1:0"):
    handler.wfile.write(f"id: {name}\nevent: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())
    handler.wfile.flush()


def stream(*events, last="data: [DONE]\n\n"):
    def script(handler, _body):
        begin_stream(handler)
        for data in events:
            event(handler, data)
        handler.wfile.write(last.encode())
    return script


def environment(**more):
    base = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
    base.update({key: str(value) for key, value in more.items()})
    return base


def sluice(*arguments, **variables):
    return subprocess.run([os.path.join(BIN, "sluice"), *arguments], env=environment(**variables),
                          capture_output=True, text=True, timeout=60, check=False)


class Case(unittest.TestCase):
    def gateway(self, script):
        gateway = Gateway(script)
        self.addCleanup(gateway.close)
        return gateway

    def one_line(self, done, code):
        """It ended with this code and said one line."""
        self.assertEqual(done.returncode, code, done)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("sluice"), done.stderr)
        return done.stderr


class Start(Case):
    """Programs that cannot start say which variable is to blame."""

    def start(self, program, **variables):
        upstream = "http://127.0.0.1:1/v1"
        more = {"SLUICE_ADMIN_LISTEN": "127.0.0.1:0", "SLUICE_LISTEN": "127.0.0.1:0",
                "SLUICE_KAFKA_BROKERS": "127.0.0.1:1", "SLUICE_REDIS_URL": "redis://127.0.0.1:1",
                "SLUICE_RERANK_URL": upstream, "SLUICE_LOG_LEVEL": "error"}
        return subprocess.run([os.path.join(BIN, program)], env=environment(**{**more, **variables}),
                              capture_output=True, text=True, timeout=60, check=False)

    def test_a_taken_port_names_its_variable(self):
        gateway = self.gateway(stream(DONE))
        taken = f"127.0.0.1:{gateway.port}"
        for program, variable in (("sluice-rerank", "SLUICE_ADMIN_LISTEN"),
                                  ("sluice-gateway", "SLUICE_ADMIN_LISTEN"),
                                  ("sluice-gateway", "SLUICE_LISTEN")):
            with self.subTest(program=program, variable=variable):
                done = self.start(program, **{variable: taken})
                self.assertEqual(done.returncode, 1, done)
                self.assertIn(f"{variable}={taken}: address already in use", done.stderr)

    def test_a_wrong_value_names_its_variable(self):
        for program in ("sluice-rerank", "sluice-gateway"):
            for variable, value in (("SLUICE_REDIS_URL", "redis://h:99999"),
                                    ("SLUICE_TOPIC_PREFIX", "a b")):
                with self.subTest(program=program, variable=variable):
                    done = self.start(program, **{variable: value})
                    self.assertEqual(done.returncode, 2, done)
                    self.assertIn(variable, done.stderr)

    def test_replies_never_go_to_a_topic_of_the_pipeline(self):
        for name in ("x.queries", "x.generate", "x.results.dlq"):
            done = self.start("sluice-rerank", SLUICE_TOPIC_PREFIX="x",
                              SLUICE_REPLY_TOPICS=f"mine,{name}")
            self.assertEqual(done.returncode, 2, done)
            self.assertIn(f"SLUICE_REPLY_TOPICS={name}: ", done.stderr)


class Ask(Case):
    def ask(self, script, *arguments, **variables):
        gateway = self.gateway(script)
        done = sluice("ask", *arguments, SLUICE_URL=f"http://127.0.0.1:{gateway.port}/", **variables)
        return done, gateway

    def test_text_then_sources_and_times(self):
        done, gateway = self.ask(
            stream(SOURCES, delta("It ends "), delta("by itself."), DONE), "what is a lease?",
            "--collection", "docs", "--top-n=7", "--timeout", "20s", SLUICE_API_KEY="s3cret")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        text, _, rest = done.stdout.partition("\n")
        self.assertEqual(text, "It ends by itself.")
        self.assertIn("[1] guide/leases.md#3  0.875  A lease ends by itself.\n", rest)
        self.assertRegex(rest, r"generate +4 +5 +666 +2\n")
        self.assertIn("total 812 ms, first token after 700 ms\n", rest)
        self.assertIn("answered without: rerank\n", rest)
        self.assertNotIn("\x1b", done.stdout)
        path, headers, body = gateway.requests[0]
        self.assertEqual(path, "/v1/query")
        self.assertEqual(headers["Accept"], "text/event-stream")
        self.assertEqual(headers["Authorization"], "Bearer s3cret")
        self.assertEqual(body, {"query": "what is a lease?", "collection": "docs", "top_n": 7,
                                "timeout_ms": 20000, "on_disconnect": "grace:10"})

    def test_search_asks_for_passages_only(self):
        done, gateway = self.ask(stream(SOURCES, DONE), "--search", "leases")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(gateway.requests[0][2]["mode"], "search")
        self.assertIn("[1] guide/leases.md#3", done.stdout)

    def test_each_token_is_shown_when_it_comes(self):
        go_on = threading.Event()

        def script(handler, _body):
            begin_stream(handler)
            event(handler, delta("first"))
            go_on.wait(30)
            event(handler, delta(" second"))
            event(handler, DONE)
        gateway = self.gateway(script)
        process = subprocess.Popen([os.path.join(BIN, "sluice"), "ask", "q"], stdout=subprocess.PIPE,
                                   env=environment(SLUICE_URL=f"http://127.0.0.1:{gateway.port}"))
        with process:
            self.assertEqual(process.stdout.read1(100), b"first")
            go_on.set()
            self.assertTrue(process.stdout.read().startswith(b" second\n"))
        self.assertEqual(process.returncode, 0)

    def test_ctrl_c_closes_the_connection_and_cancels_the_query(self):
        closed = threading.Event()

        def script(handler, _body):
            begin_stream(handler, "q-7")
            event(handler, delta("thinking"))
            handler.connection.settimeout(30)
            if handler.connection.recv(1) == b"":
                closed.set()
        gateway = self.gateway(script)
        process = subprocess.Popen([os.path.join(BIN, "sluice"), "ask", "q"], stdout=subprocess.PIPE,
                                   env=environment(SLUICE_URL=f"http://127.0.0.1:{gateway.port}"))
        with process:
            self.assertEqual(process.stdout.read1(100), b"thinking")
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(30), 130)
        self.assertTrue(closed.wait(30))
        self.assertEqual(gateway.requests[-1][0], "/v1/queries/q-7")

    def test_a_stream_that_breaks_is_gone_on_with(self):
        def script(handler, body):
            turn = len(gateway.requests)
            if turn == 2:  # On its way back.
                reply(handler, 503, {"error": {"message": "not ready"}})
                return
            begin_stream(handler, "q-8")
            if body is not None:
                event(handler, SOURCES, "0:0")
                event(handler, delta("It ends "), "1:0")
                handler.wfile.write(b"id: 1:1\nevent: delta\ndata: {\"text\": \"half an ev")
            elif turn == 3:
                event(handler, delta("by "), "1:1")
            else:
                event(handler, delta("itself."), "1:2")
                event(handler, DONE, "1:3")
        gateway = self.gateway(script)
        done = sluice("ask", "q", SLUICE_URL=f"http://127.0.0.1:{gateway.port}", SLUICE_API_KEY="k")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.partition("\n")[0], "It ends by itself.")
        self.assertIn("[1] guide/leases.md#3", done.stdout)
        self.assertEqual([(path, headers.get("Last-Event-ID"), headers["Authorization"])
                          for path, headers, _ in gateway.requests],
                         [("/v1/query", None, "Bearer k"),
                          ("/v1/queries/q-8/events", "1:0", "Bearer k"),
                          ("/v1/queries/q-8/events", "1:0", "Bearer k"),
                          ("/v1/queries/q-8/events", "1:1", "Bearer k")])

    def test_a_stream_that_cannot_be_gone_on_with_is_an_error(self):
        gone = {"error": {"message": "it is not kept any more", "code": "gone"}}

        def script(handler, body):
            if body is None:
                reply(handler, 410, gone)
                return
            begin_stream(handler, "q-9")
            event(handler, delta("half"))
        done, gateway = self.ask(script, "q")
        line = self.one_line(done, 1)
        self.assertIn("ended before the answer did", line)
        self.assertIn("; then: it is not kept any more (gone)", line)
        self.assertEqual((done.stdout, len(gateway.requests)), ("half\n", 2))

    def test_a_refusal_is_not_gone_on_with(self):
        def script(handler, _body):
            handler.send_response(503)
            handler.send_header("sluice-id", "q-10")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        done, gateway = self.ask(script, "q")
        self.assertIn("status 503", self.one_line(done, 1))
        self.assertEqual(len(gateway.requests), 1)

    def test_json_is_the_result_as_it_came(self):
        result = {"outcome": "done", "answer": "yes", "source_chunks": []}
        done, gateway = self.ask(lambda h, _: reply(h, 200, result), "--json", "q")
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, result))
        self.assertEqual(gateway.requests[0][1]["Accept"], "application/json")
        self.assertNotIn("on_disconnect", gateway.requests[0][2])
        failed = {"outcome": "expired", "error": {"code": "timeout", "message": "late"}}
        done, _ = self.ask(lambda h, _: reply(h, 200, failed), "--json", "q")
        self.assertEqual((done.returncode, json.loads(done.stdout)), (1, failed))

    def test_errors_are_one_line(self):
        error = {"type": "error", "error": {"code": "timeout", "message": "the deadline passed",
                                            "stage": "generate"}}
        done, _ = self.ask(stream(SOURCES, delta("half"), error), "q")
        self.assertEqual(self.one_line(done, 1),
                         "sluice ask: the deadline passed (timeout in generate)\n")
        self.assertEqual(done.stdout, "half\n")

        refused = {"error": {"message": "top_n is wrong", "type": "invalid_request_error",
                             "param": "top_n", "code": "bad_request"}}
        done, gateway = self.ask(lambda h, _: reply(h, 400, refused), "q")
        self.assertEqual(self.one_line(done, 1), "sluice ask: top_n is wrong (bad_request, top_n): "
                         f"status 400 from http://127.0.0.1:{gateway.port}/\n")

        done, _ = self.ask(lambda h, _: reply(h, 200, "<html>", "text/html"), "q")
        self.assertIn("something else than a stream of events", self.one_line(done, 1))
        done, _ = self.ask(lambda h, _: reply(h, 502, "bad gateway", "text/plain"), "q")
        self.assertIn("bad gateway: status 502", self.one_line(done, 1))
        done = sluice("ask", "q", SLUICE_URL=f"http://127.0.0.1:{free_port()}")
        self.assertIn("cannot reach the gateway", self.one_line(done, 1))

    def test_a_stream_without_its_end_is_an_error(self):
        for last in ("", "data: [DONE]\n\n"):
            done, _ = self.ask(stream(delta("half an answer"), last=last), "q")
            self.assertIn("ended before the answer did", self.one_line(done, 1))

    def result(self, *answers, arguments=()):
        """`sluice result q-1` where the gateway gives these answers, the last one for ever."""
        def script(handler, _body):
            reply(handler, *answers[min(len(gateway.requests), len(answers)) - 1])
        gateway = self.gateway(script)
        done = sluice("result", "q-1", *arguments, SLUICE_URL=f"http://127.0.0.1:{gateway.port}/",
                      SLUICE_API_KEY="k")
        self.assertEqual({(path, headers["Authorization"]) for path, headers, _ in gateway.requests},
                         {("/v1/queries/q-1", "Bearer k")})
        return done

    def test_a_result_is_shown_as_an_answer(self):
        result = {**SOURCES, **DONE, "id": "q-1", "answer": "It ends by itself."}
        done = self.result((200, result))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith("It ends by itself.\n\nsources\n[1] guide/leases.md#3"))
        self.assertIn("total 812 ms", done.stdout)
        done = self.result((200, result), arguments=["--json"])
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, result))
        failed = {"outcome": "failed", "answer": "half", "error": {
            "code": "worker_lost", "message": "a worker was lost", "stage": "generate"}}
        done = self.result((200, failed))
        self.assertEqual(self.one_line(done, 1),
                         "sluice result: a worker was lost (worker_lost in generate)\n")
        self.assertEqual(done.stdout, "half\n")
        self.assertEqual(self.result((200, failed), arguments=["--json"]).returncode, 1)

    def test_a_query_that_runs_tells_how_far_it_is_or_is_waited_for(self):
        runs = (200, {"id": "q-1", "state": "running", "stage": "rerank"})
        queued = (200, {"id": "q-1", "state": "queued", "stage": None})
        unknown = (404, {"error": {"message": "there is no such query", "code": "not_found"}})
        ended = (200, {"outcome": "done", "answer": "yes", "source_chunks": []})
        done = self.result(runs)
        self.assertEqual((done.returncode, done.stdout), (1, "running, last taken up by rerank\n"))
        self.assertEqual(self.result(queued).stdout, "queued\n")
        done = self.result(runs, arguments=["--json"])
        self.assertEqual((done.returncode, json.loads(done.stdout)), (1, runs[1]))
        self.assertIn("there is no such query", self.one_line(self.result(unknown), 1))
        done = self.result(unknown, queued, runs, ended, arguments=["--wait", "30s"])
        self.assertEqual((done.returncode, done.stdout.partition("\n")[0]), (0, "yes"))
        done = self.result(runs, arguments=["--wait", "600ms"])
        self.assertEqual((done.returncode, done.stdout), (1, "running, last taken up by rerank\n"))

    def test_wrong_usage(self):
        for arguments in (["ask"], ["ask", ""], ["ask", "a", "b"], ["ask", "q", "--nope"],
                          ["ask", "q", "--top-n", "51"], ["ask", "q", "--top-n"],
                          ["ask", "q", "--timeout=soon"], ["ask", "q", "--search=1"],
                          ["status", "x"], ["config", "--json"], ["topics"], ["topics", "delete"],
                          ["ingest"], ["ingest", "a", "--id", "b"], ["result"], ["result", "a", "b"],
                          ["result", "no id"], ["nope"]):
            self.one_line(sluice(*arguments), 2)
        self.one_line(sluice("ask", "q", SLUICE_URL="ftp://x"), 2)

    def test_output_that_gets_lost_is_an_error(self):
        for command in ("ask hello", "ask --json hello", "--help", "--version", "config"):
            gateway = self.gateway(stream(SOURCES, delta("Leases end."), DONE)
                                   if "--json" not in command else
                                   lambda handler, _body: reply(handler, 200, {"answer": "x"}))
            with self.subTest(command=command), open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run(
                    [os.path.join(BIN, "sluice"), *command.split()], stdout=full, text=True,
                    env=environment(SLUICE_URL=f"http://127.0.0.1:{gateway.port}"),
                    stderr=subprocess.PIPE, timeout=60, check=False)
                self.assertIn("the output cannot be written", self.one_line(done, 1))

    def test_help_and_version(self):
        for command in ([], ["ask"], ["result"], ["ingest"], ["ingest", "status"], ["documents"],
                        ["documents", "delete"], ["status"], ["topics"], ["config"]):
            done = sluice(*command, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("example", done.stdout)
            self.assertRegex(sluice(*command, "--version").stdout, r"^sluice \d+\.\d+\.\d+\n$")


READY = """# HELP sluice_build_info What runs here.
sluice_build_info{version="0.1.0",program="sluice-embed"} 1
sluice_jobs_in_flight{stage="embed"} 7
sluice_jobs_in_flight_other 99
"""


def admin(ready, reason="", metrics=READY):
    def script(handler, _body):
        if handler.path == "/readyz":
            reply(handler, 200 if ready else 503, reason, "text/plain")
        else:
            reply(handler, 200, metrics, "text/plain")
    return script


class Status(Case):
    @classmethod
    def setUpClass(cls):
        ensure_servers()

    def status(self, *hosts, prefix, arguments=()):
        return sluice("status", *arguments, SLUICE_ADMIN_HOSTS=",".join(hosts),
                      SLUICE_KAFKA_BROKERS=os.environ["SLUICE_TEST_BROKERS"],
                      SLUICE_TOPIC_PREFIX=prefix)

    def test_reply_topics_are_made_too(self):
        prefix = f"replies{os.getpid()}"
        variables = {"SLUICE_KAFKA_BROKERS": os.environ["SLUICE_TEST_BROKERS"],
                     "SLUICE_TOPIC_PREFIX": prefix, "SLUICE_PARTITIONS": 2}
        done = sluice("topics", "create", SLUICE_REPLY_TOPICS=f"{prefix}-a, {prefix}-b", **variables)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("a", "b"):
            self.assertRegex(done.stdout, rf"(?m)^{prefix}-{name} +2 partitions +created$")
        done = sluice("topics", "create", SLUICE_REPLY_TOPICS="x" * 256, **variables)
        self.assertIn("SLUICE_REPLY_TOPICS", self.one_line(done, 2))
        done = sluice("topics", "create", SLUICE_REPLY_TOPICS=",".join("x" * 33), **variables)
        self.assertIn("SLUICE_REPLY_TOPICS", self.one_line(done, 2))

    def test_health_and_lag(self):
        prefix = f"status{os.getpid()}"
        done = sluice("topics", "create", SLUICE_KAFKA_BROKERS=os.environ["SLUICE_TEST_BROKERS"],
                      SLUICE_TOPIC_PREFIX=prefix, SLUICE_PARTITIONS=2)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, rf"(?m)^{prefix}.replies +32 partitions +created$")
        again = sluice("topics", "create", SLUICE_KAFKA_BROKERS=os.environ["SLUICE_TEST_BROKERS"],
                       SLUICE_TOPIC_PREFIX=prefix, SLUICE_PARTITIONS=2)
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertRegex(again.stdout, rf"(?m)^{prefix}.queries.dlq +1 partitions +exists already$")
        subprocess.run(["kcat", "-P", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t",
                        f"{prefix}.chunks"], input=b"one\ntwo\nthree\n", check=True, timeout=30)
        up = f"127.0.0.1:{self.gateway(admin(True)).port}"
        unready = f"127.0.0.1:{self.gateway(admin(False, 'redis: is away')).port}"

        done = self.status(up, prefix=prefix)
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stdout, rf"(?m)^sluice-embed +{up} +ready +7$")
        self.assertRegex(done.stdout, rf"(?m)^{prefix}.chunks +{prefix}.embed +3$")
        self.assertRegex(done.stdout, rf"(?m)^{prefix}.queries +{prefix}.embed +0$")

        # Nobody of ours listens at that address; the port tells what should.
        done = self.status("127.0.0.2:9105", prefix=prefix)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"(?m)^sluice-ingest +127.0.0.2:9105 +not running +-$")

        done = self.status(up, unready, prefix=prefix, arguments=["--json"])
        self.assertEqual(done.returncode, 1)
        state = json.loads(done.stdout)
        self.assertFalse(state["ready"])
        self.assertEqual([(p["address"], p["ready"], p["reason"], p["in_flight"])
                          for p in state["programs"]],
                         [(up, True, "", 7), (unready, False, "redis: is away", 7)])
        self.assertIn({"topic": f"{prefix}.chunks", "group": f"{prefix}.embed", "lag": 3},
                      state["topics"])

    def test_what_does_not_run(self):
        free = f"127.0.0.1:{free_port()}"
        done = self.status(free, prefix="nothing-of-this-name")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, rf"{free} +not running")
        self.assertIn("sluice topics create makes them", self.one_line(done, 1))
        self.one_line(self.status("nonsense", prefix="x"), 2)


class Config(Case):
    def test_values_with_their_origin_and_without_secrets(self):
        done = sluice("config", SLUICE_API_KEY="s3cret", SLUICE_TOPIC_PREFIX="mine")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"(?m)^SLUICE_TOPIC_PREFIX=mine +# ")
        self.assertNotIn("s3cret", done.stdout)
        self.assertIn("sluice-embed --print-config", done.stdout)
        self.one_line(sluice("config", SLUICE_PARTITIONS="none"), 2)


if __name__ == "__main__":
    unittest.main()
