"""Documents in OpenSearch, and in a stand-in for Qdrant: found, replaced and removed, as in any
store, and whole after a worker was killed."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from cluster import BIN, ROOT, free_port, wait_until
from test_ingest import Case, Store, text_of

CODE = "The launch code of the heron is 7411."


class HttpServer:
    def __init__(self, port):
        self.port = port

    def call(self, method, path, body=None):
        """Status and JSON of an answer; (None, None) where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionError:
            return None, None
        finally:
            connection.close()


class OpenSearch(HttpServer):
    """A server for all tests of a class."""

    def __init__(self):
        super().__init__(free_port())
        self.data = tempfile.mkdtemp(prefix="sluice-opensearch-")
        serve = os.path.join(ROOT, "deploy", "opensearch", "serve")
        self.process = subprocess.Popen((serve, self.data, str(self.port), str(free_port())),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: self.call("GET", "/")[0] == 200, 120, "OpenSearch")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.data)


class OpenSearchStore:
    """An index of a test's own; both searches are in it."""

    count = 0

    def __init__(self, server):
        OpenSearchStore.count += 1
        self.server, self.index = server, f"chunks{OpenSearchStore.count}"
        self.directory = tempfile.mkdtemp(prefix="sluice-ingest-")
        url = f"opensearch+http://127.0.0.1:{server.port}/{self.index}"
        self.environment = {"SLUICE_VECTOR_URL": url, "SLUICE_KEYWORD_URL": url}

    def rows(self):
        """(doc_id, version, chunk_index) of all chunks, in order."""
        status, found = self.server.call("POST", f"/{self.index}/_search", {
            "size": 10000, "_source": ["doc_id", "version", "chunk_index"]})
        if status != 200:
            return []
        chunks = [hit["_source"] for hit in found["hits"]["hits"]]
        return sorted((c["doc_id"], c["version"], c["chunk_index"]) for c in chunks)


class QdrantStore:
    """Vectors in a server of the test's own, words in SQLite."""

    def __init__(self):
        script = os.path.join(ROOT, "tests", "support", "qdrant.py")
        self.process = subprocess.Popen((sys.executable, script, "--port", "0", "--with-parent"),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.server = HttpServer(int(self.process.stdout.readline().split()[1]))
        self.words = Store()
        self.directory = self.words.directory
        url = f"qdrant+http://127.0.0.1:{self.server.port}/chunks"
        self.environment = {**self.words.environment, "SLUICE_VECTOR_URL": url}

    def rows(self):
        status, found = self.server.call("POST", "/collections/chunks/points/scroll",
                                         {"limit": 10000})
        if status != 200:
            return []
        chunks = [point["payload"] for point in found["result"]["points"]]
        return sorted((c["doc_id"], c["version"], c["chunk_index"]) for c in chunks)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Documents:
    """What holds for both."""

    def test_documents_are_found_replaced_and_removed(self):
        cluster = self.cluster(stages=("embed", "retrieve", "rerank"))
        root = self.folder(a=text_of(200), b=CODE)
        summary, errors = self.ingest(cluster, root)
        first = wait_until(lambda: len(rows := self.store.rows()) >= summary["total_chunks"] and rows,
                           10, "all chunks")
        self.assertEqual((summary["processed"], summary["failed"], errors), (2, 0, ""))
        self.assertEqual(summary["total_chunks"], len(first))
        self.assertEqual(self.search(cluster, "launch code")[0]["text"], CODE)

        with open(os.path.join(root, "a.md"), "w", encoding="utf-8") as f:
            f.write("Egrets are white.")
        self.ingest(cluster, root)
        wait_until(lambda: [row[0] for row in self.store.rows()] == ["a.md", "b.md"], 10,
                   "the old version's end")
        self.assertGreater(self.store.rows()[0][1], first[0][1])
        self.assertEqual(self.search(cluster, "egrets")[0]["doc_id"], "a.md")

        cluster.produce("documents", json.dumps({"doc_id": "a.md", "delete": True}).encode(),
                        headers=["content-type=application/json"])
        wait_until(lambda: [row[0] for row in self.store.rows()] == ["b.md"], 10, "its removal")

    def test_a_worker_that_is_killed_while_it_writes_leaves_exactly_the_right_chunks(self):
        cluster = self.cluster()
        documents = {f"d{i}": text_of(400 + 200 * i) for i in range(12)}
        root = self.folder(**documents)
        self.ingest(cluster, root)
        once = [(row[0], row[2]) for row in self.store.rows()]
        for name in documents:
            with open(os.path.join(root, name + ".md"), "a", encoding="utf-8") as f:
                f.write("It changed.")
        versions = {row[1] for row in self.store.rows()}
        run = subprocess.Popen((os.path.join(BIN, "sluice"), "ingest", root),
                               env=cluster.environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(run.stdout.close)
        wait_until(lambda: {row[1] for row in self.store.rows()} - versions, 30, "a new version")
        cluster.kill(cluster.of("ingest")[0])
        cluster.start("ingest")
        summary = json.loads(run.communicate(timeout=90)[0].splitlines()[-1])
        self.assertEqual((run.returncode, summary["processed"], summary["failed"]), (0, 12, 0))
        wait_until(lambda: not {row[1] for row in self.store.rows()} & versions, 10,
                   "the old versions' end")
        rows = self.store.rows()
        self.assertEqual(len(rows), summary["total_chunks"])
        for name in documents:
            own = [row for row in rows if row[0] == name + ".md"]
            self.assertEqual([row[2] for row in own], list(range(len(own))))
            self.assertEqual(len({row[1] for row in own}), 1)
            self.assertGreaterEqual(len(own), sum(row[0] == name + ".md" for row in once))


class InOpenSearch(Documents, Case):
    @classmethod
    def setUpClass(cls):
        cls.server = OpenSearch()
        cls.addClassCleanup(cls.server.stop)

    def make_store(self):
        return OpenSearchStore(self.server)


class InQdrant(Documents, Case):
    def make_store(self):
        store = QdrantStore()
        self.addCleanup(store.stop)
        return store


if __name__ == "__main__":
    unittest.main()
