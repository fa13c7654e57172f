"""Kafka behind TLS and passwords: questions are answered through it; what is refused says which
variable is wrong, in the log and in /readyz, and is tried again."""

import concurrent.futures
import os
import re
import subprocess
import unittest
import unittest.mock

from cluster import BIN, ROOT, Cluster, free_port, get, wait_until  # First: it sets the path of what follows.
from secure_kafka import SCRAM_WORKS, USER, Authority, SecureKafka

CANARY = "Canary-5d3a"
PASSWORD = f"kafka-{CANARY}"
# What docs/REDIS.md says that a user needs.
ACL = re.search(r"ACL SETUSER sluice on >PASSWORD (.*)", open(
    os.path.join(ROOT, "docs", "REDIS.md"), encoding="utf-8").read()).group(1)


class SecureRedis:
    """A Redis that lets in nobody but an administrator and a user with few rights."""

    def __init__(self, password):
        port = free_port()
        self.url = f"redis://sluice:{password}@127.0.0.1:{port}"
        self.admin_url = f"redis://root:root@127.0.0.1:{port}"
        self._process = subprocess.Popen(["redis-server", "-"], stdin=subprocess.PIPE,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with self._process.stdin as settings:
            settings.write(f"""port {port}
bind 127.0.0.1
save ""
rdbcompression no
user root on >root ~* &* +@all
user sluice on >{password} {ACL.replace("<p>", "t*")}
user default off
""".encode())
        wait_until(lambda: self._ask("PING") == "PONG\n", 10, "Redis")

    def _ask(self, *command):
        return subprocess.run(["redis-cli", "-u", self.admin_url, *command], capture_output=True,
                              text=True, errors="replace", timeout=10, check=False).stdout

    def everything(self):
        """All keys, and what is in them as Redis would move it elsewhere."""
        keys = self._ask("KEYS", "*").split("\n")[:-1]
        return "".join(key + self._ask("DUMP", key) for key in keys)

    def stop(self):
        self._process.terminate()
        self._process.wait(10)


class SecureTransport(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kafka = SecureKafka(PASSWORD)
        cls.kafka.__enter__()
        cls.addClassCleanup(cls.kafka.__exit__)

    def cluster(self, listener, mechanism="none", **options):
        return Cluster(**self.kafka.environment(listener, mechanism), **options)

    def make_topics(self, listener, mechanism="none", **changes):
        """What `sluice topics create` says of a Kafka with these settings."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
        environment = {**base, **self.kafka.environment(listener, mechanism), **changes}
        return subprocess.run([os.path.join(BIN, "sluice"), "topics", "create"], env=environment,
                              capture_output=True, text=True, timeout=60, check=False)

    def at_once(self, calls):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda call: self.make_topics(*call[:2], **dict(*call[2:3])), calls))

    def test_questions_are_answered_with_least_rights_and_secrets_stay_secret(self):
        """A stack with a secret in each option that its programs have for one, some calls failing."""
        redis = SecureRedis(f"redis-{CANARY}")
        self.addCleanup(redis.stop)
        names = {"SLUICE_TEST_REDIS": redis.admin_url,
                 "SLUICE_TEST_BROKERS": f"127.0.0.1:{self.kafka.ports['plaintext']}"}
        secrets = {f"SLUICE_{name}_API_KEY": f"key-{name}-{CANARY}"
                   for name in ("EMBED", "CHAT", "RERANK")}
        secrets["SLUICE_REDIS_URL"] = redis.url
        secrets["SLUICE_API_KEY"] = f"caller-{CANARY}"
        with unittest.mock.patch.dict(os.environ, names), \
                self.cluster("sasl_ssl", "SCRAM-SHA-256" if SCRAM_WORKS else "PLAIN",
                             fresh_redis=False, **secrets) as cluster:
            for i in range(3):
                status, result = cluster.ask(f"Question {i}: who may read this?")
                self.assertEqual((status, result["outcome"]), (200, "done"), result)
            self.assertNotIn("NOPERM", "".join(w.log() for w in cluster.workers))
            written = []
            cluster.upstream.behave(chat={"error_status": 401})
            written.append(str(cluster.ask("Question 4: whose key is wrong?")))
            cluster.upstream.behave(embed={"error_status": 500})
            written.append(str(cluster.ask("Question 5: what fails?", timeout_ms=3000)))
            cluster.produce("queries", b"\xdd\x10\x00\x00\x00", key="poison")
            wait_until(lambda: cluster.consume("queries.dlq"), 20, "a dead letter")
            for topic in ("queries", "retrieve", "rerank", "generate", "replies", "results",
                          "analytics", "queries.dlq"):
                written.append(str(cluster.consume(topic)))
            for worker in cluster.workers:
                written.append(get(worker.admin() + "/metrics")[1].decode())
                written.append(subprocess.run(
                    [os.path.join(BIN, f"sluice-{worker.name}"), "--print-config"],
                    env=cluster.environment(), capture_output=True, text=True, timeout=20,
                    check=True).stdout)
            written.append(cluster.sluice("config").stdout)
            written.append(cluster.sluice("status", check=False).stdout)
            written.append(redis.everything())
        written += [worker.log() for worker in cluster.workers]
        self.assertIn("(hidden)", "".join(written))
        self.assertIn(f"{cluster.prefix}:epoch", "".join(written))
        for text in written:
            self.assertNotIn(CANARY, text)

    def test_every_mechanism_and_kind_of_listener_lets_us_in(self):
        kinds = (("ssl", "none"), ("sasl_ssl", "PLAIN"), ("sasl_plaintext", "PLAIN"),
                 ("sasl_ssl", "SCRAM-SHA-512"), ("sasl_plaintext", "SCRAM-SHA-256"))
        for (listener, mechanism), done in zip(kinds, self.at_once(kinds)):
            with self.subTest(listener=listener, mechanism=mechanism):
                if mechanism.startswith("SCRAM") and not SCRAM_WORKS:
                    self.assertEqual(done.returncode, 1)
                    self.assertIn("Kafka 4 refuses SCRAM by librdkafka", done.stderr)
                else:
                    self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_command_line_says_which_variable_is_wrong(self):
        stranger = Authority(self.kafka.directory, "stranger")
        certificate, key = stranger.issue("client")
        user = "SLUICE_KAFKA_USERNAME, SLUICE_KAFKA_PASSWORD"
        cases = (
            ("sasl_ssl", "SCRAM-SHA-256", {"SLUICE_KAFKA_PASSWORD": "wrong-Canary"}, user),
            ("sasl_ssl", "PLAIN", {"SLUICE_KAFKA_USERNAME": "nobody"}, user),
            ("sasl_ssl", "PLAIN", {"SLUICE_KAFKA_CA_FILE": stranger.ca_file},
             "SLUICE_KAFKA_CA_FILE"),
            # The certificate is for 127.0.0.1 and nothing else.
            ("sasl_ssl", "PLAIN",
             {"SLUICE_KAFKA_BROKERS": f"localhost:{self.kafka.ports['sasl_ssl']}"},
             "SLUICE_KAFKA_CA_FILE"),
            ("ssl", "none", {"SLUICE_KAFKA_CERT_FILE": "", "SLUICE_KAFKA_KEY_FILE": ""},
             "SLUICE_KAFKA_CERT_FILE"),
            ("ssl", "none",
             {"SLUICE_KAFKA_CERT_FILE": certificate, "SLUICE_KAFKA_KEY_FILE": key},
             "SLUICE_KAFKA_CERT_FILE"),
            ("sasl_ssl", "PLAIN",
             {"SLUICE_KAFKA_BROKERS": f"127.0.0.1:{self.kafka.ports['plaintext']}"},
             "SLUICE_KAFKA_SECURITY"))
        for (listener, mechanism, changes, says), done in zip(cases, self.at_once(cases)):
            with self.subTest(listener=listener, changes=sorted(changes), says=says):
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn(says, done.stderr)
                self.assertNotIn("Canary", done.stdout + done.stderr)

    def test_a_refused_worker_says_so_keeps_trying_and_is_let_in(self):
        secret = os.path.join(self.kafka.directory, "password")
        with open(secret, "w", encoding="ascii") as f:
            f.write("late-Canary\n")
        with self.cluster("sasl_ssl", "PLAIN", stages=(), gateway=False) as cluster:
            wrong = {"SLUICE_KAFKA_USERNAME": "late", "SLUICE_KAFKA_PASSWORD": "",
                     "SLUICE_KAFKA_PASSWORD_FILE": secret}
            refused = [cluster.start(name, wait=False, **wrong) for name in ("embed", "gateway")]
            for worker in refused:
                def told(worker=worker):
                    admin = worker.admin()
                    status, body = get(admin + "/readyz") if admin else (0, b"")
                    return status == 503 and b"SLUICE_KAFKA_PASSWORD" in body
                wait_until(told, 30, f"{worker.name} says in /readyz which variable is wrong")
            self.kafka.add_user("late", "late-Canary")
            for worker in refused:
                wait_until(worker.ready, 30, f"{worker.name} is let in")
                self.assertIn("SLUICE_KAFKA_PASSWORD", worker.log())
                self.assertNotIn("Canary", worker.log())

    def test_contradictions_stop_a_program_at_start(self):
        with Cluster(stages=(), gateway=False, **self.kafka.environment("plaintext")) as cluster:
            for changes, says in (
                    ({"SLUICE_KAFKA_SECURITY": "sasl_ssl"}, "SLUICE_KAFKA_SASL_MECHANISM"),
                    ({"SLUICE_KAFKA_SECURITY": "ssl", "SLUICE_KAFKA_CERT_FILE": "/nowhere",
                      "SLUICE_KAFKA_KEY_FILE": "/nowhere"}, "SLUICE_KAFKA_CERT_FILE: /nowhere"),
                    ({"SLUICE_KAFKA_USERNAME": USER}, "SLUICE_KAFKA_USERNAME")):
                worker = cluster.start("embed", wait=False, **changes)
                self.assertEqual(worker.process.wait(20), 2)
                self.assertEqual(len(worker.log().splitlines()), 1, worker.log())
                self.assertIn(says, worker.log())
                cluster.killed.append(worker)


if __name__ == "__main__":
    unittest.main()
