"""Documents: from files on disk to passages that a search finds, with every failure counted once."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import unittest

from cluster import BIN, ROOT, STAGES, Cluster, wait_until

from answers import expected_tokens  # Found once cluster is imported.

SAMPLE = os.path.join(ROOT, "deploy", "sample")
CODE = "The launch code of the heron is 7411."


def text_of(words, subject="Herons stand still in shallow water and wait"):
    """Some sentences, and as many words as asked."""
    return (subject + ". ") * (words // 8)


class Store:
    """The SQLite store that the workers write to."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-ingest-")
        self.path = os.path.join(self.directory, "store.db")
        url = "sqlite://" + self.path
        self.environment = {"SLUICE_VECTOR_URL": url, "SLUICE_KEYWORD_URL": url,
                            "SLUICE_SQLITE_VEC": os.path.join(ROOT, ".local", "lib", "vec0.so")}

    def rows(self, collection="default"):
        """(doc_id, version, chunk_index, text) of all chunks, in order."""
        with sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10) as db:
            return db.execute(
                "SELECT doc_id, version, chunk_index, text FROM chunks JOIN scopes ON scopes.id = scope"
                " WHERE collection = ? ORDER BY 1, 2, 3", (collection,)).fetchall()

    def texts(self, doc_id):
        return [text for doc, _, _, text in self.rows() if doc == doc_id]

    def versions(self, doc_id):
        return {version for doc, version, _, _ in self.rows() if doc == doc_id}


class Case(unittest.TestCase):
    searches = 0

    def make_store(self):
        return Store()

    def cluster(self, stages=("embed",), ingest=True, gateway=False, **environment):
        self.store = self.make_store()
        self.addCleanup(shutil.rmtree, self.store.directory)
        cluster = Cluster(gateway=gateway, ingest=ingest, stages=stages, **self.store.environment,
                          **environment)
        cluster.__enter__()
        self.addCleanup(cluster.__exit__, None, None, None)
        return cluster

    def folder(self, **files):
        """A directory with these files (bytes or text), named with __ for / and .md added."""
        root = tempfile.mkdtemp(prefix="sluice-files-")
        self.addCleanup(shutil.rmtree, root)
        for name, content in files.items():
            path = os.path.join(root, name.replace("__", "/") + ".md")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as f:
                f.write(content.encode() if isinstance(content, str) else content)
        return root

    def ingest(self, cluster, root, *arguments, code=0):
        """The summary and the lines on stderr."""
        done = cluster.sluice("ingest", root, *arguments, check=False)
        self.assertEqual(done.returncode, code, done)
        return json.loads(done.stdout), done.stderr

    def search(self, cluster, question):
        """The hits. By the query's id: results come in the order of their partitions."""
        Case.searches += 1
        query_id = f"search-{Case.searches}"
        cluster.produce("queries", json.dumps({"query": question, "mode": "search"}).encode(),
                        headers=["content-type=application/json", f"sluice-id={query_id}"])
        results = lambda: (json.loads(one["payload"]) for one in cluster.consume("results"))
        return wait_until(lambda: next((one for one in results() if one["id"] == query_id), None), 30,
                          "a result")["source_chunks"]


