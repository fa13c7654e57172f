#!/usr/bin/env python3
"""What the Markdown pages say about the rest of the repository.

usage: documentation.py ROOT        prints `file:line: what` for each breach and exits 1 if there is one

Links go to files and headings that exist; files that are named in backquotes by their folder exist,
unless NAME stands in them; the metrics of docs/OPERATIONS.md are those of the source.
"""
import glob
import os
import re
import sys

PAGES = ("*.md", "docs/*.md")
METRICS_PAGE = "docs/OPERATIONS.md"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:common|workers|deploy|docs|tests|cmake)/[A-Za-z0-9_./-]*)`")
METRIC = re.compile(r'"(sluice_[a-z0-9_]+)"')
METRIC_ROW = re.compile(r"^\| `(sluice_[a-z0-9_]+)` \|")

breaches = []


def breach(path, line, what):
    breaches.append(f"{path}:{line}: {what}")


def prose_of(text):
    """(number, line) of what is neither code nor a table."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchor_of(heading):
    """The anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors_of(text):
    return {anchor_of(line.lstrip("#")) for _, line in prose_of(text) if line.startswith("#")}


def check_link(root, page, number, target):
    if re.match(r"[a-z]+:", target):
        return
    path, _, anchor = target.partition("#")
    full = os.path.normpath(os.path.join(root, os.path.dirname(page), path)) if path else os.path.join(root, page)
    if not os.path.exists(full):
        breach(page, number, f"links to {path}, which does not exist")
    elif anchor and full.endswith(".md"):
        with open(full, encoding="utf-8") as file:
            if anchor not in anchors_of(file.read()):
                breach(page, number, f"links to #{anchor}, a heading that does not exist")


def check_page(root, page, text):
    for number, line in prose_of(text):
        for target in LINK.findall(line):
            check_link(root, page, number, target)
        for name in NAMED_FILE.findall(line):
            if "NAME" not in name and not os.path.exists(os.path.join(root, name)):
                breach(page, number, f"names {name}, which does not exist")


def check_metrics(root, text):
    named = set()
    for path in glob.glob(f"{root}/common/*.c") + glob.glob(f"{root}/workers/**/*.c", recursive=True):
        with open(path, encoding="utf-8") as file:
            named.update(METRIC.findall(file.read()))
    rows = {match[1]: number for number, line in enumerate(text.splitlines(), 1)
            if (match := METRIC_ROW.match(line))}
    for name in sorted(named - rows.keys()):
        breach(METRICS_PAGE, 1, f"lacks the metric {name}")
    for name in sorted(rows.keys() - named):
        breach(METRICS_PAGE, rows[name], f"{name} is no metric of the source")


def main(root):
    pages = [os.path.relpath(path, root) for pattern in PAGES for path in glob.glob(os.path.join(root, pattern))]
    for page in sorted(pages):
        with open(os.path.join(root, page), encoding="utf-8") as file:
            text = file.read()
        check_page(root, page, text)
        if page == METRICS_PAGE:
            check_metrics(root, text)
    print("\n".join([*breaches, f"{len(pages)} pages, {len(breaches)} breaches"]))
    return 1 if breaches else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(os.path.abspath(sys.argv[1])))
