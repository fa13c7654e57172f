"""Which port each part of the stack listens on.

A port comes from its variable, or has a default; 0 asks for any free one. The choice is written to
ports.json when a part is first started and stays until the stack is taken down.
"""

import errno
import random
import socket

from .errors import StackError

LOOPBACK = "127.0.0.1"

# name: (variable, default)
FIXED = {
    "kafka": ("SLUICE_STACK_KAFKA_PORT", 9092),
    "controller": ("SLUICE_STACK_CONTROLLER_PORT", 9093),
    "redis": ("SLUICE_STACK_REDIS_PORT", 16379),
    "opensearch": ("SLUICE_STACK_OPENSEARCH_PORT", 9200),
    "opensearch-transport": ("SLUICE_STACK_OPENSEARCH_TRANSPORT_PORT", 9300),
    "chat": ("SLUICE_STACK_CHAT_PORT", 18001),
    "embed": ("SLUICE_STACK_EMBED_PORT", 18002),
    "rerank": ("SLUICE_STACK_RERANK_PORT", 18003),
}
ADMIN_VARIABLE = "SLUICE_STACK_ADMIN_PORT"
ADMIN_DEFAULT = 9100
LISTEN_VARIABLE = "SLUICE_LISTEN"
LISTEN_DEFAULT = f"{LOOPBACK}:8080"

# A further instance of a worker has the first one's port plus this much for each before it.
INSTANCE_STEP = 100

# Below the range from which the system takes the ports of outgoing connections, any of which could
# otherwise take a port between its choice and the server's start.
FREE_RANGE = range(20000, 32000)


def number(environ, variable, default):
    text = environ.get(variable, "")
    if text == "":
        return default
    if not text.isdecimal() or int(text) > 65535:
        raise StackError(f"{variable} is {text!r}: it must be a port from 0 to 65535", 2)
    return int(text)


def listen_address(environ):
    """Host and port that SLUICE_LISTEN asks the gateway to listen on."""
    text = environ.get(LISTEN_VARIABLE) or LISTEN_DEFAULT
    host, colon, port = text.rpartition(":")
    if colon == "" or not port.isdecimal() or int(port) > 65535:
        raise StackError(f"{LISTEN_VARIABLE} is {text!r}: it must be HOST:PORT", 2)
    return host or "0.0.0.0", int(port)


def is_free(host, port):
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise StackError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return True


class Ports:
    """The ports in use: a dictionary that is kept in ports.json, and the rules for adding to it.

    Keys are the names in FIXED, `gateway` (and `gateway-2` ...) for the public address, and
    `admin`, a dictionary from the name of an instance to its admin port.
    """

    def __init__(self, environ, chosen):
        self.environ = environ
        self.chosen = chosen
        self.chosen.setdefault("admin", {})
        self.taken = []

    def _all(self):
        flat = [port for name, port in self.chosen.items() if name != "admin"]
        return set(flat) | set(self.chosen["admin"].values())

    def _any_free(self, host=LOOPBACK):
        used = self._all()
        for port in random.sample(FREE_RANGE, len(FREE_RANGE)):
            if port not in used and is_free(host, port):
                return port
        raise StackError("no free port was found")

    def _wanted(self, name, port, variable, host=LOOPBACK):
        """`port`, or any free one if it is 0; a taken one is noted with its variable."""
        if port == 0:
            return self._any_free(host)
        if port in self._all():
            self.taken.append(f"port {port} ({name}) is given twice: set {variable} to another one")
        elif not is_free(host, port):
            self.taken.append(f"port {port} ({name}) is taken: set {variable} to a free one")
        return port

    def forget(self, name):
        self.chosen.pop(name, None)

    def forget_admin(self, instance):
        self.chosen["admin"].pop(instance, None)

    def choose_fixed(self, name):
        variable, default = FIXED[name]
        wanted = number(self.environ, variable, default)
        self.chosen[name] = self._wanted(name, wanted, variable)

    def choose_gateway(self, name, nth):
        host, wanted = listen_address(self.environ)
        if nth == 1:
            self.chosen[name] = self._wanted("gateway", wanted, LISTEN_VARIABLE, host)
        else:
            self.chosen[name] = self._further(wanted, nth, host)

    def choose_admin(self, instance, offset, nth):
        base = number(self.environ, ADMIN_VARIABLE, ADMIN_DEFAULT)
        wanted = base + offset if base else 0
        admin = self.chosen["admin"]
        if nth == 1:
            admin[instance] = self._wanted(f"{instance}, admin", wanted, ADMIN_VARIABLE)
        else:
            admin[instance] = self._further(wanted, nth, LOOPBACK)

    def _further(self, first, nth, host):
        """The port of a further instance: nobody asked for a certain one, so a free one will do."""
        port = first + INSTANCE_STEP * (nth - 1)
        if first == 0 or port > 65535 or port in self._all() or not is_free(host, port):
            return self._any_free(host)
        return port

    def check(self):
        if self.taken:
            hint = "0 in place of a port takes any free one; all variables: deploy/stack --help"
            raise StackError("\n".join([*self.taken, hint]))
