"""What the fake models and stores answer: pure functions of the request, no I/O, no clock.

The same text always has the same vector, score and tokens, so a test can compute what must come out
at the end of the pipeline. Vectors hash words into a few dimensions each: texts that share words
are near each other, so that a search finds the passage that the question is about.
"""

import functools
import hashlib
import json
import math
import operator
import re
import uuid

_WORD = re.compile(r"\w+")
_NUMBERED = re.compile(r"Question \d+:[^\n]*")
_LABELLED = re.compile(r"(?im)^[ \t]*question:[ \t]*(\S[^\n]*)$")


class BadRequest(Exception):
    """The request is one that the real server refuses with 400."""


# Chat

def question_of(text):
    """The question inside a prompt: the last `Question 17: ...`, else the last line that starts
    with `Question:` (what follows the colon), else the last line that is not empty."""
    if numbered := _NUMBERED.findall(text):
        return numbered[-1].strip()
    if labelled := _LABELLED.findall(text):
        return labelled[-1].strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def expected_tokens(question, count=50):
    """The tokens of the answer to a question, alone or inside a prompt: `3f0a91c2-0 ` and so on."""
    digest = hashlib.blake2b(question_of(question).encode(), digest_size=4).hexdigest()
    return [f"{digest}-{i} " for i in range(count)]


