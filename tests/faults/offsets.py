"""What consumer groups committed and when, and what was on the topics by then, as the broker says.

The broker keeps each commit as a record of its own on __consumer_offsets, with its time; the topics
have LogAppendTime. Both are the broker's clock, so that "committed before it was finished" can be
said of each record afterwards, without sampling.
"""

import os
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

# Where it shows that a stage is done with a record: the next stage's topic, or the end.
NEXT = {"queries": ("retrieve", "results"), "retrieve": ("rerank", "results"),
        "rerank": ("generate", "results"), "generate": ("results",)}


@dataclass(frozen=True)
class Commit:
    """A group may go on from this offset; all before it are done with. The topic's short name."""

    topic: str
    partition: int
    offset: int
    at_ms: int


@dataclass(frozen=True)
class Record:
    topic: str
    partition: int
    offset: int
    at_ms: int
    id: str = None
    headers: dict = field(default_factory=dict, compare=False)


@dataclass
class Account:
    """What the broker says of a run. `done`: for each record, when its stage was done with it
    (None: never); `ends`: behind the last record of each (topic, partition); `again`: records that a stage
    was handed again, by another delivery of the one before."""

    commits: list
    done: list
    ends: dict
    again: int


def _kcat(topic, form):
    return subprocess.run(["kcat", "-C", "-q", "-e", "-b", os.environ["SLUICE_TEST_BROKERS"], "-t",
                           topic, "-o", "beginning", "-X", "fetch.wait.max.ms=20", "-f", form],
                          check=True, timeout=60, capture_output=True).stdout


def _text(data, at):
    size = struct.unpack_from(">h", data, at)[0]
    return data[at + 2:at + 2 + size].decode(), at + 2 + size


def commit_of(key, value):
    """(group, Commit), or None for the records of __consumer_offsets that are no commits."""
    if len(key) < 2 or struct.unpack_from(">h", key)[0] not in (0, 1) or not value:
        return None
    group, at = _text(key, 2)
    topic, at = _text(key, at)
    partition = struct.unpack_from(">i", key, at)[0]
    version, offset = struct.unpack_from(">hq", value)
    at = 10 + 4 * (version >= 3)
    # From version 4 on the length of the metadata is a varint; what our clients write is short.
    at = at + max(1, value[at]) if version >= 4 else _text(value, at)[1]
    return group, Commit(topic, partition, offset, struct.unpack_from(">q", value, at)[0])


def commits(cluster):
    """Of the cluster's groups, in the order of their times."""
    data, at, found = _kcat("__consumer_offsets", "%K %S\n%k%s"), 0, []
    while at < len(data):
        end = data.index(b"\n", at)
        sizes = [max(0, int(n)) for n in data[at:end].split()]
        key_end = end + 1 + sizes[0]
        at = key_end + sizes[1]
        group, commit = commit_of(data[end + 1:key_end], data[key_end:at]) or ("", None)
        if group.startswith(cluster.prefix + "."):
            found.append(replace(commit, topic=commit.topic.split(".", 1)[1]))
    return sorted(found, key=lambda c: c.at_ms)


def records(cluster, name):
    """The records of a topic by its short name, without their values."""
    found = []
    for line in _kcat(cluster.topic(name), "%p %o %T %h\n").decode("utf-8", "replace").splitlines():
        partition, offset, at_ms, headers = (line + " ").split(" ", 3)
        fields = dict(h.split("=", 1) for h in headers.strip().split(",") if "=" in h)
        found.append(Record(name, int(partition), int(offset), int(at_ms), fields.get("sluice-id"),
                            fields))
    return found


def _set_aside(letters):
    """When each record was written to its dead-letter topic, by where it had been."""
    where = ("topic", "partition", "offset")
    return {tuple(r.headers.get(f"__connect.errors.{w}") for w in where): r.at_ms for r in letters}


def _done(cluster, topics):
    dead = _set_aside(r for name in NEXT for r in topics[name + ".dlq"])
    for name, after in NEXT.items():
        first = {}
        for record in (r for a in after for r in topics[a]):
            first[record.id] = min(first.get(record.id, record.at_ms), record.at_ms)
        for record in topics[name]:
            letter = dead.get((cluster.topic(name), str(record.partition), str(record.offset)))
            # A job without an id is given one from where it lies: what became of it is not known.
            if record.id or letter:
                yield record, letter or first.get(record.id)


def account(cluster):
    """The Account of the groups that serve queries."""
    names = [*NEXT, "results", *(name + ".dlq" for name in NEXT)]
    with ThreadPoolExecutor(4) as pool:
        committed = pool.submit(commits, cluster)
        topics = dict(zip(names, pool.map(lambda name: records(cluster, name), names)))
    ends = {}
    for record in (r for name in NEXT for r in topics[name]):
        at = (record.topic, record.partition)
        ends[at] = max(ends.get(at, 0), record.offset + 1)
    again = sum(len(topics[name]) - len({r.id for r in topics[name]})
                for name in NEXT if name != "queries")
    return Account(committed.result(), list(_done(cluster, topics)), ends, again)
