"""Rows 3 and 32: ingestion that is killed half-way, and a store whose disk is full."""

import os
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
