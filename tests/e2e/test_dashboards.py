"""Every panel's and every alert's query has an answer in a real Prometheus that scrapes a cluster at
work, and alerts see what they are for. Grafana itself is not needed for that: a panel shows what
its queries give."""

import glob
import json
import os
import re
import shutil
import threading
import unittest

from cluster import ROOT, Cluster, wait_until  # First: it sets the path of what follows.
from prometheus import Prometheus, promtool
from test_ingest import Store

RULES = os.path.join(ROOT, "deploy", "prometheus", "alerts.yml")
CONFIG = os.path.join(ROOT, "deploy", "prometheus", "prometheus.yml")
GRAFANA = os.path.join(ROOT, "deploy", "grafana")
PAGE = "docs/OPERATIONS.md"
SECONDS = 40
# Windows of the test's questions: a panel's depends on the screen.
WINDOW = "30s"


def dashboards():
    for path in sorted(glob.glob(os.path.join(GRAFANA, "dashboards", "*.json"))):
        with open(path, encoding="utf-8") as file:
            yield os.path.basename(path), json.load(file)


def panel_queries():
    """{where it is: expression}"""
    return {f"{name}, panel \"{panel['title']}\", {target['refId']}":
            target["expr"].replace("$__rate_interval", WINDOW)
            for name, board in dashboards() for panel in board["panels"]
            for target in panel["targets"]}


def measured(expression):
    """An alert's expression with comparisons that give 0 or 1 in place of nothing or a series."""
    compared = re.sub(r"(==|!=|>=|<=|>|<)(?= [0-9.])", r"\1 bool", expression)
    return compared.replace("absent(", "count(")


class Files(unittest.TestCase):
    def test_promtool_accepts_configuration_and_rules(self):
        self.assertEqual(promtool("check", "config", CONFIG)[0], 0, promtool("check", "config", CONFIG))
        self.assertEqual(promtool("check", "rules", RULES)[0], 0)

    def test_dashboards_show_what_the_provisioned_source_has(self):
        with open(os.path.join(GRAFANA, "provisioning", "datasources", "prometheus.yml"),
                  encoding="utf-8") as file:
            uid = re.search(r"^ +uid: (\S+)$", file.read(), re.MULTILINE)[1]
        uids = [board["uid"] for _, board in dashboards()]
        self.assertEqual(len(uids), len(set(uids)))
        for name, board in dashboards():
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), name)
            for panel in board["panels"]:
                self.assertEqual(panel["datasource"], {"type": "prometheus", "uid": uid}, panel["title"])


