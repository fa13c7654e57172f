#!/usr/bin/env python3
"""The shape of the source: who may include whom, and how large things may become.

usage: layers.py ROOT        prints `file:line: what` for each breach and exits 1 if there is one

A file of common/ belongs to the module that begins its name: redis_conn.c to redis. Includes go
sideways or downward, never up. A worker includes common/ and its own folder, never another worker,
and common/ includes no worker. A third-party library's header is included by one file, so that one
file changes when the library does. Every header compiles alone.
"""
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys

# The layers of common/, docs/ARCHITECTURE.md, "The layout". A new module is added here.
LAYERS = {
    0: """arena backoff buf chunk clock codec decimal digest error fts_query fusion json list log map message metrics
          option_value options sse text uuid window""",  # No input or output.
    1: """http_client http_curl http_server http_text kafka loop lua_scripts postgres redis relaxed sqlite tcp
          trim""",
    2: """admin attach backlog bundle claim coord ending ingest_account intake job permit process settle stage store upstream
          worker""",
}

# What belongs to each third-party library, and the files that may share it.
LIBRARIES = {
    "uv.h": {"common/loop.c", "common/tcp.c"},  # tcp.c drives uv's streams on the loop's uv_loop_t.
    "curl/": None,  # None: any one file.
    "librdkafka/": None,
    "hiredis/": None,
    "msgpack": None,
    "sqlite3": None,
    "libpq": None,
    "llhttp.h": None,
    "yyjson.h": None,
    "unicode/": None,
}

MAX_FILE, MAX_HEADER, MAX_FUNCTION = 800, 160, 70
MAX_INNER_HEADER = 200  # Of tests, and *_internal.h: between the files of one module.
LARGER = {
    "common/message.h": 220,  # The wire's records, annotated field by field.
    "common/coord_internal.h": 240,  # One process among the others: shared by nine files.
    "common/job_internal.h": 220,  # One job: shared by seven files.
    "common/kafka.h": 180,  # One library's producer, consumer, reader and administration.
}
FLAGS = "-std=c11 -D_GNU_SOURCE -fsyntax-only -x c -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
PACKAGES = "libuv rdkafka hiredis libcurl sqlite3 libllhttp yyjson icu-uc libpq"
CODE = ("common", "workers")
ALL = CODE + ("tests", "deploy", "docs", "cmake")
OPTIONS = "common/options.c"  # The only reader of the environment, and the list of LOOKALIKES.

MODULE_LAYER = {module: layer for layer, names in LAYERS.items() for module in names.split()}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
ENVIRONMENT = re.compile(r"\b(secure_getenv|getenv|environ)\b")
OPTION_NAME = re.compile(r'"(SLUICE_[A-Z0-9_]+)"')

breaches = []


def breach(path, line, what):
    breaches.append((path, line, what))


def module_of(path):
    """The longest module name that begins the file's name, or None."""
    stem = os.path.splitext(os.path.basename(path))[0]
    fitting = [m for m in MODULE_LAYER if stem == m or stem.startswith(m + "_")]
    return max(fitting, key=len, default=None)


def find_files(root):
    """Paths relative to root of all text files in the folders that are ours."""
    found = []
    for top in ALL:
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = sorted(f for f in folders if f not in ("corpus", "__pycache__"))
            found += [os.path.relpath(os.path.join(folder, n), root) for n in sorted(names)]
    return found


def read_lines(root, path):
    try:
        with open(os.path.join(root, path), encoding="utf-8") as file:
            return file.read().split("\n")
    except UnicodeDecodeError:
        return []  # Not text.


def strip_comments(lines):
    """The same lines without comments; string literals stay."""
    token = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.S)

    def blank(match):
        text = match.group(0)
        return text if text[0] in "\"'" else "\n" * text.count("\n") + " "

    return token.sub(blank, "\n".join(lines)).split("\n")


def includes_of(lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1) == '"', match.group(2)


def check_common_include(path, number, included):
    target, own = module_of(included), module_of(path)
    if target is None:
        breach(path, number, f"{included} is in no layer: add it to LAYERS in tests/lint/layers.py")
    elif MODULE_LAYER[target] > MODULE_LAYER[own]:
        breach(path, number, f"{own} (layer {MODULE_LAYER[own]}) includes {target} (layer {MODULE_LAYER[target]})")


def check_our_includes(path, lines):
    if path.startswith("common/") and module_of(path) is None:
        breach(path, 1, "in no layer: add it to LAYERS in tests/lint/layers.py")
        return
    for number, ours, included in includes_of(lines):
        if not ours:
            continue
        if not included.startswith(("common/", "workers/")):
            breach(path, number, f'"{included}": name it from the root, such as "common/buf.h"')
        elif path.startswith("common/") and included.startswith("workers/"):
            breach(path, number, f"common/ includes a worker: {included}")
        elif path.startswith("common/"):
            check_common_include(path, number, included)
        elif included.startswith("workers/") and os.path.dirname(included) != os.path.dirname(path):
            breach(path, number, f"a worker includes another one: {included}")


