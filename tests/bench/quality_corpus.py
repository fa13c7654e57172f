"""A real corpus with known answers: the sources of Debian's python3.11-doc.

The FAQ's headings are questions as people ask them, and the text below each is its answer. Each
answer becomes a document of its own, without the heading, or the words of the question would find
it; the rest of the documentation is what else there is to find.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

from measure import BenchError
from prepare import LOCAL

PACKAGE = "python3.11-doc"
SOURCES = "usr/share/doc/python3.11/html/_sources"
UNDERLINE = re.compile(r"([-=~^*\"'])\1{3,}\s*$")
LEAST_WORDS = 15  # A shorter answer says "see above".


@dataclass(frozen=True)
class Question:
    text: str
    doc_id: str  # Of the one document that answers it.


def install():
    """The directory of the sources, fetched with apt but not installed into the system."""
    home = os.path.join(LOCAL, "corpus", PACKAGE)
    if not os.path.isdir(home):
        os.makedirs(os.path.dirname(home), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(home)) as made:
            _call(["apt-get", "download", PACKAGE], made)
            package = next(name for name in os.listdir(made) if name.endswith(".deb"))
            _call(["dpkg-deb", "-x", package, "files"], made)
            os.rename(os.path.join(made, "files"), home)
    return os.path.join(home, SOURCES)


def _call(command, directory):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")


def sections(text):
    """Heading and body of each section, whatever its level."""
    lines = text.splitlines()
    heads = [i for i in range(1, len(lines)) if UNDERLINE.match(lines[i]) and lines[i - 1].strip()
             and not UNDERLINE.match(lines[i - 1])]
    for n, at in enumerate(heads):
        end = heads[n + 1] - 1 if n + 1 < len(heads) else len(lines)
        yield lines[at - 1].strip(), "\n".join(lines[at + 1:end]).strip()


def plain(text):
    """What a reader sees: `:func:`open`` is open, and where a link leads is left out."""
    text = re.sub(r"^\.\. (index|_)[^\n]*\n(?:[ \t]+[^\n]*\n)*", "", text, flags=re.MULTILINE)
    text = re.sub(r":[a-zA-Z:+-]+:`([^`<]*?)(?:\s*<[^`>]*>)?`", lambda m: m[1].lstrip("!~"), text)
    return re.sub(r"`([^`<]+?)\s*<[^`>]*>`_+", r"\1", text)


def write(directory, others):
    """Puts the documents there, at most `others` beside the answers; returns the questions."""
    sources = install()
    questions = []
    for name in sorted(os.listdir(os.path.join(sources, "faq"))):
        with open(os.path.join(sources, "faq", name), encoding="utf-8") as f:
            text = f.read()
        for n, (heading, body) in enumerate(sections(text)):
            body = plain(body)
            if heading.endswith("?") and len(body.split()) >= LEAST_WORDS:
                doc_id = f"faq/{name.split('.')[0]}-{n:02}.txt"
                _put(directory, doc_id, body)
                questions.append(Question(plain(heading).replace("``", ""), doc_id))
    found = sorted(os.path.join(where, name) for where, _, names in os.walk(sources) for name in names
                   if name.endswith(".rst.txt") and not where.endswith("/faq"))
    step = max(1, len(found) / others) if others else len(found) + 1
    chosen = [found[int(i * step)] for i in range(min(others, len(found)))]
    for path in chosen:
        with open(path, encoding="utf-8") as f:
            _put(directory, os.path.relpath(path, sources).replace(".rst.txt", ".txt"), plain(f.read()))
    return questions


def _put(directory, doc_id, text):
    path = os.path.join(directory, doc_id)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text + "\n")
