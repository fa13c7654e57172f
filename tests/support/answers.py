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

FILTERS_LIMIT = 1000

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


@functools.lru_cache(maxsize=4096)
def _word_set(text):
    return frozenset(words(text))


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
    slots = {}
    for word in words(text):
        for slot, sign in _word_slots(word, dim):
            slots[slot] = slots.get(slot, 0.0) + sign
    for slot, sign in _signed_slots(hashlib.blake2b(text.encode(), digest_size=32).digest(), dim):
        slots[slot] = slots.get(slot, 0.0) + 0.05 * sign
    norm = math.sqrt(sum(x * x for x in slots.values())) or 1.0
    vector = [0.0] * dim
    for slot, value in slots.items():
        vector[slot] = round(value / norm, 6)
    return vector


def vector_key(vector):
    """The same for a vector and its copy that went through float32 or fewer digits."""
    return tuple(i if x > 0 else -i - 1 for i, x in enumerate(vector) if x)


def rerank(query, documents):
    """Scores between 0 and 1, one a document: the share of the query's words that it has, and a
    little of a hash so that no two texts tie."""
    wanted = set(words(query))
    scores = []
    for text in documents:
        share = len(wanted & _word_set(text)) / (len(wanted) or 1)
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


class _Document:
    """One record of a store, with what searching it needs."""

    __slots__ = ("id", "fields", "vector", "words", "shown")

    def __init__(self, fields, vector):
        key = json.dumps([fields.get(name) for name in
                          ("tenant", "collection", "doc_id", "chunk_index", "chunk_id")])
        self.id = str(uuid.uuid5(uuid.NAMESPACE_URL, key))
        self.fields, self.vector, self.words = fields, vector, words(fields["text"])
        self.shown = {}

    def show(self, choice):
        """The fields that `_source` or `with_payload` asks for, as JSON; made once a choice."""
        key = json.dumps(choice)
        if key not in self.shown:
            self.shown[key] = json.dumps(_chosen(self.fields, choice))
        return self.shown[key]


