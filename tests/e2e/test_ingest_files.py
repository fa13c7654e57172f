"""`sluice ingest` and `sluice documents`: what is taken, what is refused and how, and how a run is
followed, interrupted and made up for."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time
import unittest

from cluster import BIN, wait_until

from test_ingest import SAMPLE, Case, text_of


def counts(processed=0, failed=0, skipped=0, total_chunks=0):
    return {"processed": processed, "failed": failed, "skipped": skipped,
            "total_chunks": total_chunks}


def failures(errors):
    """The table of failures on stderr: name to reason."""
    lines = errors.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r"document +why it failed$", line))
    rows = [re.match(r"(\S+) {2,}(.+)$", line) for line in lines[at + 1:]]
    return {row[1]: row[2] for row in rows if row}


class Files(Case):
    def write(self, root, name, content):
        with open(os.path.join(os.fsencode(root), os.fsencode(name)), "wb") as f:
            f.write(content)

    def bad_folder(self):
        outside = self.folder(secret="not to be taken in")
        root = self.folder(good=text_of(300), deep__er__good=text_of(40), latin=b"caf\xe9 au lait",
                           empty="", blank=" \n\t\n", zero=b"a\0b", large=b"x" * ((16 << 20) + 1),
                           most=b"word " * 9000, utf16="text".encode("utf-16"),
                           utf32="text".encode("utf-32"), mark=b"\xef\xbb\xbfA mark before it.")
        os.symlink(os.path.join(outside, "secret.md"), os.path.join(root, "link.md"))
        os.symlink(outside, os.path.join(root, "linked"))
        os.symlink("/dev/zero", os.path.join(root, "zeros.md"))
        os.symlink("nowhere", os.path.join(root, "dangling.md"))
        os.symlink("good.md", os.path.join(root, "alias.md"))
        os.symlink("..", os.path.join(root, "deep", "up"))
        os.mkfifo(os.path.join(root, "pipe.md"))
        plug = socket.socket(socket.AF_UNIX)
        self.addCleanup(plug.close)
        plug.bind(os.path.join(root, "plug.md"))
        self.write(root, b"bytes\xff.md", b"text")
        self.write(root, "code.c", b"int main;")
        os.makedirs(os.path.join(root, *["d" * 200] * 3))
        self.write(root, os.path.join(*["d" * 200] * 3, "long.md"), b"text")
        return root

    REASONS = {
        "blank.md": "nothing but white space", "empty.md": "empty",
        "large.md": "larger than 16 MiB", "zero.md": "holds a zero byte: not a text",
        "latin.md": "not UTF-8, perhaps Latin-1 or Windows-1252: byte 3 is 0xe9",
        "utf16.md": "not UTF-8: begins with the byte order mark of UTF-16",
        "utf32.md": "not UTF-8: begins with the byte order mark of UTF-32",
        "link.md": "a link that leaves the directory", "linked": "a link that leaves the directory",
        "zeros.md": "a link that leaves the directory", "dangling.md": "a link that leads nowhere",
        "deep/up": "a link that leads round in a circle",
        "pipe.md": "a named pipe, not a file", "plug.md": "a socket, not a file",
        "bytes\\xff.md": "its name is not UTF-8",
        "/".join(["d" * 200] * 3) + "/long.md": "its path is longer than 512 bytes",
    }
    TAKEN = {"alias.md", "deep/er/good.md", "good.md", "most.md", "mark.md"}

    def test_files_that_are_no_documents_stop_no_others(self):
        cluster = self.cluster()
        root = self.bad_folder()
        summary, errors = self.ingest(cluster, root, "--collection", "birds", code=1)
        rows = self.store.rows("birds")
        self.assertEqual(summary, counts(len(self.TAKEN), len(self.REASONS), 0, len(rows)))
        self.assertEqual({row[0] for row in rows}, self.TAKEN)
        self.assertEqual([row[3] for row in rows if row[0] == "mark.md"], ["A mark before it."])
        self.assertEqual(failures(errors), self.REASONS)
        run = json.loads(cluster.sluice("ingest", "status", "--json").stdout.splitlines()[0])
        self.assertEqual((run["state"], run["documents"], run["failed"]),
                         ("done", len(self.TAKEN), len(self.REASONS)))
        told = json.loads(cluster.sluice("ingest", "status", run["ingest_id"], "--json").stdout)
        self.assertEqual({f["doc_id"]: f["reason"] for f in told["failures"]}, self.REASONS)

    def test_dry_run_says_all_of_it_without_a_server(self):
        root = self.bad_folder()
        environment = {"PATH": os.environ["PATH"], "SLUICE_KAFKA_BROKERS": "127.0.0.1:1",
                       "SLUICE_REDIS_URL": "redis://127.0.0.1:1"}
        done = subprocess.run([os.path.join(BIN, "sluice"), "ingest", root, "--dry-run"],
                              env=environment, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done)
        *lines, last = done.stdout.splitlines()
        taken = {line.split(maxsplit=4)[4]: (int(line.split()[0]), int(line.split()[2]))
                 for line in lines}
        self.assertEqual(set(taken), self.TAKEN)
        self.assertEqual(taken["mark.md"], (17, 1))
        self.assertEqual(json.loads(last), {
            "documents": len(self.TAKEN), "failed": len(self.REASONS),
            "bytes": sum(size for size, _ in taken.values()),
            "estimated_chunks": sum(chunks for _, chunks in taken.values())})
        self.assertEqual(
            dict(re.match(r"would fail  (\S+): (.*)$", line).groups()
                 for line in done.stderr.splitlines()), self.REASONS)

    def test_standard_input_and_metadata(self):
        cluster = self.cluster(stages=("embed", "retrieve", "rerank"))
        done = cluster.sluice("ingest", "-", "--id", "notes/today.md", "--metadata", "lang=en",
                              "--metadata", "team=a=b", input="The heron was seen at dawn.")
        self.assertEqual(json.loads(done.stdout), counts(1, 0, 0, 1))
        self.assertEqual(self.store.texts("notes/today.md"), ["The heron was seen at dawn."])
        hit = self.search(cluster, "The heron was seen at dawn.")[0]
        self.assertEqual(hit["metadata"], {"lang": "en", "team": "a=b"})

    def test_single_files_and_clashes(self):
        cluster = self.cluster(stages=(), ingest=False)
        first, second = self.folder(a="one", b="two"), self.folder(a="three")
        done = cluster.sluice("ingest", first, os.path.join(second, "a.md"), check=False)
        self.assertEqual((done.returncode, done.stderr.count("\n"), done.stdout), (1, 1, ""))
        self.assertIn(f"{first}/a.md and ", done.stderr)
        self.assertIn(f"{second}/a.md would both be the document a.md", done.stderr)
        self.assertEqual(cluster.consume("documents"), [])

    def test_wrong_usage_is_one_line(self):
        for arguments in (["ingest"], ["ingest", "-"], ["ingest", SAMPLE, "--id", "x"],
                          ["ingest", SAMPLE, "--metadata", "x"], ["ingest", SAMPLE, "--what"],
                          ["ingest", "status", "a", "b"], ["ingest", "status", "--watch"],
                          ["documents", "what"], ["documents", "show"], ["documents", "delete"],
                          ["documents", "list", "--limit", "0"]):
            done = subprocess.run([os.path.join(BIN, "sluice"), *arguments], capture_output=True,
                                  text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), (arguments, done))

    def test_another_root_of_a_collection_is_told(self):
        cluster = self.cluster()
        first, second = self.folder(a="one"), self.folder(a="two")
        for root in (first, first, os.path.join(first, "a.md")):
            self.assertNotIn("warning", self.ingest(cluster, root)[1])
        self.assertNotIn("warning", self.ingest(cluster, second, "--collection", "other")[1])
        _, errors = self.ingest(cluster, second)
        self.assertIn(f"warning: the collection default was filled from {os.path.realpath(first)} on",
                      errors)
        self.assertEqual(self.store.texts("a.md"), ["two"])


class Runs(Case):
    def files(self, count):
        return self.folder(**{f"d{i}": text_of(400, f"Paper {i} says little") for i in range(count)})

    def begin(self, cluster, root, **options):
        return subprocess.Popen(
            [os.path.join(BIN, "sluice"), "ingest", root],
            **{"env": cluster.environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
               "text": True, **options})

    def run_id(self, errors):
        return re.search(r"sluice ingest status (\S+) tells", errors)[1]

    def test_an_interrupted_run_is_finished_by_a_second_one(self):
        cluster = self.cluster()
        cluster.upstream.behave(embed={"latency_ms": 300})
        root = self.files(1500)
        with self.begin(cluster, root) as process:
            wait_until(lambda: os.path.exists(self.store.path) and self.store.rows(), 30, "a chunk")
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, errors)
        sent = int(re.search(r"interrupted: (\d+) of 1500 documents were sent", errors)[1])
        self.assertLess(sent, 1500)
        self.assertLess(json.loads(out)["processed"], sent)
        cluster.upstream.behave(embed={"latency_ms": 0})
        watched = cluster.sluice("ingest", "status", self.run_id(errors), "--watch")
        self.assertRegex(watched.stdout, rf"(?m)^documents +{sent} processed, 0 failed, 0 skipped; "
                                         rf"{sent} sent$")
        self.assertRegex(watched.stdout, r"(?m)^state +done, ")
        summary, errors = self.ingest(cluster, root)
        self.assertEqual((summary["processed"], summary["skipped"]), (1500 - sent, sent))
        self.assertIn(f"{sent} skipped: nothing in them has changed", errors)
        self.assertEqual({row[0] for row in self.store.rows()}, {f"d{i}.md" for i in range(1500)})

    def test_changed_documents_alone_are_done_again(self):
        cluster = self.cluster()
        root = self.folder(same="This stays.", changed="This changes.")
        self.ingest(cluster, root)
        kept = self.store.versions("same.md")
        with open(os.path.join(root, "changed.md"), "w", encoding="utf-8") as f:
            f.write("It has changed.")
        self.assertEqual(self.ingest(cluster, root)[0], counts(1, 0, 1, 1))
        self.assertEqual(self.store.versions("same.md"), kept)
        self.assertEqual(self.store.texts("changed.md"), ["It has changed."])
        self.assertEqual(self.ingest(cluster, root, "--metadata", "a=b")[0], counts(2, 0, 0, 2))

    def test_documents_are_listed_shown_and_deleted(self):
        cluster = self.cluster()
        root = self.folder(a="One.", b=text_of(400), b__c="Three.")
        self.ingest(cluster, root)
        listed = [json.loads(line) for line in
                  cluster.sluice("documents", "--json").stdout.splitlines()]
        self.assertEqual([d["doc_id"] for d in listed], ["a.md", "b.md", "b/c.md"])
        self.assertEqual(listed[1]["chunks"], len(self.store.texts("b.md")))
        page = cluster.sluice("documents", "list", "--limit", "1", "--after", "a.md")
        self.assertRegex(page.stdout, r"^ *chunks .*\n.* b\.md\n$")
        self.assertIn("--after 'b.md'", page.stderr)
        self.assertRegex(cluster.sluice("documents", "show", "b/c.md").stdout, r"(?m)^chunks +1$")
        none = cluster.sluice("documents", "show", "b", check=False)
        self.assertEqual((none.returncode, none.stderr),
                         (1, "sluice documents show: there is no document b in the collection default\n"))
        done = cluster.sluice("documents", "delete", "a.md", "b.md")
        self.assertEqual(json.loads(done.stdout), {"deleted": 2, "failed": 0})
        self.assertEqual({row[0] for row in self.store.rows()}, {"b/c.md"})
        self.assertRegex(cluster.sluice("documents").stdout, r"^ *chunks .*\n.* b/c\.md\n$")

    def test_a_second_interrupt_ends_at_once(self):
        cluster = self.cluster(stages=(), ingest=False)
        with self.begin(cluster, self.folder(one="text")) as process:
            wait_until(lambda: len(cluster.consume("documents")) == 1, 30, "the document")
            process.send_signal(signal.SIGSTOP)
            cluster.redis("CLIENT", "PAUSE", "3000")
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(out, "")

    def test_what_a_run_waits_for_is_told(self):
        cluster = self.cluster(stages=(), ingest=False)
        done = cluster.sluice("ingest", self.folder(one="text"), "--timeout", "3s", check=False)
        self.assertEqual(done.returncode, 1)
        run = self.run_id(done.stderr)
        self.assertIn("1 of 1 documents are not taken up", done.stderr)
        shown = cluster.sluice("ingest", "status", run).stdout
        self.assertRegex(shown, r"(?m)^state +running, ")
        self.assertRegex(shown, r"(?m)^waits for +1 of 1 documents are not taken up$")
        table = cluster.sluice("ingest", "status").stdout.splitlines()
        self.assertRegex(table[1], rf"^{run} +running +0 +0 +0 +1 +0 +\d+s +default ")
        self.assertEqual(cluster.sluice("ingest", "status", "none", check=False).returncode, 1)
        cluster.start("embed")
        cluster.start("ingest")
        watched = cluster.sluice("ingest", "status", run, "--watch", "--json")
        self.assertEqual(json.loads(watched.stdout)["processed"], 1)

    def test_little_is_ahead_of_the_account(self):
        cluster = self.cluster(stages=(), ingest=False)
        done = cluster.sluice("ingest", self.files(1100), "--timeout", "3s", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("1000 of 1000 documents are not stored", done.stderr)
        self.assertEqual(len(cluster.consume("documents")), 1000)
        run = json.loads(cluster.sluice("ingest", "status", "--json").stdout)
        self.assertEqual((run["state"], run["documents"]), ("running", 1000))

    def test_a_lost_account_is_told(self):
        cluster = self.cluster(stages=(), ingest=False)
        with self.begin(cluster, self.folder(one="text")) as process:
            wait_until(lambda: len(cluster.consume("documents")) == 1, 30, "the document")
            cluster.redis("DEL", *cluster.redis("KEYS", f"{cluster.prefix}:ingest:run*").split())
            out, errors = process.communicate(timeout=30)
        self.assertEqual((process.returncode, json.loads(out)), (1, counts()))
        self.assertIn("Redis has lost the account of this run", errors)

    def test_progress_on_a_terminal(self):
        cluster = self.cluster()
        cluster.upstream.behave(embed={"latency_ms": 100})
        master, slave = pty.openpty()
        environment = {**cluster.environment(), "TERM": "xterm"}
        with self.begin(cluster, self.files(30), stderr=slave, env=environment) as process:
            os.close(slave)
            shown = b""
            while select.select([master], [], [], 60)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:  # The other end is closed.
                    break
            process.wait(30)
            os.close(master)
        self.assertEqual(process.returncode, 0, shown)
        self.assertRegex(shown.decode(), r"\r\[#*-+\] \d+/30 documents")
        self.assertRegex(shown.decode(), r"\[#+\] 30/30 documents  \d+ chunks")
        self.assertTrue(shown.endswith(b"\n"))


if __name__ == "__main__":
    unittest.main()
