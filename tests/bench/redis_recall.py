#!/usr/bin/env python3
"""How many of the nearest vectors Redis's HNSW index finds, by its settings.

usage: .local/venv/bin/python tests/bench/redis_recall.py [--vectors N] [--dim N] [--degrees N,...]

Fills an index of the server that `deploy/setup --tests` installs, as a redis:// store does, and asks
for the nearest 20 of 100 vectors: without a filter, with one that all pass and with one that a tenth
pass, for several EF_RUNTIME. A redis:// store always has a filter, its tenant. Recall is the share of the truly nearest that are found. Two sets:
random vectors, which have no neighbourhoods and are the worst that can be asked for, and clusters of
50, which texts on the same matter are more like. docs/STORES.md has the figures.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENGINE = os.path.join(os.environ.get("SLUICE_LOCAL", os.path.join(ROOT, ".local")), "query-engine")
QUESTIONS = 100
BATCH = 100


class Redis:
    """Commands in the protocol's plain form; enough for this."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.reader = self.socket.makefile("rb")

    def send(self, *words):
        encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        return b"*%d\r\n%s" % (len(parts), b"".join(parts))

    def ask(self, *words):
        self.socket.sendall(self.send(*words))
        return self.read()

    def ask_all(self, commands):
        self.socket.sendall(b"".join(self.send(*words) for words in commands))
        for _ in commands:
            self.read()

    def read(self):
        line = self.reader.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return self.reader.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest


def start_server(directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        (os.path.join(ENGINE, "valkey-server"), "--bind", "127.0.0.1", "--port", str(port),
         "--save", "", "--dir", directory, "--loadmodule", os.path.join(ENGINE, "redisearch.so")),
        stdout=subprocess.DEVNULL)
    for _ in range(100):
        try:
            return process, Redis(port)
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("the server did not start")


def make_vectors(kind, count, dim):
    """The vectors, and those to ask for."""
    random = numpy.random.default_rng(1)
    if kind == "random":
        return (random.standard_normal((count, dim), dtype="f4"),
                random.standard_normal((QUESTIONS, dim), dtype="f4"))
    centres = random.standard_normal((count // 50, dim), dtype="f4")
    noise = random.standard_normal((count + QUESTIONS, dim), dtype="f4") / 2
    points = centres[random.integers(0, len(centres), count + QUESTIONS)] + noise
    return points[:count], points[count:]


def fill(redis, vectors, degree):
    redis.ask("FLUSHALL")
    redis.ask("FT.CREATE", "i", "ON", "HASH", "PREFIX", 1, "i:", "SCHEMA", "terms", "TAG",
              "embedding", "VECTOR", "HNSW", 10, "TYPE", "FLOAT32", "DIM", vectors.shape[1],
              "DISTANCE_METRIC", "COSINE", "M", degree, "EF_CONSTRUCTION", 200)
    began = time.monotonic()
    for at in range(0, len(vectors), BATCH):
        rows = range(at, min(at + BATCH, len(vectors)))
        redis.ask_all([("HSET", f"i:{row}", "terms", f"all,part{row % 10}", "embedding",
                        vectors[row].tobytes()) for row in rows])
    return len(vectors) / (time.monotonic() - began)


def measure(redis, similarities, questions, query, rows, ef, k=20):
    """Recall, and the median time of a question in ms."""
    found, times = 0, []
    for question, scores in zip(questions, similarities):
        nearest = set(rows[numpy.argpartition(-scores[rows], k)[:k]])
        began = time.monotonic()
        reply = redis.ask(
            "FT.SEARCH", "i", f"({query})=>[KNN {k} @embedding $v EF_RUNTIME {ef} AS d]",
            "PARAMS", 2, "v", question.tobytes(), "SORTBY", "d", "NOCONTENT", "LIMIT", 0, k,
            "DIALECT", 2)
        times.append(time.monotonic() - began)
        found += len(nearest & {int(key[2:]) for key in reply[1:]})
    return f"{found / len(questions) / k:.3f} | {statistics.median(times) * 1000:.1f}"


def unit(vectors):
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=10000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--degrees", default="16,32", help="M of HNSW")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # The server ends too.
    print("| vectors | M | written/s | EF_RUNTIME | no filter | ms | all pass | ms | a tenth | ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        process, redis = start_server(directory)
        try:
            for kind in ("random", "clusters"):
                vectors, questions = make_vectors(kind, arguments.vectors, arguments.dim)
                similarities = unit(questions) @ unit(vectors).T
                everything = numpy.arange(len(vectors))
                for degree in map(int, arguments.degrees.split(",")):
                    speed = fill(redis, vectors, degree)
                    for ef in (10, 100, 200, 300, 400):
                        cells = [
                            measure(redis, similarities, questions, query, rows, ef)
                            for query, rows in (("*", everything), ("@terms:{all}", everything),
                                                ("@terms:{part3}", everything[3::10]))
                        ]
                        print(f"| {kind} | {degree} | {speed:.0f} | {ef} | {' | '.join(cells)} |",
                              flush=True)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