class Corpus:
    """The documents of both stores. Searches are exact; the indexes (words and vector dimensions to
    documents) and the cache of filters only keep a search of a small corpus well under 1 ms."""

    def __init__(self, dim):
        self._dim = dim
        self._documents = []
        self._by_slot, self._by_word, self._filters = {}, {}, {}

    def __len__(self):
        return len(self._documents)

    def copy(self):
        other = Corpus(self._dim)
        for doc in self._documents:
            other._add(doc)
        return other

    def load(self, documents):
        """Adds documents; fields that are missing get the usual values, an `embedding` is made
        from the text. Fields given as null stay out of the record."""
        for given in documents:
            if not isinstance(given, dict) or not isinstance(given.get("text"), str):
                raise BadRequest("a document needs a text")
            fields = {"tenant": "default", "collection": "default", "chunk_index": 0,
                      "metadata": {}, "version": 1, **given}
            fields.setdefault("doc_id", f"doc-{len(self):04}")
            fields.setdefault("chunk_id", f"{fields['doc_id']}_{fields['chunk_index']}")
            vector = fields.pop("embedding", None) or embed(fields["text"], self._dim)
            self._check_vector(vector)
            fields = {name: value for name, value in fields.items() if value is not None}
            self._add(_Document(fields, vector))

    def _add(self, doc):
        number = len(self._documents)
        self._documents.append(doc)
        self._filters = {}
        for slot, value in enumerate(doc.vector):
            if value:
                self._by_slot.setdefault(slot, []).append((number, value))
        for word in set(doc.words):
            self._by_word.setdefault(word, []).append(number)

    def _check_vector(self, vector):
        if not isinstance(vector, list) or len(vector) != self._dim:
            got = len(vector) if isinstance(vector, list) else type(vector).__name__
            raise BadRequest(f"Vector dimension error: expected dim: {self._dim}, got {got}")

    def _nearest(self, vector, accepted):
        """(cosine, number) of the accepted documents, best first."""
        self._check_vector(vector)
        cosines = [0.0] * len(self)
        for slot, value in enumerate(vector):
            if value:
                for number, weight in self._by_slot.get(slot, ()):
                    cosines[number] += value * weight
        norm = math.sqrt(sum(x * x for x in vector)) or 1.0
        return self._ranked({number: cosines[number] / norm for number in accepted})

    def _ranked(self, scores):
        docs = self._documents
        return sorted(((round(score, 6), number) for number, score in scores.items()),
                      key=lambda hit: (-hit[0], docs[hit[1]].id))

    def _cached(self, name, rule, find):
        """What `find()` gives for a filter, remembered until the documents change."""
        key = name + json.dumps(rule)
        if key not in self._filters:
            if len(self._filters) >= FILTERS_LIMIT:
                self._filters.clear()
            self._filters[key] = find()
        return self._filters[key]

    def _where(self, accepts):
        return {number: 1.0 for number, doc in enumerate(self._documents) if accepts(doc)}

    # Qdrant: POST /collections/NAME/points/query

    def qdrant_query(self, body):
        """The answer as JSON text."""
        query, rule = body.get("query"), body.get("filter") or {}
        vector = query.get("nearest") if isinstance(query, dict) else query
        accepted = self._cached("qdrant", rule, lambda: self._where(
            lambda doc: _qdrant_filter(rule, doc)))
        hits = self._nearest(vector, accepted)
        if (threshold := body.get("score_threshold")) is not None:
            hits = [hit for hit in hits if hit[0] >= threshold]
        start = body.get("offset") or 0
        points = []
        for score, number in hits[start:start + body.get("limit", 10)]:
            doc = self._documents[number]
            more = ""
            if body.get("with_payload"):
                more = ', "payload": ' + doc.show(body["with_payload"])
            if body.get("with_vector"):
                more += ', "vector": ' + json.dumps(doc.vector)
            points.append(f'{{"id": "{doc.id}", "version": 0, "score": {score}{more}}}')
        return (f'{{"result": {{"points": [{", ".join(points)}]}}, "status": "ok", '
                f'"time": 0.0004}}')

    # OpenSearch: POST /INDEX/_search. Every query gives {number: score} of what it matches.

    def opensearch_search(self, index, body):
        """The answer as JSON text."""
        hits = self._ranked(self._scores(body.get("query", {"match_all": {}})))
        source, start = body.get("_source", True), body.get("from", 0)
        rows = []
        for score, number in hits[start:start + body.get("size", 10)]:
            doc = self._documents[number]
            more = "" if source is False else ', "_source": ' + doc.show(source)
            rows.append(f'{{"_index": {json.dumps(index)}, "_id": "{doc.id}", '
                        f'"_score": {score}{more}}}')
        best = hits[0][0] if rows else "null"
        return ('{"took": 1, "timed_out": false, "_shards": {"total": 1, "successful": 1, '
                '"skipped": 0, "failed": 0}, "hits": {"total": {"value": '
                f'{len(hits)}, "relation": "eq"}}, "max_score": {best}, '
                f'"hits": [{", ".join(rows)}]}}}}')

    def _scores(self, query):
        if not isinstance(query, dict) or len(query) != 1:
            raise BadRequest("[query] malformed query, expected one clause")
        (name, rule), = query.items()
        find = getattr(self, "_query_" + name, None)
        if find is None:
            raise BadRequest(f"unknown query [{name}]")
        return find(rule)

    def _query_match_all(self, _rule):
        return self._where(lambda doc: True)

    def _query_constant_score(self, rule):
        return dict.fromkeys(self._scores(rule["filter"]), rule.get("boost", 1.0))

    def _query_match(self, rule):
        (field, text), = rule.items()
        options = text if isinstance(text, dict) else {"query": text}
        return self._text_scores([field], options)

    def _query_multi_match(self, rule):
        return self._text_scores(rule.get("fields", ["text"]), rule)

    def _text_scores(self, fields, options):
        wanted = sorted(set(words(_plain(options["query"]))))
        names = [field.partition("^")[0] for field in fields]
        found = {}
        for word in wanted:
            for number in self._having(word, names):
                found.setdefault(number, []).append(1.0 + 1.0 / (1 + len(word)))
        need = len(wanted) if str(options.get("operator", "or")).lower() == "and" else 1
        return {number: sum(parts) / math.log2(2 + len(self._documents[number].words))
                for number, parts in found.items() if len(parts) >= need}

    def _having(self, word, names):
        if names == ["text"]:
            return self._by_word.get(word, ())
        return self._where(lambda doc: any(
            word in words(_plain(_dotted(doc.fields, name) or "")) for name in names))

    def _query_term(self, rule):
        (field, value), = rule.items()
        value = value["value"] if isinstance(value, dict) else value
        return self._where(lambda doc: _equals_any(_dotted(doc.fields, field), [value]))

    def _query_terms(self, rule):
        (field, values), = ((k, v) for k, v in rule.items() if k != "boost")
        return self._where(lambda doc: _equals_any(_dotted(doc.fields, field), values))

    def _query_exists(self, rule):
        return self._where(lambda doc: _dotted(doc.fields, rule["field"]) is not None)

    def _query_range(self, rule):
        (field, bounds), = rule.items()
        return self._where(lambda doc: _in_range(_dotted(doc.fields, field), bounds))

    def _query_ids(self, rule):
        return self._where(lambda doc: doc.id in rule["values"])

    def _query_knn(self, rule):
        (field, options), = rule.items()
        if field != "embedding":
            raise BadRequest(f"Field '{field}' is not knn_vector type.")
        accepted = self._filtered([options["filter"]] if options.get("filter") else [])
        near = self._nearest(options["vector"], accepted)
        return {number: (1 + cosine) / 2 for cosine, number in near[:options.get("k", 10)]}

    def _filtered(self, clauses):
        """What all clauses match, without scores."""
        found = None
        for clause in clauses:
            one = self._cached("opensearch", clause, lambda c=clause: self._scores(c)).keys()
            found = set(one) if found is None else found & one
        return range(len(self)) if found is None else found

    def _query_bool(self, rule):
        clauses = {name: value if isinstance(value, list) else [value]
                   for name, value in rule.items() if name in ("must", "filter", "should",
                                                               "must_not")}
        must = [self._scores(clause) for clause in clauses.get("must", ())]
        should = [self._scores(clause) for clause in clauses.get("should", ())]
        least = int(rule.get("minimum_should_match", 0 if must or "filter" in clauses else 1))
        accepted = set(self._filtered(clauses.get("filter", ())))
        for clause in clauses.get("must_not", ()):
            accepted -= self._scores(clause).keys()
        for one in must:
            accepted &= one.keys()
        found = {}
        for number in accepted:
            extra = [one[number] for one in should if number in one]
            if len(extra) >= (least if should else 0):
                found[number] = sum(one[number] for one in must) + sum(extra)
        return found


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
        value = _dotted(doc.fields, (rule.get("is_empty") or rule["is_null"])["key"])
        return value is None or ("is_empty" in rule and value == [])
    if "has_id" in rule:
        return doc.id in rule["has_id"]
    if "key" not in rule:
        return _qdrant_filter(rule, doc)
    value = _dotted(doc.fields, rule["key"])
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
        if query and isinstance(query[0], (int, float)):
            return query
        return next(filter(None, map(find_vector, query)), None)
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
