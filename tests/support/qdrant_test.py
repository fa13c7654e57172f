"""The stand-in for Qdrant, driven by Qdrant's own client library: that it speaks the protocol."""

import os
import sys
import threading
import unittest
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import qdrant

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import UnexpectedResponse
except ImportError as missing:
    raise ImportError(f"{missing}: run deploy/setup --tests and use .local/venv/bin/python") from missing


def chunk(number, vector, **payload):
    key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"chunk {number}"))
    return models.PointStruct(id=key, vector=vector, payload={"chunk_index": number, **payload})


def is_(key, value):
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def below(version):
    return models.FieldCondition(key="version", range=models.Range(lt=version))


def numbers(points):
    return [point.payload["chunk_index"] for point in points]


class QdrantTest(unittest.TestCase):
    def setUp(self):
        self.server = qdrant.create_server(0)
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.client = QdrantClient(url=f"http://127.0.0.1:{self.server.server_address[1]}",
                                   prefer_grpc=False, check_compatibility=False)
        self.addCleanup(self.client.close)

    def create(self):
        created = self.client.create_collection(
            "chunks", vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE))
        self.assertTrue(created)
        for name, schema in (("tenant", models.PayloadSchemaType.KEYWORD),
                             ("version", models.PayloadSchemaType.INTEGER)):
            self.client.create_payload_index("chunks", name, field_schema=schema)

    def fill(self):
        self.create()
        self.client.upsert("chunks", wait=True, points=[
            chunk(0, [1, 0, 0], tenant="acme", version=1, metadata={"a.b": "c", "n": 7}),
            chunk(1, [0.8, 0.6, 0], tenant="acme", version=2, metadata={"half": 0.5, "l": ["x", "y"]}),
            chunk(2, [0, 3, 0], version=3),
            chunk(3, [0, 0, 1], tenant="umbrella", version=1690000000000001),
        ])

    def search(self, *must, **more):
        found = self.client.query_points("chunks", query=[1, 0, 0], with_payload=True,
                                         query_filter=models.Filter(must=list(must)), **more)
        return found.points

    def refuse(self, status, words, call, *arguments, **more):
        with self.assertRaises(UnexpectedResponse) as caught:
            call(*arguments, **more)
        self.assertEqual(caught.exception.status_code, status)
        self.assertIn(words, caught.exception.content.decode())

    def test_a_collection_is_described_as_it_was_made(self):
        self.assertFalse(self.client.collection_exists("chunks"))
        self.refuse(404, "Collection `chunks` doesn't exist!", self.client.get_collection, "chunks")
        self.create()
        self.assertTrue(self.client.collection_exists("chunks"))
        info = self.client.get_collection("chunks")
        self.assertEqual(info.config.params.vectors.size, 3)
        self.assertEqual(info.config.params.vectors.distance, models.Distance.COSINE)
        self.assertEqual(info.payload_schema["tenant"].data_type, models.PayloadSchemaType.KEYWORD)
        self.assertEqual(info.payload_schema["version"].data_type, models.PayloadSchemaType.INTEGER)
        self.assertEqual(info.points_count, 0)
        self.refuse(409, "already exists", self.client.create_collection, "chunks",
                    vectors_config=models.VectorParams(size=3, distance=models.Distance.COSINE))
        self.assertEqual([c.name for c in self.client.get_collections().collections], ["chunks"])
        self.assertTrue(self.client.delete_collection("chunks"))
        self.assertFalse(self.client.collection_exists("chunks"))

    def test_points_are_found_by_vector_the_nearest_first(self):
        self.fill()
        points = self.search()
        self.assertEqual(numbers(points), [0, 1, 2, 3])
        self.assertAlmostEqual(points[1].score, 0.8)
        self.assertEqual(numbers(self.search(limit=1, offset=1)), [1])
        self.assertEqual(numbers(self.search(score_threshold=0.5)), [0, 1])
        kept, = self.client.retrieve("chunks", [points[2].id], with_vectors=True)
        self.assertEqual(kept.vector, [0, 1, 0])

    def test_filters_choose_among_them(self):
        self.fill()
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key="tenant"))
        for expected, condition in (
                ([0, 1], is_("tenant", "acme")), ([2], empty), ([0, 1], below(3)),
                ([0, 1, 2], below(1690000000000001)),
                ([3], is_("version", 1690000000000001)),
                ([0], is_('metadata."a.b"', "c")), ([], is_("metadata.a.b", "c")),
                ([0], is_("metadata.n", 7)), ([], is_("metadata.n", "7")),
                ([1], is_("metadata.l", "y")), ([1], is_("metadata.l[]", "y")),
                ([1], models.FieldCondition(key="metadata.half", range=models.Range(gte=0.5, lte=0.5))),
                ([0, 1, 2], models.Filter(should=[empty, is_("tenant", "acme")])),
                ([2, 3], models.Filter(must_not=[is_("tenant", "acme")])),
                ([1, 3], models.Filter(must_not=[
                    models.FieldCondition(key="version", match=models.MatchAny(any=[1, 3]))]))):
            self.assertEqual(numbers(self.search(condition)), expected, condition)

    def test_points_are_deleted_by_filter_and_counted_and_scrolled(self):
        self.fill()
        count = lambda: self.client.count("chunks", exact=True).count
        self.assertEqual(count(), 4)
        self.client.delete("chunks", wait=True, points_selector=models.FilterSelector(
            filter=models.Filter(must=[is_("tenant", "acme"), below(2)])))
        self.assertEqual(count(), 3)
        first, following = self.client.scroll("chunks", limit=2)
        rest, end = self.client.scroll("chunks", limit=2, offset=following)
        self.assertEqual(sorted(numbers(first + rest)), [1, 2, 3])
        self.assertIsNone(end)
        self.client.delete("chunks", points_selector=[first[0].id])
        self.assertEqual(count(), 2)
        self.assertEqual(self.client.count("chunks", count_filter=models.Filter(
            must=[is_("tenant", "nobody")])).count, 0)

    def test_a_point_that_is_written_twice_is_there_once(self):
        self.create()
        for version in (1, 2):
            self.client.upsert("chunks", points=[chunk(0, [1, 0, 0], version=version)])
        self.assertEqual([p.payload["version"] for p in self.search()], [2])

    def test_what_the_server_refuses_is_refused(self):
        self.fill()
        wrong = "Vector dimension error: expected dim: 3, got 2"
        self.refuse(400, wrong, self.client.query_points, "chunks", query=[1, 0])
        self.refuse(400, wrong, self.client.upsert, "chunks", points=[chunk(9, [1, 0])])
        self.refuse(400, "not a valid point ID", self.client.upsert, "chunks",
                    points=[models.PointStruct(id="chunk-1", vector=[1, 0, 0])])
        self.refuse(400, "JSON path", self.search, is_('metadata."a', "c"))
        self.refuse(404, "doesn't exist", self.client.upsert, "other", points=[chunk(9, [1, 0, 0])])
        self.assertEqual(self.client.count("chunks").count, 4)


if __name__ == "__main__":
    unittest.main()
