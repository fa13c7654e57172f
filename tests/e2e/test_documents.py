"""Documents over HTTP, from the upload to the answer that rests on it."""

import json
import shutil
import unittest
import urllib.error
import urllib.request

from cluster import Cluster
from test_ingest import CODE, Store, text_of

NEW_CODE = "The launch code of the heron is 9023."


class Documents(unittest.TestCase):
    def setUp(self):
        self.store = Store()
        self.addCleanup(shutil.rmtree, self.store.directory)
        self.cluster = Cluster(gateway=True, ingest=True, stages=("embed", "retrieve", "rerank"),
                               **self.store.environment)
        self.cluster.__enter__()
        self.addCleanup(self.cluster.__exit__, None, None, None)

    def call(self, method, path, body=None, code=200, **headers):
        request = urllib.request.Request(
            self.cluster.url + path, method=method, data=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, answer = error.code, error.read()
        self.assertEqual(status, code, answer)
        return json.loads(answer) if headers.get("accept") is None else answer.decode()

    def finish(self, run):
        """Watches the run to its end; its last state."""
        stream = self.call("GET", f"/v1/ingests/{run['ingest_id']}", accept="text/event-stream")
        self.assertTrue(stream.endswith("data: [DONE]\n\n"), stream)
        last = [block for block in stream.split("\n\n") if block.startswith("event: done")]
        self.assertEqual(len(last), 1, stream)
        return json.loads(last[0].split("data: ", 1)[1])

    def put(self, text, doc_id="notes/heron.md"):
        return self.finish(self.call("POST", f"/v1/documents?doc_id={doc_id}", text.encode(),
                                     code=202, content_type="text/markdown"))

    def search(self, question):
        found = self.call("POST", "/v1/search", json.dumps({"query": question}).encode(),
                          content_type="application/json")
        return [chunk["text"] for chunk in found["source_chunks"]]

    def finds(self, text):
        return any(text in passage for passage in self.search("What is the launch code?"))

    def test_a_document_is_put_in_replaced_and_deleted(self):
        state = self.put(text_of(200) + CODE)
        self.assertEqual((state["state"], state["processed"], state["failed"]), ("done", 1, 0))
        self.assertTrue(self.finds("7411"))
        stored = self.call("GET", "/v1/documents/notes/heron.md")
        self.assertEqual(stored["chunks"], state["total_chunks"])
        self.assertEqual(self.put(text_of(200) + CODE)["skipped"], 1)
        self.assertEqual(self.put(NEW_CODE)["processed"], 1)
        self.assertTrue(self.finds("9023"))
        self.assertFalse(self.finds("7411"))
        self.assertEqual([document["doc_id"] for document in
                          self.call("GET", "/v1/documents")["data"]], ["notes/heron.md"])
        state = self.finish(self.call("DELETE", "/v1/documents/notes%2Fheron.md", code=202))
        self.assertEqual(state["failed"], 0, state)
        self.assertFalse(self.finds("9023"))
        self.call("GET", "/v1/documents/notes/heron.md", code=404)
        self.assertEqual(self.call("GET", "/v1/documents")["data"], [])
        self.assertEqual(len(self.call("GET", "/v1/ingests")["data"]), 4)


if __name__ == "__main__":
    unittest.main()
