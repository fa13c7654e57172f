"""Rows 3 and 32: ingestion that is killed half-way, new versions of documents that meet such deaths
or each other, and a store whose disk is full."""

import os
import random
import tempfile
import time

import documents
from checker import Rules, check_offsets
from cluster import wait_until
from disk import SmallDisk
from documents import Documents
from trial import Trial, row

SENTENCES = [1600] + [40] * 12
INGEST_SECONDS = 90
# Batches are slow enough for the kill to come in between.
SLOW = {"embed": {"latency_ms": 400}}


def judge(t, papers, told):
    for problem in papers.problems(told):
        t.violation("I1", problem)
    check_offsets(t.findings, documents.account(t.cluster))
    t.findings.requests = len(papers.texts)


def ingest_killed(stage):
    with Documents(SENTENCES) as papers, \
            Trial({"embed": 2}, SLOW, gateway=False, ingest=2, stages=("embed",),
                  SLUICE_INGEST_BATCH=8, SLUICE_MAX_INFLIGHT_BULK=4, **papers.environment) as t:
        process = papers.begin(t.cluster)
        total = sum(len(text) for text in papers.texts.values()) // 450
        wait_until(lambda: papers.stored() >= total // 2, 60, "half of the chunks")
        victim = max(t.cluster.of(stage), key=lambda w: w.metric("sluice_jobs_in_flight"))
        t.fault()
        at_ms = time.time() * 1000
        t.cluster.kill(victim)
        t.notes.append(f"{papers.stored()} chunks stored before")
        told = documents.summary(process, INGEST_SECONDS)
        whole_ns = time.monotonic_ns()
        t.finish(Rules())
        t.findings.recovery_s = (whole_ns - t.fault_ns) / 1e9
        judge(t, papers, told)
        embedded, t.findings.repeated = documents.embedded_again(t.cluster.upstream.ledger())
        t.notes.append(f"{papers.stored()} chunks; reprocessed: at most "
                       f"{documents.uncommitted(t.cluster, at_ms)} written again, "
                       f"{embedded} embedded again")
    return t.findings


@row("3", "ingest killed (-9) after half of the chunks were stored")
def ingest_worker_killed():
    return ingest_killed("ingest")


@row("3-embed", "embed killed (-9) after half of the chunks were stored")
def embed_worker_killed():
    return ingest_killed("embed")


def versions_trial(papers):
    return Trial({"embed": 2}, SLOW, gateway=False, ingest=2, stages=("embed",),
                 SLUICE_INGEST_BATCH=8, SLUICE_MAX_INFLIGHT_BULK=4, **papers.environment)


def first_versions(t, papers):
    told = documents.summary(papers.begin(t.cluster), INGEST_SECONDS)
    for problem in papers.problems(told):
        t.violation("I1", f"before the fault: {problem}")


def nothing_changes(t):
    """Nothing waits for its deletion, so questions look nothing up any more."""
    key = t.cluster.environment()["SLUICE_TOPIC_PREFIX"] + ":ingest:changing"
    wait_until(lambda: t.cluster.redis("SCARD", key).strip() == "0", 30, f"an empty {key}")


@row("3-replace", "ingest or embed killed (-9) six times while documents are replaced and shrunk")
def replaced_under_deaths():
    chance = random.Random(3)
    with Documents([300] * 8) as papers, versions_trial(papers) as t:
        first_versions(t, papers)
        papers.rewrite({"d0.md": (0, 40), "d1.md": (101, 30), "d2.md": (102, 300),
                        "d3.md": (3, 400), "d4.md": (104, 10), "d5.md": (105, 500)})
        process = papers.begin(t.cluster)
        t.fault()
        for n in range(6):
            time.sleep(chance.uniform(0.5, 3))  # At any point.
            stage = ("ingest", "embed")[n % 2]
            t.cluster.kill(chance.choice(t.cluster.of(stage)))
            t.cluster.start(stage)
        told = documents.summary(process, 2 * INGEST_SECONDS)
        whole_ns = time.monotonic_ns()
        nothing_changes(t)
        t.finish(Rules())
        t.findings.recovery_s = (whole_ns - t.fault_ns) / 1e9
        changed = [f"d{n}.md" for n in range(6)]
        for problem in papers.problems(told, changed):
            t.violation("I1", problem)
        t.findings.requests = len(papers.texts)
    return t.findings


@row("3-versions", "two new versions of each document at once, one of them the first again, ingest "
                   "killed (-9) meanwhile")
def versions_at_once():
    with Documents([300] * 8) as papers, versions_trial(papers) as t:
        first_versions(t, papers)
        first = dict(papers.texts)
        papers.rewrite({name: (100 + n, 400) for n, name in enumerate(sorted(papers.texts))})
        stored = papers.stored()
        second = papers.begin(t.cluster)
        wait_until(lambda: papers.stored() > stored + 40, 60, "chunks of the second versions")
        papers.rewrite({f"d{n}.md": (n, 300) for n in range(4)})
        papers.rewrite({f"d{n}.md": (200 + n, 20) for n in range(4, 8)})
        assert all(papers.texts[f"d{n}.md"] == first[f"d{n}.md"] for n in range(4))
        third = papers.begin(t.cluster)
        time.sleep(2)
        t.fault()
        t.cluster.kill(t.cluster.of("ingest")[0])
        t.cluster.start("ingest")
        told = [documents.summary(process, 2 * INGEST_SECONDS) for process in (second, third)]
        whole_ns = time.monotonic_ns()
        nothing_changes(t)
        t.finish(Rules())
        t.findings.recovery_s = (whole_ns - t.fault_ns) / 1e9
        if told[0] is None or (told[0]["processed"], told[0]["failed"]) != (8, 0):
            t.violation("I1", f"the second versions: sluice ingest said {told[0]}")
        for problem in papers.problems(told[1]):
            t.violation("I1", problem)
        t.findings.requests = len(papers.texts)
    return t.findings


@row("32", "the store's disk full for 10 s, ingest killed (-9) in between")
def store_full():
    directory = os.path.join(tempfile.gettempdir(), f"sluice-disk-{os.getpid()}")
    with SmallDisk(directory, 32) as disk, Documents(SENTENCES, store=directory) as papers, \
            Trial({"embed": 2}, SLOW, gateway=False, ingest=2, stages=("embed",),
                  SLUICE_INGEST_BATCH=8, SLUICE_MAX_INFLIGHT_BULK=4, **papers.environment) as t:
        process = papers.begin(t.cluster)
        wait_until(lambda: papers.stored() >= 80, 60, "the first chunks")
        t.fault()
        disk.fill()
        time.sleep(5)  # What room the store's own files still have is used up.
        stored = papers.stored()
        t.cluster.kill(t.cluster.of("ingest")[0])
        t.cluster.start("ingest")
        time.sleep(5)
        if papers.stored() != stored:
            raise AssertionError("the disk was never full")
        disk.clear()
        t.heal()
        told = documents.summary(process, INGEST_SECONDS)
        whole_ns = time.monotonic_ns()
        t.notes.append(f"{stored} of {papers.stored()} chunks stored when it was full")
        t.finish(Rules())
        t.findings.recovery_s = (whole_ns - t.heal_ns) / 1e9
        judge(t, papers, told)
    os.rmdir(directory)
    return t.findings