class Scraped(unittest.TestCase):
    """One cluster for all: questions, documents, a chat model and a database that fail."""

    @classmethod
    def setUpClass(cls):
        store = Store()
        cls.addClassCleanup(shutil.rmtree, store.directory)
        cls.cluster = Cluster(ingest=True, **store.environment)
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)
        observe = cls.cluster.start("observe", wait=False,  # It is never ready.
                                    SLUICE_ANALYTICS_URL="postgresql://nobody:nothing@127.0.0.1:1/none")
        cls.addClassCleanup(cls.cluster.kill, observe)  # It would wait for its database.
        wait_until(observe.admin, SECONDS, "observe's admin port")
        targets = {worker.name: [worker.admin().removeprefix("http://")] for worker in cls.cluster.workers}
        cls.prometheus = Prometheus(targets, RULES)
        cls.prometheus.__enter__()
        cls.addClassCleanup(cls.prometheus.__exit__)
        wait_until(lambda: len(cls.prometheus.query("up == 1")) == len(targets), SECONDS, "all targets")
        cls.cluster.upstream.behave(chat=[
            {"latency_ms": 1, "token_interval_ms": 1},
            {"match": "BROKEN", "error_status": 500},
            {"match": "LIMITED", "error_status": 429}])
        cls.cluster.produce("queries", b"\xc1 no query")
        cls.stop = threading.Event()
        cls.work = threading.Thread(target=cls.keep_busy)
        cls.work.start()
        cls.addClassCleanup(cls.rest)

    @classmethod
    def keep_busy(cls):
        """Until the tests are done: a rate needs two scrapes with something in between."""
        root = os.path.join(cls.cluster.directory, "documents")
        os.mkdir(root)
        number = 0
        while not cls.stop.is_set():
            number += 1
            for name in ("changes", "same"):
                with open(os.path.join(root, name + ".md"), "w", encoding="utf-8") as file:
                    file.write(f"Herons wait, {number if name == 'changes' else 0} of them.")
            cls.cluster.sluice("ingest", root, check=False)
            for word in ("well", "well", "BROKEN", "LIMITED"):
                cls.cluster.ask(f"How many herons wait, {word} {number}?", timeout_ms=5000)

    @classmethod
    def rest(cls):
        cls.stop.set()
        cls.work.join()

    def assert_all_have_data(self, queries):
        """Each comes to have a number."""
        waiting = dict(queries)

        def answered():
            for where, expression in list(waiting.items()):
                if self.prometheus.query(expression):
                    del waiting[where]
            return not waiting
        try:
            wait_until(answered, SECONDS, "an answer to each query")
        except AssertionError as error:
            self.fail(f"{error}: " + "\n".join(f"{where}: {text}" for where, text in waiting.items()))

    def alert(self, name):
        return next(rule["query"] for rule in self.prometheus.rules() if rule["name"] == name)

    def test_each_panel_has_data(self):
        queries = panel_queries()
        self.assertGreater(len(queries), 40)
        self.assert_all_have_data(queries)

    def test_each_alert_looks_at_what_there_is(self):
        rules = self.prometheus.rules()
        self.assertGreater(len(rules), 10)
        self.assert_all_have_data({rule["name"]: measured(rule["query"]) for rule in rules})

    def test_each_alert_says_what_it_is_and_where_help_is(self):
        with open(os.path.join(ROOT, PAGE), encoding="utf-8") as file:
            headings = {line.strip("# \n") for line in file if line.startswith("#")}
        for rule in self.prometheus.rules():
            with self.subTest(alert=rule["name"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertTrue(rule["annotations"]["summary"])
                self.assertEqual(rule["annotations"]["runbook"], f"{PAGE}#{rule['name'].lower()}")
                self.assertIn(rule["name"], headings)

    def test_alerts_see_failures(self):
        def sees(name, **labels):
            wait_until(lambda: any(labels.items() <= found.items()
                                   for found, _ in self.prometheus.query(self.alert(name))),
                       SECONDS, f"{name} with {labels}")
        sees("SluiceUpstreamFails", upstream="CHAT")
        sees("SluiceUpstreamRateLimits", upstream="CHAT")
        sees("SluiceQuestionsFail")
        sees("SluiceDeadLetters", topic=self.cluster.topic("queries"))
        sees("SluiceAnalyticsFails")
        sees("SluiceNoneReady", job="observe")
        self.assertEqual(len(self.prometheus.query(self.alert("SluiceNoneReady"))), 1)
        for name in ("SluiceProgramGone", "SluiceRedisUnreachable", "SluiceKafkaUnreachable"):
            self.assertEqual(self.prometheus.query(self.alert(name)), [], name)

    def test_one_program_that_is_gone_is_named(self):
        spare = self.cluster.start("rerank")
        with Prometheus({"rerank": [spare.admin().removeprefix("http://")]}, RULES) as prometheus:
            gone = next(r["query"] for r in prometheus.rules() if r["name"] == "SluiceProgramGone")
            wait_until(lambda: prometheus.query('up{job="rerank"} == 1'), SECONDS, "the worker")
            spare.stop()
            wait_until(lambda: ({"job": "rerank"}, 0.0) in prometheus.query(gone), SECONDS, "the alert")


if __name__ == "__main__":
    unittest.main()