def check_libraries(sources):
    """sources: path to lines, of CODE."""
    for library, sharers in LIBRARIES.items():
        users = [(path, number) for path, lines in sources.items()
                 for number, ours, included in includes_of(lines) if not ours and included.startswith(library)]
        paths = sorted({path for path, _ in users})
        for path, number in users:
            if sharers is not None and path not in sharers:
                breach(path, number, f"{library} belongs to {' and '.join(sorted(sharers))}")
            elif sharers is None and path != paths[0]:
                breach(path, number, f"{library} is included by {paths[0]} already")
        for header in (path for path in paths if path.endswith(".h")):
            check_private_header(sources, header, library)


def check_private_header(sources, header, library):
    """A header that includes a library's stays within its module."""
    for path, lines in sources.items():
        for number, ours, included in includes_of(lines):
            if ours and included == header and module_of(path) != module_of(header):
                breach(path, number, f"{header} brings {library} out of the module {module_of(header)}")


def check_sizes(path, lines):
    length = len(lines) - 1
    limit = MAX_HEADER if path.endswith(".h") else MAX_FILE
    if path.endswith("_internal.h") or (path.startswith("tests/") and path.endswith(".h")):
        limit = MAX_INNER_HEADER
    limit = LARGER.get(path, limit)
    if length > limit:
        breach(path, limit + 1, f"{length} lines, {limit} at most")
    start = None
    for number, line in enumerate(lines, 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start is not None:
            if number - start + 1 > MAX_FUNCTION:
                breach(path, start, f"a function of {number - start + 1} lines, {MAX_FUNCTION} at most")
            start = None


def check_words(path, lines):
    for number, line in enumerate(lines, 1):
        match = UNFINISHED.search(line)
        if match:
            breach(path, number, f"{match.group(0)}: finish it, or open an issue")


def check_environment(path, lines):
    for number, line in enumerate(lines, 1):
        if path != OPTIONS and ENVIRONMENT.search(line):
            breach(path, number, f"the environment is read by {OPTIONS} alone")


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def check_option_names(sources):
    """Programs take a variable within distance 2 of an option for a misspelling (options.c)."""
    listed = set()
    declaration = re.search(r"LOOKALIKES\[\] = \{(.*?)\}", "\n".join(sources.get(OPTIONS, [])), re.S)
    if declaration:
        listed = set(OPTION_NAME.findall(declaration.group(1)))
    seen = {}
    for path, lines in sources.items():
        for number, line in enumerate(lines, 1):
            for name in OPTION_NAME.findall(line):
                if name not in listed:
                    seen.setdefault(name, (path, number))
    everything = sorted(set(seen) | listed)
    for name, (path, number) in seen.items():
        for other in everything:
            if other != name and distance(name, other) <= 2:
                breach(path, number, f"{name} looks like {other}: rename one, or add both to LOOKALIKES in {OPTIONS}")


def compile_header(root, path, flags):
    result = subprocess.run(["cc", *flags, path], cwd=root, capture_output=True, text=True)
    if result.returncode == 0:
        return None
    first = next((line for line in result.stderr.split("\n") if "error" in line), result.stderr.strip())
    return path, first


def check_headers(root, headers):
    flags = shlex.split(FLAGS) + ["-I", root]
    packages = subprocess.run(["pkg-config", "--cflags-only-I", *PACKAGES.split()], capture_output=True, text=True)
    flags += [f.replace("-I", "-isystem", 1) for f in packages.stdout.split()]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for failed in pool.map(lambda header: compile_header(root, header, flags), headers):
            if failed:
                breach(failed[0], 1, f"does not compile alone: {failed[1]}")


def main():
    root = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
    texts = {path: read_lines(root, path) for path in find_files(root)}
    c_files = {path: lines for path, lines in texts.items() if path.endswith((".c", ".h"))}
    sources = {path: strip_comments(lines) for path, lines in c_files.items() if path.startswith(CODE)}
    if not sources:
        sys.exit(f"{root}: no sources")
    for path, lines in sources.items():
        check_our_includes(path, lines)
        check_environment(path, lines)
    check_libraries(sources)
    check_option_names(sources)
    for path, lines in texts.items():
        check_words(path, lines)
    for path, lines in c_files.items():
        check_sizes(path, lines)
    check_headers(root, [path for path in c_files if path.endswith(".h")])
    for path, line, what in sorted(breaches):
        print(f"{path}:{line}: {what}")
    print(f"{len(c_files)} files, {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