def message_text(content):
    """The text of an OpenAI message, whose content is a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
    return ""


def last_user_text(messages):
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' is required")
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return message_text(message.get("content"))
    raise BadRequest("no user message")


def count_tokens(text):
    """A rough count for `usage`; never 0 for a text that is not empty."""
    return (len(text) + 3) // 4


# Vectors and rerank

def words(text):
    return _WORD.findall(text.lower())


def _signed_slots(digest, dim):
    for at in range(0, len(digest), 4):
        number = int.from_bytes(digest[at:at + 4], "little")
        yield (number >> 1) % dim, 1.0 if number & 1 else -1.0


@functools.lru_cache(maxsize=65536)
def _word_slots(word, dim):
    return tuple(_signed_slots(hashlib.blake2b(word.encode(), digest_size=16).digest(), dim))


def embed(text, dim=384):
    """A unit vector: four signed dimensions a word, and eight weak ones of the whole text, so that
    two texts of the same words differ."""
    vector = [0.0] * dim
    for word in words(text):
        for slot, sign in _word_slots(word, dim):
            vector[slot] += sign
    for slot, sign in _signed_slots(hashlib.blake2b(text.encode(), digest_size=32).digest(), dim):
        vector[slot] += 0.05 * sign
    norm = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [round(x / norm, 6) for x in vector]


def vector_key(vector):
    """The same for a vector and its copy that went through float32 or fewer digits."""
    return tuple(i if x > 0 else -i - 1 for i, x in enumerate(vector) if x)


def rerank(query, documents):
    """Scores between 0 and 1, one a document: the share of the query's words that it has, and a
    little of a hash so that no two texts tie."""
    wanted = set(words(query))
    scores = []
    for text in documents:
        share = len(wanted.intersection(words(text))) / (len(wanted) or 1)
        noise = hashlib.blake2b((query + "\0" + text).encode(), digest_size=4).digest()
        scores.append(round(0.9 * share + 0.1 * int.from_bytes(noise, "little") / 2**32, 6))
    return scores


# Stores

_TOPICS = ("offsets", "permits", "leases", "rebalances", "watermarks", "dead letters", "deadlines",
           "chunks", "embeddings", "sources")
_VERBS = ("are stored", "are counted", "expire", "are handed on")


def synthetic_documents(count):
    """Passages about running a pipeline, for tests that need some hits and do not care which."""
    for i in range(count):
        topic, verb = _TOPICS[i % len(_TOPICS)], _VERBS[i // len(_TOPICS) % len(_VERBS)]
        text = (f"Passage {i}: how {topic} {verb} when a worker restarts. The worker that owns the "
                f"partition keeps its place, and a consumer that takes over reads {topic} again.")
        yield {"doc_id": f"doc-{i // 2:04}", "chunk_index": i % 2, "text": text,
               "metadata": {"topic": topic, "parity": "odd" if i % 2 else "even"}}


def _plain(value):
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


class Corpus:
    """The documents of both stores, searched in full: one vector and one set of words each."""

    def __init__(self, dim):
        self._dim = dim
        self.documents = []

    def load(self, documents):
        """Adds documents; fields that are missing get the usual values, an `embedding` is made
        from the text. Fields given as null stay out of the record."""
        for given in documents:
            if not isinstance(given, dict) or not isinstance(given.get("text"), str):
                raise BadRequest("a document needs a text")
            doc = {"tenant": "default", "collection": "default", "chunk_index": 0, "metadata": {},
                   "version": 1, **given}
            doc.setdefault("doc_id", f"doc-{len(self.documents):04}")
            doc.setdefault("chunk_id", f"{doc['doc_id']}_{doc['chunk_index']}")
            vector = doc.pop("embedding", None) or embed(doc["text"], self._dim)
            self._check_vector(vector)
            doc = {name: value for name, value in doc.items() if value is not None}
            key = json.dumps([doc.get("tenant"), doc.get("collection"), doc["chunk_id"]])
            self.documents.append({"id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)), "fields": doc,
                                   "vector": vector, "words": words(doc["text"])})

    def _check_vector(self, vector):
        if not isinstance(vector, list) or len(vector) != self._dim:
            got = len(vector) if isinstance(vector, list) else type(vector).__name__
            raise BadRequest(f"Vector dimension error: expected dim: {self._dim}, got {got}")

    def nearest(self, vector, accepts):
        """(cosine, document) of all accepted documents, best first."""
        self._check_vector(vector)
        slots = [i for i, x in enumerate(vector) if x]
        values = [vector[i] for i in slots]
        norm = math.sqrt(sum(x * x for x in values)) or 1.0
        found = []
        for doc in self.documents:
            if accepts(doc):
                own = doc["vector"]
                cosine = sum(map(operator.mul, values, [own[i] for i in slots])) / norm
                found.append((round(cosine, 6), doc))
        found.sort(key=lambda hit: (-hit[0], hit[1]["id"]))
        return found

    # Qdrant: POST /collections/NAME/points/query

    def qdrant_query(self, body):
        query = body.get("query")
        vector = query.get("nearest") if isinstance(query, dict) else query
        rule = body.get("filter") or {}
        hits = self.nearest(vector, lambda doc: _qdrant_filter(rule, doc))
        if (threshold := body.get("score_threshold")) is not None:
            hits = [hit for hit in hits if hit[0] >= threshold]
        start = body.get("offset") or 0
        points = []
        for score, doc in hits[start:start + body.get("limit", 10)]:
            point = {"id": doc["id"], "version": 0, "score": score}
            if body.get("with_payload"):
                point["payload"] = _chosen(doc["fields"], body["with_payload"])
            if body.get("with_vector"):
                point["vector"] = doc["vector"]
            points.append(point)
        return {"result": {"points": points}, "status": "ok", "time": 0.0004}

    # OpenSearch: POST /INDEX/_search

    def opensearch_search(self, index, body):
        query = body.get("query", {"match_all": {}})
        score_of = self._scorer(query)
        hits = [(score, doc) for doc in self.documents if (score := score_of(doc)) is not None]
        hits.sort(key=lambda hit: (-hit[0], hit[1]["id"]))
        total = len(hits)
        start = body.get("from", 0)
        hits = hits[start:start + body.get("size", 10)]
        rows = []
        for score, doc in hits:
            row = {"_index": index, "_id": doc["id"], "_score": round(score, 6)}
            if body.get("_source", True) is not False:
                row["_source"] = _chosen(doc["fields"], body.get("_source", True))
            rows.append(row)
        return {"took": 1, "timed_out": False,
                "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
                "hits": {"total": {"value": total, "relation": "eq"},
                         "max_score": rows[0]["_score"] if rows else None, "hits": rows}}

    def _scorer(self, query):
        """A function from a document to its score, or None where the query does not match."""
        if not isinstance(query, dict) or len(query) != 1:
            raise BadRequest("[query] malformed query, expected one clause")
        (name, rule), = query.items()
        make = getattr(self, "_query_" + name, None)
        if make is None:
            raise BadRequest(f"unknown query [{name}]")
        return make(rule)

    def _scorers(self, clauses):
        return [self._scorer(c) for c in (clauses if isinstance(clauses, list) else [clauses])]

    def _query_match_all(self, _rule):
        return lambda doc: 1.0

    def _query_constant_score(self, rule):
        inner, boost = self._scorer(rule["filter"]), rule.get("boost", 1.0)
        return lambda doc: None if inner(doc) is None else boost

    def _query_match(self, rule):
        (field, text), = rule.items()
        options = text if isinstance(text, dict) else {"query": text}
        return self._text_scorer([field], options)

    def _query_multi_match(self, rule):
        return self._text_scorer(rule.get("fields", ["text"]), rule)

    def _text_scorer(self, fields, options):
        wanted = set(words(_plain(options["query"])))
        need = len(wanted) if str(options.get("operator", "or")).lower() == "and" else 1
        names = [field.partition("^")[0] for field in fields]

        def score(doc):
            texts = [_plain(_dotted(doc["fields"], name) or "") for name in names]
            have = doc["words"] if names == ["text"] else words(" ".join(texts))
            found = [word for word in wanted if word in have]
            if not found or len(found) < need:
                return None
            return sum(1.0 + 1.0 / (1 + len(word)) for word in found) / math.log2(2 + len(have))
        return score

    def _query_term(self, rule):
        (field, value), = rule.items()
        value = value["value"] if isinstance(value, dict) else value
        return lambda doc: 1.0 if _equals_any(_dotted(doc["fields"], field), [value]) else None

    def _query_terms(self, rule):
        (field, values), = ((k, v) for k, v in rule.items() if k != "boost")
        return lambda doc: 1.0 if _equals_any(_dotted(doc["fields"], field), values) else None

    def _query_exists(self, rule):
        return lambda doc: None if _dotted(doc["fields"], rule["field"]) is None else 1.0

    def _query_range(self, rule):
        (field, bounds), = rule.items()
        return lambda doc: 1.0 if _in_range(_dotted(doc["fields"], field), bounds) else None

    def _query_ids(self, rule):
        return lambda doc: 1.0 if doc["id"] in rule["values"] else None

    def _query_knn(self, rule):
        (field, options), = rule.items()
        if field != "embedding":
            raise BadRequest(f"Field '{field}' is not knn_vector type.")
        inner = self._scorer(options["filter"]) if options.get("filter") else lambda doc: 1.0
        near = self.nearest(options["vector"], lambda doc: inner(doc) is not None)
        scores = {doc["id"]: (1 + cosine) / 2 for cosine, doc in near[:options.get("k", 10)]}
        return lambda doc: scores.get(doc["id"])

    def _query_bool(self, rule):
        must = self._scorers(rule.get("must", []))
        filters = self._scorers(rule.get("filter", []))
        should = self._scorers(rule.get("should", []))
        must_not = self._scorers(rule.get("must_not", []))
        least = int(rule.get("minimum_should_match", 0 if must or filters else 1)) if should else 0

        def score(doc):
            if any(clause(doc) is not None for clause in must_not):
                return None
            if any(clause(doc) is None for clause in filters):
                return None
            needed = [clause(doc) for clause in must]
            extra = [s for clause in should if (s := clause(doc)) is not None]
            if None in needed or len(extra) < least:
                return None
            return sum(needed) + sum(extra)
        return score


def _dotted(fields, path):
    """The value at `metadata.topic`, also as `metadata.topic.keyword`; None where there is none."""
    value = fields
    for part in path.removesuffix(".keyword").split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


def _equals_any(value, wanted):
    have = {_plain(v) for v in (value if isinstance(value, list) else [value]) if v is not None}
    return any(_plain(w) in have for w in wanted)


def _in_range(value, bounds):
    checks = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return isinstance(value, (int, float)) and all(
        checks[name](value, bound) for name, bound in bounds.items())


def _chosen(fields, choice):
    """The fields that `_source` or `with_payload` asks for."""
    if choice is True:
        return fields
    if isinstance(choice, dict):
        include = choice.get("includes", choice.get("include"))
        exclude = choice.get("excludes", choice.get("exclude", []))
    else:
        include, exclude = ([choice] if isinstance(choice, str) else choice), []
    return {name: value for name, value in fields.items()
            if (include is None or name in include) and name not in exclude}


def _qdrant_filter(rule, doc):
    known = {"must", "should", "must_not", "min_should"}
    if not isinstance(rule, dict) or rule.keys() - known:
        raise BadRequest(f"Format error in JSON body: unknown filter {json.dumps(rule)[:80]}")

    def all_of(name):
        clauses = rule.get(name) or []
        clauses = clauses if isinstance(clauses, list) else [clauses]
        return [_qdrant_condition(clause, doc) for clause in clauses]
    should = all_of("should")
    least = rule.get("min_should")
    if least and sum(_qdrant_condition(c, doc) for c in least["conditions"]) < least["min_count"]:
        return False
    return all(all_of("must")) and not any(all_of("must_not")) and (not should or any(should))


def _qdrant_condition(rule, doc):
    if "is_empty" in rule or "is_null" in rule:
        value = _dotted(doc["fields"], (rule.get("is_empty") or rule["is_null"])["key"])
        return value is None or ("is_empty" in rule and value == [])
    if "has_id" in rule:
        return doc["id"] in rule["has_id"]
    if "key" not in rule:
        return _qdrant_filter(rule, doc)
    value = _dotted(doc["fields"], rule["key"])
    if "range" in rule:
        return _in_range(value, rule["range"])
    match = rule.get("match", {})
    if "value" in match:
        return _equals_any(value, [match["value"]])
    if "any" in match:
        return _equals_any(value, match["any"])
    if "except" in match:
        return value is not None and not _equals_any(value, match["except"])
    if "text" in match:
        return set(words(match["text"])) <= set(words(_plain(value or "")))
    raise BadRequest(f"Format error in JSON body: unknown condition {json.dumps(rule)[:80]}")


def find_vector(query):
    """The vector in a Qdrant or OpenSearch query, or None."""
    if isinstance(query, list):
        return query if query and all(isinstance(x, (int, float)) for x in query) else next(
            filter(None, map(find_vector, query)), None)
    if isinstance(query, dict):
        return next(filter(None, map(find_vector, query.values())), None)
    return None


def find_match(query):
    """The text of the first match in an OpenSearch query, or None."""
    if isinstance(query, list):
        return next(filter(None, map(find_match, query)), None)
    if not isinstance(query, dict):
        return None
    for name, rule in query.items():
        if name == "match" and isinstance(rule, dict):
            text = next(iter(rule.values()), None)
            return text.get("query") if isinstance(text, dict) else text
        if name == "multi_match" and isinstance(rule, dict):
            return rule.get("query")
        if found := find_match(rule):
            return found
    return None
