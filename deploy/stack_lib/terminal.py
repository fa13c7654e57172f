"""Lines for people: colours and a line that rewrites itself only where there is a terminal."""

import os
import sys
import time

COLOURS = {"green": "32", "yellow": "33", "red": "31", "bold": "1", "faint": "2"}


def has_colours(stream):
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def coloured(text, colour, stream=sys.stdout):
    if not has_colours(stream):
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def say(text):
    """A line on standard output. A reader who left must not stop a command halfway."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Waiting:
    """What is being waited for, as one line that rewrites itself; silent without a terminal."""

    def __init__(self):
        self.began = time.monotonic()
        self.shown = False

    def show(self, names):
        if sys.stdout.isatty():
            elapsed = time.monotonic() - self.began
            text = f"  waiting for {', '.join(names)} ({elapsed:.0f} s)"
            width = os.get_terminal_size().columns or 80
            print("\r\x1b[K" + text[: width - 1], end="", flush=True)
            self.shown = True

    def clear(self):
        if self.shown:
            print("\r\x1b[K", end="", flush=True)
            self.shown = False


def duration(seconds):
    """The time that something has been running for, in at most two units."""
    seconds = int(seconds)
    for unit, size, smaller, smaller_size in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // smaller_size} {smaller}"
    return f"{seconds} s"


def last_lines(path, count):
    """The last lines of a log, indented; a log that does not exist has none."""
    try:
        with open(path, "rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 64 * 1024))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "    (there is no such file)"
    return "\n".join("    " + line for line in lines[-count:]) or "    (it is empty)"
