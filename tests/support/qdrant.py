#!/usr/bin/env python3
"""A stand-in for Qdrant: the part of its HTTP API that searching and storing chunks needs.

usage: qdrant.py [--port N] [--with-parent]

Collections with one unnamed vector, payload indexes, points, filters; all in memory. It is strict:
a body that the real server would refuse is refused here, with its status and words, and so is one
with a member that this file does not know. qdrant_test.py drives it with Qdrant's own client
library. --port 0 takes a free port; `listening PORT` is printed when it is open; with --with-parent
it ends when its standard input does.
"""
import argparse
import json
import math
import re
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "1.20.0"
MAX_BODY = 32 << 20  # As the server's default.
INDEX_TYPES = {"keyword", "integer", "float", "bool", "geo", "datetime", "text", "uuid"}
DISTANCES = ("Cosine", "Dot", "Euclid", "Manhattan")
MISSING = object()


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def bad_format(what):
    return Refused(400, f"Format error in JSON body: {what}")


def members(body, known, required=()):
    """body, an object with these members and no others; null counts as missing."""
    if not isinstance(body, dict):
        raise bad_format(f"invalid type, expected struct with {sorted(known)}")
    for name in body.keys() - set(known):
        raise bad_format(f"unknown field `{name}`")
    body = {name: value for name, value in body.items() if value is not None}
    for name in required:
        if name not in body:
            raise bad_format(f"missing field `{name}`")
    return body


