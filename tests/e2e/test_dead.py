"""What cannot be processed becomes a dead letter, and `sluice dead` lists it, sends it again or drops
it."""

import json
import os
import re
import subprocess
import unittest

from cluster import BIN, Cluster, wait_until

JSON_TYPE = "content-type=application/json"


def job(question="why?"):
    return json.dumps({"query": question}).encode()


class Dead(unittest.TestCase):
    def cluster(self, **options):
        cluster = Cluster(gateway=False, **options)
        cluster.__enter__()
        self.addCleanup(lambda: cluster.__exit__(None, None, None))
        return cluster

    def letters(self, cluster, *arguments):
        out = cluster.sluice("dead", "list", "--json", *arguments).stdout
        return [json.loads(line) for line in out.splitlines()]

    def died(self, cluster, count):
        return wait_until(lambda: (found := self.letters(cluster)) and len(found) == count and found,
                          20, f"{count} dead letters")

    def refused(self, cluster, code, *arguments):
        """It ended with this code and one line on stderr."""
        done = cluster.sluice("dead", *arguments, check=False)
        self.assertEqual(done.returncode, code, done)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("sluice dead"), done.stderr)
        return done.stderr

    def test_a_job_with_a_bad_id_is_answered_after_it_is_sent_again(self):
        cluster = self.cluster()
        cluster.produce("queries", job("sent again?"), key="mine", headers=(
            JSON_TYPE, "sluice-id=no id!", "sluice-tenant=default", "sluice-deadline=1000",
            f"reply-to={cluster.topic('replies')}:0", "traceparent=00-" + 32 * "a" + "-" + 16 * "b" + "-01"))
        letter, = self.died(cluster, 1)
        self.assertEqual((letter["stage"], letter["reason"], letter["key"]), ("embed", "BADMSG", "mine"))
        self.assertEqual(letter["origin"]["topic"], cluster.topic("queries"))
        self.assertIn("sluice-id", letter["message"])

        before = len(cluster.consume("queries"))
        dry = cluster.sluice("dead", "redrive").stdout
        self.assertIn("1 would be sent", dry)
        self.assertIn("no id!", dry)
        self.assertEqual(len(cluster.consume("queries")), before)
        self.assertEqual(len(self.letters(cluster)), 1)

        sent = cluster.sluice("dead", "redrive", "--yes").stdout
        new_id = re.search(r" id ([0-9a-f-]{36})\n", sent).group(1)
        self.assertIn("\n1 sent\n", sent)
        self.assertEqual(self.letters(cluster), [])
        again = next(r for r in cluster.consume("queries") if r["headers"].get("sluice-id") == new_id)
        self.assertEqual((again["key"], again["payload"]), ("mine", job("sent again?")))
        self.assertEqual(set(again["headers"]), {"content-type", "sluice-id", "sluice-tenant",
                                                 "traceparent", "sluice-attempt"})
        result = wait_until(lambda: next((json.loads(r["payload"]) for r in cluster.consume("results")
                                          if r["headers"].get("sluice-id") == new_id), None),
                            30, "its result")
        self.assertEqual((result["outcome"], result["query"]), ("done", "sent again?"))

    def test_what_never_can_be_processed_goes_round_until_the_cap(self):
        cluster = self.cluster(stages=("embed",))
        cluster.produce("queries", b"\xc1 poison", key="pill")
        for attempt in range(3):
            letter, = self.died(cluster, 1)
            self.assertEqual(letter["attempt"], attempt)
            self.assertIn("1 sent", cluster.sluice("dead", "redrive", "--yes").stdout)
        letter, = self.died(cluster, 1)
        self.assertEqual(letter["attempt"], 3)
        done = cluster.sluice("dead", "redrive", "--yes").stdout
        self.assertIn("0 sent, 1 tried SLUICE_DEAD_ATTEMPTS=3 times or more and not sent", done)
        self.assertEqual(len(cluster.consume("queries")), 4)
        at = f"{letter['partition']}:{letter['offset']}"
        shown = cluster.sluice("dead", "show", "queries", at).stdout
        self.assertIn("__connect.errors.exception.class.name: BADMSG", shown)
        self.assertIn("00000000  c1 20 70 6f 69 73 6f 6e", shown)
        raw = subprocess.run([os.path.join(BIN, "sluice"), "dead", "show", "queries.dlq", at, "--raw"],
                             env=cluster.environment(), check=True, capture_output=True, timeout=60)
        self.assertEqual(raw.stdout, b"\xc1 poison")
        self.assertIn("1 would be dropped", cluster.sluice("dead", "drop").stdout)
        self.assertEqual(len(self.letters(cluster)), 1)
        self.assertIn("\n1 dropped\n", cluster.sluice("dead", "drop", "--yes").stdout)
        self.assertIn("no dead letters", cluster.sluice("dead", "list").stdout)

    def put(self, cluster, name, reason, origin=None, headers=()):
        self.count = getattr(self, "count", 0) + 1
        origin = cluster.topic(origin or name)
        cluster.produce(name + ".dlq", b"{}", key=f"key-{self.count}", headers=(
            JSON_TYPE, f"__connect.errors.topic={origin}", "__connect.errors.partition=0",
            f"__connect.errors.offset={self.count}", "__connect.errors.stage=ingest",
            f"__connect.errors.exception.class.name={reason}",
            "__connect.errors.exception.message=so it is", "sluice-attempt=0", *headers))

    def test_what_is_not_meant_stays_as_it_is(self):
        cluster = self.cluster(stages=())
        more = {f"more-{i}": str(i) for i in range(40)}
        for reason in ("TIMEDOUT", "BADMSG", "TIMEDOUT", "BADMSG", "TIMEDOUT"):
            self.put(cluster, "documents", reason, headers=[f"{n}={v}" for n, v in more.items()])
        self.put(cluster, "chunks", "BADMSG")
        before = {letter["key"]: letter for letter in self.letters(cluster)}
        self.assertEqual(len(self.letters(cluster, "--reason", "badmsg")), 3)
        self.assertEqual(len(self.letters(cluster, "--topic", "documents", "--newer", "1h")), 5)
        self.assertEqual(self.letters(cluster, "--older", "1h"), [])

        done = cluster.sluice("dead", "drop", "--topic", "documents", "--reason", "BADMSG", "--yes")
        self.assertIn("\n2 dropped, 2 that stay written again\n", done.stdout)
        after = {letter["key"]: letter for letter in self.letters(cluster)}
        self.assertEqual(sorted(after), ["key-1", "key-3", "key-5", "key-6"])
        for key, letter in after.items():
            for name in ("topic", "timestamp_ms", "origin", "reason", "message", "attempt", "bytes"):
                self.assertEqual(letter[name], before[key][name])
        stayed = cluster.consume("documents.dlq")
        self.assertEqual({r["key"] for r in stayed}, {"key-1", "key-3", "key-5"})
        for record in stayed:
            self.assertEqual(len(record["headers"]), 8 + len(more))

        cluster.sluice("dead", "redrive", "--reason", "TIMEDOUT", "--yes")
        self.assertEqual([letter["key"] for letter in self.letters(cluster)], ["key-6"])
        sent = cluster.consume("documents")
        self.assertEqual(sorted(r["key"] for r in sent), ["key-1", "key-3", "key-5"])
        for record in sent:
            self.assertEqual(record["headers"],
                             {"content-type": "application/json", "sluice-attempt": "1", **more})

    def test_many_are_sent_in_batches_and_all_once(self):
        cluster = self.cluster(stages=())
        path = os.path.join(cluster.directory, "many")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(f"value {i}\n" for i in range(1500))
        headers = ["__connect.errors.partition=0", "__connect.errors.offset=1",
                   f"__connect.errors.topic={cluster.topic('vectors')}"]
        subprocess.run(["kcat", "-P", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t",
                        cluster.topic("vectors.dlq"), "-l", path,
                        *(word for header in headers for word in ("-H", header))],
                       check=True, timeout=30, capture_output=True)
        self.assertIn("\n1500 sent\n", cluster.sluice("dead", "redrive", "--yes").stdout)
        self.assertEqual(sorted(r["payload"] for r in cluster.consume("vectors")),
                         sorted(f"value {i}".encode() for i in range(1500)))
        self.assertEqual(self.letters(cluster), [])

    def test_a_letter_whose_origin_is_gone_stays(self):
        cluster = self.cluster(stages=())
        self.put(cluster, "documents", "BADMSG")
        self.put(cluster, "documents", "BADMSG", origin="gone")
        self.put(cluster, "documents", "BADMSG")
        done = cluster.sluice("dead", "redrive", "--yes")
        self.assertIn("\n2 sent, 1 whose topic does not exist and not sent, 1 that stay written again\n",
                      done.stdout)
        self.assertEqual([letter["key"] for letter in self.letters(cluster)], ["key-2"])
        self.assertEqual(sorted(r["key"] for r in cluster.consume("documents")), ["key-1", "key-3"])

    def test_what_is_wrong_is_said_in_one_line(self):
        cluster = self.cluster(stages=())
        self.put(cluster, "queries", "BADMSG")
        self.assertIn("--fast", self.refused(cluster, 2, "list", "--fast"))
        self.assertIn("--yes", self.refused(cluster, 2, "list", "--yes"))
        self.assertIn("--older", self.refused(cluster, 2, "list", "--older", "soon"))
        self.assertIn("list, show, redrive or drop", self.refused(cluster, 2))
        self.assertIn("'all'", self.refused(cluster, 2, "drop", "all"))
        self.assertIn("exclude", self.refused(cluster, 2, "drop", "--yes", "--dry-run"))
        self.assertIn("TOPIC PARTITION:OFFSET", self.refused(cluster, 2, "show", "queries"))
        self.assertIn("0:17", self.refused(cluster, 2, "show", "queries", "17"))
        self.assertIn("no record at 0:5", self.refused(cluster, 1, "show", "queries", "0:5"))
        self.assertIn("no record at 7:0", self.refused(cluster, 1, "show", "queries", "7:0"))
        self.assertIn(cluster.topic("other.dlq"), self.refused(cluster, 1, "list", "--topic", "other"))


if __name__ == "__main__":
    unittest.main()