class Documents(Case):
    def test_sample_documents_are_found_and_replaced(self):
        cluster = self.cluster(stages=("embed", "retrieve", "rerank"))
        files = sum(name.endswith((".md", ".txt")) for _, _, names in os.walk(SAMPLE)
                    for name in names)
        summary, errors = self.ingest(cluster, SAMPLE)
        first = self.store.rows()
        self.assertEqual(summary, {"processed": files, "failed": 0, "skipped": 0,
                                   "total_chunks": len(first)})
        self.assertEqual(errors, "")
        self.assertEqual(len({row[0] for row in first}), files)
        self.assertTrue(all(1 <= len(row[3]) <= 500 for row in first))
        for doc_id in {row[0] for row in first}:
            with open(os.path.join(SAMPLE, doc_id), encoding="utf-8") as f:
                content = f.read()
            indexes = [row[2] for row in first if row[0] == doc_id]
            self.assertEqual(indexes, list(range(len(indexes))))
            self.assertTrue(all(text in content for text in self.store.texts(doc_id)))

        passage = first[17]
        hits = self.search(cluster, passage[3])
        self.assertIn((passage[0], passage[2]), [(h["doc_id"], h["chunk_index"]) for h in hits])
        self.assertEqual(hits[0]["chunk_id"], f"{hits[0]['doc_id']}_{hits[0]['chunk_index']}")

        again, _ = self.ingest(cluster, SAMPLE)  # Nothing has changed.
        self.assertEqual((again["processed"], again["failed"], again["total_chunks"]), (0, 0, 0))
        self.assertEqual(self.store.rows(), first)

    def test_documents_wait_on_their_topic_while_batches_wait(self):
        cluster = self.cluster(SLUICE_INGEST_BACKLOG=1, SLUICE_MAX_INFLIGHT=2)
        root = self.folder(**{f"d{n}": text_of(4000) for n in range(40)})
        summary, _ = self.ingest(cluster, root)
        self.assertEqual((summary["processed"], summary["failed"]), (40, 0))
        self.assertEqual(len({row[0] for row in self.store.rows()}), 40)
        self.assertIn("nothing new is taken", cluster.of("ingest")[0].log())

    def test_a_changed_document_is_replaced_and_others_are_left_alone(self):
        cluster = self.cluster()
        root = self.folder(long=text_of(4000), same=text_of(400))
        self.ingest(cluster, root)
        first = self.store.rows()
        with open(os.path.join(root, "long.md"), "w", encoding="utf-8") as f:
            f.write("Only this is left of it.")
        again, _ = self.ingest(cluster, root)
        self.assertEqual((again["processed"], again["failed"], again["total_chunks"]), (1, 0, 1))
        second = self.store.rows()
        self.assertEqual([r for r in second if r[0] == "same.md"],
                         [r for r in first if r[0] == "same.md"])
        self.assertEqual([r[2:] for r in second if r[0] == "long.md"],
                         [(0, "Only this is left of it.")])

    def test_an_embedding_that_fails_fails_its_document_only(self):
        cluster = self.cluster(SLUICE_INGEST_BATCH=1, SLUICE_EMBED_BULK_BATCH=1)
        cluster.upstream.behave(embed=[{"latency_ms": 0},
                                       {"match": "POISON", "error_status": 400, "latency_ms": 1000}])
        old = text_of(800, "The old text")
        self.ingest(cluster, self.folder(bad=old, good="good"))
        before = self.store.texts("bad.md")
        version = self.store.versions("bad.md")
        summary, errors = self.ingest(
            cluster, self.folder(bad=text_of(800, "The new text") + " POISON", good="better"), code=1)
        self.assertEqual(summary, {"processed": 1, "failed": 1, "skipped": 0, "total_chunks": 1})
        self.assertRegex(errors, r"(?m)^bad\.md +chunk \d+: .*400.*$")
        self.assertEqual(self.store.texts("good.md"), ["better"])
        wait_until(lambda: self.store.versions("bad.md") == version, 30, "the old version alone")
        self.assertEqual(self.store.texts("bad.md"), before)

    def test_documents_from_kafka_alone(self):
        cluster = self.cluster()
        json_type = ["content-type=application/json"]

        def put(document, headers=()):
            cluster.produce("documents", json.dumps(document).encode(), headers=[*json_type, *headers])
        put({"doc_id": "a", "text": CODE, "metadata": {"lang": "en"}})
        put({"doc_id": "a", "text": "Another tenant's."}, ["sluice-tenant=other"])
        put({"doc_id": "blank", "text": "  "})
        cluster.produce("documents", b"no message", headers=json_type)
        put({"doc_id": "b", "text": "The last one."})
        wait_until(lambda: len({r[0] for r in self.store.rows()}) == 2 and len(self.store.rows()) == 3,
                   30, "three chunks in the store")
        self.assertCountEqual(self.store.texts("a"), [CODE, "Another tenant's."])
        dead = wait_until(lambda: len(d := cluster.consume("documents.dlq")) == 2 and d, 30,
                          "two dead letters")
        reasons = sorted((d["payload"], d["headers"]["__connect.errors.exception.message"])
                         for d in dead)
        self.assertIn("nothing but white space", reasons[1][1])
        self.assertEqual(reasons[0][0], b"no message")

    def test_a_late_batch_of_an_old_version_does_not_come_back(self):
        cluster = self.cluster(SLUICE_INGEST_BATCH=1, SLUICE_EMBED_BULK_BATCH=1)
        cluster.upstream.behave(embed=[{"latency_ms": 0}, {"match": "SLOW", "latency_ms": 2500},
                                       {"match": "LAST", "latency_ms": 8000}])

        def put(text):
            cluster.produce("documents", json.dumps({"doc_id": "a", "text": text}).encode(), key="a",
                            headers=["content-type=application/json"])

        def embedded():
            return cluster.upstream.stats()["embed"]["in_flight"]
        put("".join(word * 60 for word in ("Early part. ", "SLOW part. ", "More part. ", "LAST part. ")))
        wait_until(lambda: self.store.texts("a"), 30, "the old version's first chunk")
        slow = embedded()
        put("New.")
        wait_until(lambda: self.store.texts("a") == ["New."], 30, "the new version alone")
        wait_until(lambda: embedded() < slow, 30, "an old chunk to come back late")
        for left in ("others are still out", ""):
            wait_until(lambda: left or embedded() == 0, 30, "the last old chunks")
            self.stored(cluster)
            self.assertEqual(self.store.texts("a"), ["New."], left)

    def test_the_later_of_two_messages_wins_however_large_the_first_is(self):
        cluster = self.cluster(ingest=False)
        for n in range(4):
            for text in (text_of(150000), "Short."):
                cluster.produce("documents", json.dumps({"doc_id": f"d{n}", "text": text}).encode(),
                                key=f"d{n}", headers=["content-type=application/json"])
        cluster.start("ingest")  # Both wait for it.
        wait_until(lambda: os.path.exists(self.store.path) and
                   all(self.store.texts(f"d{n}") == ["Short."] for n in range(4)), 60,
                   "the later ones alone")
        self.stored(cluster)
        self.assertEqual({row[3] for row in self.store.rows()}, {"Short."})

    def stored(self, cluster):
        """Waits until all vectors that came are dealt with."""
        def idle():
            state = json.loads(cluster.sluice("status", "--json", check=False).stdout)
            return all(t["lag"] == 0 for t in state["topics"] if t["topic"].endswith(".vectors"))
        wait_until(idle, 30, "no vectors waiting")


