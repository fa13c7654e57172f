"""Callers that ask for a stream and then read ten bytes of it a second."""

import json
import socket
import threading
import time

from checker import Request


class SlowReaders:
    def __init__(self, cluster, count, first):
        self.requests, self._sockets = [], []
        self._stopped = threading.Event()
        for number in range(first, first + count):
            self._ask(cluster, f"Question {number}: slow reader?")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _ask(self, cluster, question):
        conn = socket.socket()
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.connect(("127.0.0.1", cluster.port))
        body = json.dumps({"query": question}).encode()
        conn.sendall(b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
                     b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                     % (len(body), body))
        conn.setblocking(False)
        self._sockets.append([conn, b""])
        self.requests.append(Request(question=question, accepted=True, sent_ns=time.monotonic_ns()))

    def _read(self):
        while not self._stopped.wait(1):
            for entry, request in zip(self._sockets, self.requests):
                try:
                    # The head at once, for the id; then slowly.
                    entry[1] += entry[0].recv(10 if request.id else 512)
                except OSError:
                    continue
                _, found, rest = entry[1].partition(b"sluice-id: ")
                if found and b"\r\n" in rest:
                    request.id = rest.partition(b"\r\n")[0].decode()

    def stop(self):
        """All leave."""
        self._stopped.set()
        self._thread.join()
        for entry, request in zip(self._sockets, self.requests):
            request.left_ns = time.monotonic_ns()
            entry[0].close()
