"""Documents in Redis's Query Engine: found, replaced and removed, as in any store."""

import json
import os
import socket
import subprocess
import tempfile
import unittest

from cluster import ROOT, wait_until
from test_ingest import Case, text_of

ENGINE = os.path.join(ROOT, ".local", "query-engine")
CODE = "The launch code of the heron is 7411."


class RedisStore:
    """A server of the test's own, and what the workers wrote to it."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="sluice-ingest-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            (os.path.join(ENGINE, "valkey-server"), "--bind", "127.0.0.1", "--port", str(self.port),
             "--save", "", "--dir", self.directory, "--loadmodule",
             os.path.join(ENGINE, "redisearch.so")), stdout=subprocess.DEVNULL)
        wait_until(lambda: self.ask("PING", check=False) == "PONG", 10, "the Query Engine")
        url = f"redis://127.0.0.1:{self.port}/chunks"
        self.environment = {"SLUICE_VECTOR_URL": url, "SLUICE_KEYWORD_URL": url}

    def ask(self, *command, check=True):
        return subprocess.run(("redis-cli", "-p", str(self.port), *command), check=check,
                              capture_output=True, text=True, timeout=10).stdout.strip()

    def rows(self):
        """(doc_id, version, chunk_index) of all chunks, in order."""
        keys = self.ask("--scan", "--pattern", "chunks:*").splitlines()
        parts = [key.split(",", 2)[2].rsplit(":", 2) for key in keys]
        return sorted((doc_id, int(version), int(index)) for doc_id, version, index in parts)

    def stop(self):
        self.process.kill()
        self.process.wait()


class InRedis(Case):
    def make_store(self):
        store = RedisStore()
        self.addCleanup(store.stop)
        return store

    def test_documents_are_found_replaced_and_removed(self):
        cluster = self.cluster(stages=("embed", "retrieve", "rerank"))
        root = self.folder(a=text_of(200), b=CODE)
        summary, errors = self.ingest(cluster, root)
        first = self.store.rows()
        self.assertEqual((summary["processed"], summary["failed"], errors), (2, 0, ""))
        self.assertEqual(summary["total_chunks"], len(first))
        self.assertEqual(self.search(cluster, "launch code")[0]["text"], CODE)

        with open(os.path.join(root, "a.md"), "w") as f:
            f.write("Egrets are white.")
        self.ingest(cluster, root)
        wait_until(lambda: [row[0] for row in self.store.rows()] == ["a.md", "b.md"], 10,
                   "the old version's end")
        self.assertGreater(self.store.rows()[0][1], first[0][1])
        self.assertEqual(self.search(cluster, "egrets")[0]["doc_id"], "a.md")

        cluster.produce("documents", json.dumps({"doc_id": "a.md", "delete": True}).encode(),
                        headers=["content-type=application/json"])
        wait_until(lambda: [row[0] for row in self.store.rows()] == ["b.md"], 10, "its removal")


if __name__ == "__main__":
    unittest.main()