class Whole(Case):
    def test_ingested_documents_answer_a_question(self):
        cluster = self.cluster(stages=STAGES, gateway=True)
        self.ingest(cluster, SAMPLE)
        cluster.upstream.behave(chat={"token_interval_ms": 2})
        question = "Question 1: how long does the quarantine last?"
        done = cluster.sluice("ask", question)
        text, _, rest = done.stdout.partition("\n")
        self.assertEqual(text, "".join(expected_tokens(question, 50)))
        sources = [line for line in rest.splitlines() if line.startswith("[")]
        self.assertEqual([line.split()[0] for line in sources], [f"[{n}]" for n in range(1, 6)])
        known = {f"{doc}#{index}" for doc, _, index, _ in self.store.rows()}
        self.assertLessEqual({line.split()[1] for line in sources}, known)
        for stage in STAGES:
            self.assertRegex(rest, rf"(?m)^{stage} +\d+ +\d+ +\d+ +\d+$")
        self.assertNotIn("answered without", rest)

        self.assertIn("[5] ", cluster.sluice("ask", "--search", question).stdout)
        result = json.loads(cluster.sluice("ask", "--json", question).stdout)
        self.assertEqual(result["answer"], "".join(expected_tokens(question, 50)))

        hosts = ",".join(worker.admin()[len("http://"):] for worker in cluster.workers)
        cluster._extra["SLUICE_ADMIN_HOSTS"] = hosts
        status = cluster.sluice("status").stdout
        for worker in cluster.workers:
            self.assertRegex(status, rf"(?m)^sluice-{worker.name} +\S+ +ready +\d+$")