def whole(value, name, least=0):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise bad_format(f"{name}: invalid value: {json.dumps(value)}, expected a whole number")
    return value


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def point_id(value):
    """As Qdrant prints it: a number, or a UUID in lower case with dashes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    if isinstance(value, str):
        try:
            return str(uuid.UUID(value))
        except ValueError:
            pass
    raise bad_format(f"value {json.dumps(value)} is not a valid point ID, valid values are either "
                     "an unsigned integer or a UUID")


# ---- payloads and filters ---------------------------------------------------------------------

KEY = re.compile(r'(?:"([^"]+)"|([^"\[\].]+))((?:\[\d*\])*)(?:\.|$)')


def values_at(payload, path):
    """All values at a path such as `metadata."a.b"` or `list[].name`; [MISSING] when there is none."""
    steps, at = [], 0
    while at < len(path):
        match = KEY.match(path, at)
        if match is None:
            raise bad_format(f"Invalid JSON path: \"{path}\"")
        steps.append((match[1] or match[2], match[3]))
        at = match.end()
    if not steps or path.endswith("."):
        raise bad_format(f"Invalid JSON path: \"{path}\"")
    found = [payload]
    for name, brackets in steps:
        found = [value[name] for value in found if isinstance(value, dict) and name in value]
        for bracket in re.findall(r"\[(\d*)\]", brackets):
            lists = [value for value in found if isinstance(value, list)]
            found = [item for value in lists
                     for item in (value if bracket == "" else value[int(bracket):int(bracket) + 1])]
    return found or [MISSING]


def scalars_at(payload, path):
    """The same with lists taken apart, as conditions see them."""
    found = []
    for value in values_at(payload, path):
        found += value if isinstance(value, list) else [value]
    return found


def equal(value, wanted):
    return type(value) is type(wanted) and value == wanted


def check_choice(value):
    if not isinstance(value, (str, bool, int)):
        raise bad_format("data did not match any variant of untagged enum Match")
    return value


def matches(rule, values):
    rule = members(rule, {"value", "any", "except", "text"})
    if len(rule) != 1:
        raise bad_format("data did not match any variant of untagged enum Match")
    (kind, wanted), = rule.items()
    if kind == "value":
        return any(equal(value, check_choice(wanted)) for value in values)
    if kind == "text":
        words = str(wanted).lower().split()
        return any(isinstance(value, str) and all(word in value.lower().split() for word in words)
                   for value in values)
    if not isinstance(wanted, list):
        raise bad_format("data did not match any variant of untagged enum Match")
    wanted = [check_choice(one) for one in wanted]
    if kind == "any":
        return any(equal(value, one) for value in values for one in wanted)
    return any(value is not MISSING and not any(equal(value, one) for one in wanted)
               for value in values)


def in_range(rule, values):
    rule = members(rule, {"lt", "lte", "gt", "gte"})
    if not all(is_number(bound) for bound in rule.values()):
        raise bad_format("data did not match any variant of untagged enum RangeInterface")
    bounds = {name: float(bound) for name, bound in rule.items()}
    return any(is_number(value) and float(value) < bounds.get("lt", math.inf)
               and float(value) <= bounds.get("lte", math.inf)
               and float(value) > bounds.get("gt", -math.inf)
               and float(value) >= bounds.get("gte", -math.inf) for value in values)


def condition_holds(rule, number, payload):
    if not isinstance(rule, dict):
        raise bad_format("data did not match any variant of untagged enum Condition")
    if "key" in rule:
        rule = members(rule, {"key", "match", "range"}, ["key"])
        values = scalars_at(payload, rule["key"])
        if "match" in rule:
            return matches(rule["match"], values)
        if "range" in rule:
            return in_range(rule["range"], values)
        raise bad_format("Validation error: At least one field condition must be specified")
    for name in ("is_empty", "is_null"):
        if name in rule:
            key = members(members(rule, {name})[name], {"key"}, ["key"])["key"]
            values = values_at(payload, key)
            if name == "is_null":
                return any(value is None for value in values)
            return all(value is MISSING or value is None or value == [] for value in values)
    if "has_id" in rule:
        return number in [point_id(one) for one in members(rule, {"has_id"})["has_id"]]
    return filter_holds(rule, number, payload)


def filter_holds(rule, number, payload):
    rule = members(rule, {"must", "should", "must_not", "min_should"})

    def each(clauses):
        clauses = clauses if isinstance(clauses, list) else [clauses]
        return [condition_holds(clause, number, payload) for clause in clauses]

    must, should = each(rule.get("must", [])), each(rule.get("should", []))
    must_not = each(rule.get("must_not", []))
    if "min_should" in rule:
        least = members(rule["min_should"], {"conditions", "min_count"}, ["conditions", "min_count"])
        if sum(each(least["conditions"])) < whole(least["min_count"], "min_count"):
            return False
    return all(must) and (not should or any(should)) and not any(must_not)


# ---- collections ------------------------------------------------------------------------------


class Collection:
    def __init__(self, size, distance):
        self.size, self.distance = size, distance
        self.schema = {}
        self.points = {}  # id: (vector, payload)
        self.operations = 0

    def check_vector(self, vector):
        if not isinstance(vector, list) or not vector or not all(map(is_number, vector)):
            raise bad_format("data did not match any variant of untagged enum VectorStruct")
        if len(vector) != self.size:
            raise Refused(400, "Wrong input: Vector dimension error: "
                          f"expected dim: {self.size}, got {len(vector)}")
        if self.distance != "Cosine":
            return [float(x) for x in vector]
        length = math.sqrt(sum(x * x for x in vector))
        return [x / length for x in vector] if length > 0 else [float(x) for x in vector]

    def select(self, rule):
        """Ids of the points that the filter lets through, in their order."""
        rule = rule if rule is not None else {}
        filter_holds(rule, 0, {})  # A bad filter is refused without any points too.
        found = [number for number, (_, payload) in self.points.items()
                 if filter_holds(rule, number, payload)]
        return sorted(found, key=lambda number: (isinstance(number, str), number))

    def score(self, query, vector):
        if self.distance in ("Cosine", "Dot"):
            return sum(a * b for a, b in zip(query, vector))
        if self.distance == "Manhattan":
            return sum(abs(a - b) for a, b in zip(query, vector))
        return math.dist(query, vector)

    def record(self, number, body, payload_by_default):
        vector, payload = self.points[number]
        record = {"id": number}
        wanted = body.get("with_payload", payload_by_default)
        if wanted is not False:
            names = wanted if isinstance(wanted, list) else None
            record["payload"] = {name: value for name, value in payload.items()
                                 if names is None or name in names}
        if body.get("with_vector", False):
            record["vector"] = vector
        return record

    def done(self):
        self.operations += 1
        return {"operation_id": self.operations, "status": "completed"}


class Qdrant:
    """What the server holds, and one method for each request; the handler holds the lock."""

    def __init__(self):
        self.collections = {}
        self.lock = threading.Lock()

    def find(self, name):
        if name not in self.collections:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def listing(self, _body):
        return {"collections": [{"name": name} for name in self.collections]}

    def exists(self, _body, name):
        return {"exists": name in self.collections}

    def create(self, body, name):
        body = members(body, {"vectors", "shard_number", "replication_factor", "on_disk_payload",
                              "write_consistency_factor", "hnsw_config", "optimizers_config"})
        vectors = members(body.get("vectors"), {"size", "distance", "on_disk"},
                          ["size", "distance"])
        if not 1 <= whole(vectors["size"], "size") <= 65536:
            raise Refused(422, "Validation error in JSON body: [vectors.size: value "
                          f"{vectors['size']} invalid, must be from 1.0 to 65536.0]")
        if vectors["distance"] not in DISTANCES:
            raise bad_format(f"unknown variant `{vectors['distance']}`, expected one of {DISTANCES}")
        if name in self.collections:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        self.collections[name] = Collection(vectors["size"], vectors["distance"])
        return True

    def drop(self, _body, name):
        return self.collections.pop(name, None) is not None

    def describe(self, _body, name):
        found = self.find(name)
        schema = {field: {"data_type": kind, "points": sum(
            MISSING not in values_at(payload, field) for _, payload in found.points.values())}
            for field, kind in found.schema.items()}
        return {
            "status": "green", "optimizer_status": "ok", "points_count": len(found.points),
            "indexed_vectors_count": 0, "segments_count": 1,
            "config": {
                "params": {"vectors": {"size": found.size, "distance": found.distance},
                           "shard_number": 1, "replication_factor": 1,
                           "write_consistency_factor": 1, "on_disk_payload": True},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                                     "default_segment_number": 0, "flush_interval_sec": 5},
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0}},
            "payload_schema": schema}

    def index(self, body, name):
        found = self.find(name)
        body = members(body, {"field_name", "field_schema"}, ["field_name"])
        schema = body.get("field_schema", "keyword")
        kind = schema.get("type") if isinstance(schema, dict) else schema
        if kind not in INDEX_TYPES:
            raise bad_format("data did not match any variant of untagged enum PayloadFieldSchema")
        found.schema[body["field_name"]] = kind
        return found.done()

    def upsert(self, body, name):
        found = self.find(name)
        points = members(body, {"points"}, ["points"])["points"]
        read = {}
        for point in points:
            point = members(point, {"id", "vector", "payload"}, ["id", "vector"])
            payload = point.get("payload", {})
            if not isinstance(payload, dict):
                raise bad_format("payload: invalid type, expected a map")
            read[point_id(point["id"])] = (found.check_vector(point["vector"]), payload)
        if not read:
            raise Refused(400, "Bad request: Empty update request")
        found.points.update(read)
        return found.done()

    def delete(self, body, name):
        found = self.find(name)
        body = members(body, {"points", "filter"})
        if len(body) != 1:
            raise bad_format("data did not match any variant of untagged enum PointsSelector")
        chosen = (found.select(body["filter"]) if "filter" in body
                  else [point_id(one) for one in body["points"]])
        for number in chosen:
            found.points.pop(number, None)
        return found.done()

    def retrieve(self, body, name):
        found = self.find(name)
        body = members(body, {"ids", "with_payload", "with_vector"}, ["ids"])
        numbers = [point_id(one) for one in body["ids"]]
        return [found.record(number, body, True) for number in numbers if number in found.points]

    def query(self, body, name):
        found = self.find(name)
        body = members(body, {"query", "limit", "offset", "filter", "with_payload", "with_vector",
                              "score_threshold", "params"}, ["query"])
        query = body["query"]
        if isinstance(query, dict):
            query = members(query, {"nearest"}, ["nearest"])["nearest"]
        vector = found.check_vector(query)
        limit, offset = whole(body.get("limit", 10), "limit", 1), whole(body.get("offset", 0), "offset")
        scored = [(found.score(vector, found.points[number][0]), number)
                  for number in found.select(body.get("filter"))]
        best_is_high = found.distance in ("Cosine", "Dot")
        scored.sort(key=lambda one: -one[0] if best_is_high else one[0])
        if "score_threshold" in body:
            scored = [one for one in scored if (one[0] >= body["score_threshold"]) == best_is_high]
        return {"points": [{**found.record(number, body, False), "version": 0, "score": score}
                           for score, number in scored[offset:offset + limit]]}

    def scroll(self, body, name):
        found = self.find(name)
        body = members(body, {"filter", "limit", "offset", "with_payload", "with_vector"})
        numbers = found.select(body.get("filter"))
        if "offset" in body:
            first = point_id(body["offset"])
            numbers = [n for n in numbers if (isinstance(n, str), n) >= (isinstance(first, str), first)]
        limit = whole(body.get("limit", 10), "limit", 1)
        rest = numbers[limit:]
        return {"points": [found.record(number, body, True) for number in numbers[:limit]],
                "next_page_offset": rest[0] if rest else None}

    def count(self, body, name):
        return {"count": len(self.find(name).select(members(body, {"filter", "exact"}).get("filter")))}


# ---- HTTP -------------------------------------------------------------------------------------

NAME = r"/collections/([^/]+)"
ROUTES = [(method, re.compile(path), handler, parameters) for method, path, handler, parameters in (
    ("GET", "/collections", Qdrant.listing, ()),
    ("GET", NAME, Qdrant.describe, ()),
    ("GET", NAME + "/exists", Qdrant.exists, ()),
    ("PUT", NAME, Qdrant.create, ("timeout",)),
    ("DELETE", NAME, Qdrant.drop, ("timeout",)),
    ("PUT", NAME + "/index", Qdrant.index, ("wait", "ordering")),
    ("PUT", NAME + "/points", Qdrant.upsert, ("wait", "ordering")),
    ("POST", NAME + "/points", Qdrant.retrieve, ("consistency", "timeout")),
    ("POST", NAME + "/points/delete", Qdrant.delete, ("wait", "ordering")),
    ("POST", NAME + "/points/query", Qdrant.query, ("consistency", "timeout")),
    ("POST", NAME + "/points/scroll", Qdrant.scroll, ("consistency", "timeout")),
    ("POST", NAME + "/points/count", Qdrant.count, ("timeout",)),
)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args):
        pass

    def send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def read_body(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            raise Refused(413, f"Payload error: JSON payload ({length} bytes) is larger than "
                          f"allowed (limit: {MAX_BODY} bytes).")
        data = self.rfile.read(length)
        if self.command in ("GET", "DELETE"):
            return None
        if not (self.headers.get("Content-Type") or "").startswith("application/json"):
            raise Refused(415, "Content type error: application/json is needed")
        try:
            return json.loads(data.decode())
        except ValueError as error:
            raise bad_format(str(error)) from None

    def dispatch(self):
        path, _, parameters = self.path.partition("?")
        names = {one.partition("=")[0] for one in parameters.split("&") if one}
        body = self.read_body()
        for method, pattern, handler, known in ROUTES:
            match = pattern.fullmatch(path)
            if match is not None and method == self.command:
                if names - set(known):
                    raise Refused(400, f"unknown parameters: {sorted(names - set(known))}")
                with self.server.qdrant.lock:
                    return handler(self.server.qdrant, body, *match.groups())
        raise Refused(404, "Not found")

    def answer(self):
        if self.path == "/":
            self.send(200, {"title": "qdrant - vector search engine", "version": VERSION})
            return
        try:
            self.send(200, {"result": self.dispatch(), "status": "ok", "time": 0.001})
        except Refused as error:
            self.send(error.status, {"status": {"error": str(error)}, "time": 0.001})

    do_GET = do_PUT = do_POST = do_DELETE = answer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # Clients may leave.
            super().handle_error(request, address)


def create_server(port):
    server = Server(("127.0.0.1", port), Handler)
    server.qdrant = Qdrant()
    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--with-parent", action="store_true")
    arguments = parser.parse_args()
    server = create_server(arguments.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening {server.server_address[1]}", flush=True)
    if arguments.with_parent:
        sys.stdin.read()
    else:
        threading.Event().wait()


if __name__ == "__main__":
    main()
