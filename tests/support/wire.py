"""A small strict reader for HTTP/1.1 messages and one for server-sent events.

Both are fed with bytes as they arrive and call back with what they recognised; neither does I/O.
Strict means that what a careful server or client must not send is an error here (bare LF in a head,
both Content-Length and Transfer-Encoding, bad chunk sizes, unknown event fields, a body that ends
in the middle), so that a test which speaks through these readers notices it.
"""

import re

HEAD_LIMIT = 64 * 1024
PENDING_LIMIT = 1024 * 1024

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_REQUEST_LINE = re.compile(r"([A-Z]+) (/[!-~]*) HTTP/1\.([01])\Z")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9][0-9]) [^\x00-\x08\x0a-\x1f\x7f]*\Z")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}\Z")


class WireError(Exception):
    """The other side broke the protocol; the connection cannot be used any more."""


class Head:
    """The start line and the headers (lower-case names) of one message."""

    __slots__ = ("method", "target", "status", "minor", "headers")

    def __init__(self):
        self.method = self.target = None
        self.status = 0
        self.minor = 1
        self.headers = {}

    def keeps_alive(self):
        options = self.headers.get("connection", "").lower()
        return "keep-alive" in options if self.minor == 0 else "close" not in options


def parse_head(block, response):
    """Parses the bytes before the empty line; raises WireError."""
    head = Head()
    lines = block.decode("latin-1").split("\r\n")
    match = (_STATUS_LINE if response else _REQUEST_LINE).match(lines[0])
    if not match:
        raise WireError(f"bad start line {lines[0][:80]!r}")
    if response:
        head.minor, head.status = int(match[1]), int(match[2])
    else:
        head.method, head.target, head.minor = match[1], match[2], int(match[3])
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.match(name) or any(c in value for c in "\r\n\0"):
            raise WireError(f"bad header line {line[:80]!r}")
        name, value = name.lower(), value.strip(" \t")
        if name in head.headers:
            if name in ("content-length", "transfer-encoding", "host", "content-type"):
                raise WireError(f"header {name} given twice")
            value = head.headers[name] + ", " + value
        head.headers[name] = value
    return head


class HttpReader:
    """Reads the messages of one direction of a connection.

    `on_head(head)`, `on_body(bytes)` and `on_end()` fire from within feed(), resume() and eof().
    After on_end() the reader of requests waits for resume() before it parses the next message.
    """

    def __init__(self, response, on_head, on_body, on_end):
        self._response = response
        self._on_head, self._on_body, self._on_end = on_head, on_body, on_end
        self._buf = bytearray()
        self._state = self._read_head
        self._left = 0
        self._paused = False

    def feed(self, data):
        self._buf += data
        if self._paused:
            if len(self._buf) > PENDING_LIMIT:
                raise WireError("too many bytes sent ahead")
            return
        self._run()

    def resume(self):
        self._paused = False
        self._run()

    def eof(self):
        """The other side closed: the end of a body that lasts until then, else an error."""
        if self._state == self._read_until_eof:
            self._finish()
        elif self._state != self._read_head or self._buf:
            raise WireError("connection closed in the middle of a message")

    def _run(self):
        while not self._paused and self._state():
            pass

    def _finish(self):
        self._state = self._read_head
        self._paused = not self._response
        self._on_end()

    def _line(self):
        """The next line without its CRLF, or None until it is whole."""
        end = self._buf.find(b"\n", 0, HEAD_LIMIT)
        if end < 0:
            if len(self._buf) >= HEAD_LIMIT:
                raise WireError("line too long")
            return None
        if end == 0 or self._buf[end - 1] != 13:
            raise WireError("bare LF")
        line = bytes(self._buf[:end - 1])
        del self._buf[:end + 1]
        return line

    def _read_head(self):
        end = self._buf.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buf) > HEAD_LIMIT:
                raise WireError("head too long")
            return False
        head = parse_head(bytes(self._buf[:end]), self._response)
        del self._buf[:end + 4]
        if self._response and 100 <= head.status < 200:
            return True
        self._choose_body(head)
        self._on_head(head)
        if self._state == self._read_head:
            self._finish()
        return True

    def _choose_body(self, head):
        length, coding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
        if length is not None and coding is not None:
            raise WireError("both content-length and transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked" or head.minor == 0:
                raise WireError(f"transfer-encoding {coding!r}")
            self._state = self._read_chunk_size
        elif length is not None:
            if not _DIGITS.match(length):
                raise WireError(f"content-length {length!r}")
            self._left = int(length)
            if self._left and head.status not in (204, 304):
                self._state = self._read_length
        elif self._response and head.status not in (204, 304):
            self._state = self._read_until_eof

    def _read_length(self):
        if not self._take_body():
            return False
        if self._left == 0:
            self._finish()
        return True

    def _read_until_eof(self):
        self._left = len(self._buf)
        return self._take_body()

    def _take_body(self):
        if not self._buf:
            return False
        data = bytes(self._buf[:self._left])
        del self._buf[:self._left]
        self._left -= len(data)
        self._on_body(data)
        return True

    def _read_chunk_size(self):
        line = self._line()
        if line is None:
            return False
        if not _CHUNK_SIZE.match(line):
            raise WireError(f"bad chunk size {line[:40]!r}")
        self._left = int(line, 16)
        self._state = self._read_chunk if self._left else self._read_trailer
        return True

    def _read_chunk(self):
        if self._left:
            return self._take_body()
        line = self._line()
        if line is None:
            return False
        if line:
            raise WireError("chunk longer than its size")
        self._state = self._read_chunk_size
        return True

    def _read_trailer(self):
        line = self._line()
        if line is None:
            return False
        if line == b"":
            self._finish()
        return True


class SseReader:
    """Reads server-sent events; `on_event(event_type, id, data)` with None for an absent field."""

    def __init__(self, on_event):
        self._on_event = on_event
        self._buf = bytearray()
        self._fields = {}
        self.comments = 0

    def feed(self, data):
        self._buf += data
        while (end := self._buf.find(b"\n")) >= 0:
            line = bytes(self._buf[:end])
            del self._buf[:end + 1]
            self._on_line(line[:-1] if line.endswith(b"\r") else line)

    def eof(self):
        if self._buf or self._fields:
            raise WireError("event stream ends in the middle of an event")

    def _on_line(self, line):
        if line == b"":
            if self._fields:
                fields, self._fields = self._fields, {}
                self._on_event(fields.get("event"), fields.get("id"), fields.get("data"))
            return
        if line.startswith(b":"):
            self.comments += 1
            return
        try:
            name, colon, value = line.decode("utf-8").partition(":")
        except UnicodeDecodeError as error:
            raise WireError("event stream is not UTF-8") from error
        if not colon or name not in ("id", "event", "data", "retry"):
            raise WireError(f"bad event line {line[:80]!r}")
        value = value[1:] if value.startswith(" ") else value
        if name in self._fields:
            if name != "data":
                raise WireError(f"event field {name} given twice")
            value = self._fields["data"] + "\n" + value
        self._fields[name] = value