class Faults(Case):
    def files(self, count=60):
        return self.folder(**{f"d{i}": text_of(400, f"Paper {i} says little") for i in range(count)})

    def begin(self, cluster, root):
        return subprocess.Popen([os.path.join(BIN, "sluice"), "ingest", root],
                                env=cluster.environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def test_a_worker_that_is_lost_changes_no_count(self):
        cluster = self.cluster()
        cluster.upstream.behave(embed={"latency_ms": 100})
        with self.begin(cluster, self.files()) as process:
            wait_until(lambda: os.path.exists(self.store.path) and len(self.store.rows()) > 20, 30,
                       "some chunks")
            cluster.kill(cluster.of("ingest")[0])
            cluster.start("ingest")
            out, err = process.communicate(timeout=100)
        rows = self.store.rows()
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(json.loads(out), {"processed": 60, "failed": 0, "skipped": 0,
                                           "total_chunks": len(rows)})
        self.assertEqual(len({(row[0], row[1]) for row in rows}), 60)

    def test_a_redis_that_is_away_changes_no_count(self):
        cluster = self.cluster()
        cluster.upstream.behave(embed={"latency_ms": 50})
        with self.begin(cluster, self.files(30)) as process:
            wait_until(lambda: os.path.exists(self.store.path) and self.store.rows(), 30, "a chunk")
            cluster.redis("CLIENT", "PAUSE", "2500")
            out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(json.loads(out), {"processed": 30, "failed": 0, "skipped": 0,
                                           "total_chunks": len(self.store.rows())})

    def test_a_redis_that_lost_its_state_is_repaired_by_ingesting_again(self):
        cluster = self.cluster(SLUICE_INGEST_BATCH=8)
        cluster.upstream.behave(embed={"latency_ms": 200})
        root = self.files(30)
        first = {name: 0 for name in os.listdir(root)}
        self.ingest(cluster, root)
        whole = len(self.store.rows())
        for name in first:  # Each is changed, and longer.
            with open(os.path.join(root, name), "a", encoding="utf-8") as f:
                f.write(text_of(600, "Now the herons fly away over the water"))
        with self.begin(cluster, root) as process:
            wait_until(lambda: len(self.store.rows()) > whole + 8, 30, "chunks of new versions")
            keys = cluster.redis("KEYS", cluster.environment()["SLUICE_TOPIC_PREFIX"] + ":ingest:*")
            cluster.redis("DEL", *keys.split())
            _, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, 1)
        self.assertIn("lost", err)
        again, _ = self.ingest(cluster, root)
        self.assertEqual((again["processed"], again["failed"]), (30, 0))
        rows = self.store.rows()
        self.assertEqual(again["total_chunks"], len(rows))
        self.assertEqual(len({row[:2] for row in rows}), 30)  # One version of each.

    def test_ctrl_c_and_standstill(self):
        cluster = self.cluster(stages=(), ingest=False)
        root = self.folder(one="text")
        done = cluster.sluice("ingest", root, "--timeout", "3s", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("1 of 1 documents are not stored, and nothing moved for 3 s", done.stderr)
        self.assertEqual(json.loads(done.stdout),
                         {"processed": 0, "failed": 0, "skipped": 0, "total_chunks": 0})
        with self.begin(cluster, root) as process:
            wait_until(lambda: len(cluster.consume("documents")) == 2, 30, "the second document")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)

    def test_what_is_missing_is_named(self):
        cluster = self.cluster(stages=(), ingest=False)
        root = self.folder(one="text")
        cluster.prefix = "nothing-of-this-name"
        done = cluster.sluice("ingest", root, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("sluice topics create makes it", done.stderr)
        done = cluster.sluice("ingest", os.path.join(root, "not-there"), check=False)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
        done = cluster.sluice("ingest", root, "--pattern", "*.rst", check=False)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
        self.assertIn("fits *.rst", done.stderr)


if __name__ == "__main__":
    unittest.main()
