"""Kafka behind TLS and passwords: questions are answered through it; what is refused says which
variable is wrong, in the log and in /readyz, and is tried again."""

import concurrent.futures
import os
import subprocess
import unittest

from cluster import BIN, Cluster, get, wait_until  # First: it sets the path of what follows.
from secure_kafka import SCRAM_WORKS, USER, Authority, SecureKafka

PASSWORD = "kafka-Canary-5d3a"


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

    def test_questions_are_answered_through_sasl_ssl(self):
        with self.cluster("sasl_ssl", "SCRAM-SHA-256" if SCRAM_WORKS else "PLAIN") as cluster:
            for i in range(3):
                status, result = cluster.ask(f"Question {i}: who may read this?")
                self.assertEqual((status, result["outcome"]), (200, "done"), result)
            for worker in cluster.workers:
                self.assertNotIn(PASSWORD, worker.log())

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
