"""Questions to running processes: are you ready, and how busy are you?

Each probe returns (ready, words): words say why not, or are empty. None of them raises for what a
process does or does not do.
"""

import http.client
import socket
import struct

from .ports import LOOPBACK

TIMEOUT = 2.0


def kafka(port):
    """Ready when the broker's metadata lists a broker: before that it refuses to create topics."""
    client = b"stack"
    metadata_key, version, correlation = 3, 4, 1
    no_topics, auto_create = 0, 0
    request = struct.pack("!hhih", metadata_key, version, correlation, len(client)) + client
    request += struct.pack("!iB", no_topics, auto_create)
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT) as connection:
            connection.sendall(struct.pack("!i", len(request)) + request)
            reader = connection.makefile("rb")
            size = struct.unpack("!i", reader.read(4))[0]
            reply = reader.read(size)
            _, _, brokers = struct.unpack_from("!iii", reply)
    except (OSError, struct.error) as error:
        return False, reason(error)
    return brokers > 0, "" if brokers > 0 else "the broker is not registered yet"


def redis(port):
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT) as connection:
            connection.sendall(b"PING\r\n")
            reply = connection.makefile("rb").readline().decode(errors="replace").strip()
    except OSError as error:
        return False, reason(error)
    return reply == "+PONG", "" if reply == "+PONG" else reply.lstrip("-")


def http_get(port, path):
    """Status and text of an answer, or None and the reason for there being none."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(1 << 20).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, reason(error)
    finally:
        connection.close()


def model(port):
    return _ready(*http_get(port, "/health"))


def opensearch(port):
    return _ready(*http_get(port, "/"))


def worker(admin_port):
    return _ready(*http_get(admin_port, "/readyz"))


def _ready(status, text):
    if status == 200:
        return True, ""
    first_line = (text.strip().splitlines() or [""])[0]
    return False, first_line[:80] or f"status {status}"


def reason(error):
    if isinstance(error, (socket.timeout, TimeoutError)):
        return "no answer"
    if isinstance(error, ConnectionRefusedError):
        return "not listening"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def metric_sums(admin_port, names):
    """The sum over all label values of each metric, None for one that the process does not have."""
    status, text = http_get(admin_port, "/metrics")
    sums = dict.fromkeys(names)
    if status != 200:
        return sums
    for line in text.splitlines():
        # name{label="value",...} value [timestamp]
        name, labels, rest = line.partition("{")
        if labels:
            values = rest.rpartition("}")[2].split()
        else:
            name, *values = line.split() or [""]
        if name in sums and values:
            sums[name] = (sums[name] or 0) + float(values[0])
    return sums
