"""A TCP proxy between workers and a server, that can change the server or let nothing through."""

import socket
import threading


def _break(pair):
    """Both ends see their connection end; the sockets are closed with their last reader."""
    for end in pair:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


class Proxy:
    def __init__(self, target):
        self._target, self._pairs = target, []
        self._flows = threading.Event()
        self._flows.set()

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._pairs.append((client, server))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source, sink):
        try:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        _break((source, sink))

    def hold(self):
        """What comes from now on stays here; connections stay open."""
        self._flows.clear()

    def switch(self, target):
        """All connections break, new ones go to another port of this machine."""
        self._target = target
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _break(pair)

    def __exit__(self, *_error):
        self._listener.close()
        self._flows.set()
        for pair in self._pairs:
            _break(pair)
