"""A Prometheus of one test, which scrapes and evaluates twice a second, with its data in a directory
that goes with it."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.path.join(os.environ.get("SLUICE_LOCAL", os.path.join(ROOT, ".local")), "prometheus")
SECONDS = 30


def promtool(*arguments):
    """Exit code and all output."""
    done = subprocess.run([os.path.join(PROGRAMS, "promtool"), *arguments], capture_output=True,
                          text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """`with Prometheus({"gateway": ["127.0.0.1:9100"]}, rules) as p:` ... p.query("up"). Each name is
    the label `job` of the series of its addresses."""

    def __init__(self, targets, rules):
        if not os.path.exists(os.path.join(PROGRAMS, "prometheus")):
            raise AssertionError("there is no Prometheus: deploy/setup --tests installs it")
        self.directory = tempfile.mkdtemp(prefix="sluice-prometheus-")
        self._config = os.path.join(self.directory, "prometheus.json")
        with open(self._config, "w", encoding="utf-8") as file:  # JSON is YAML, too.
            json.dump({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms",
                                  "evaluation_interval": "500ms"},
                       "rule_files": [rules],
                       "scrape_configs": [{"job_name": job, "static_configs": [{"targets": addresses}]}
                                          for job, addresses in targets.items()]}, file)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{s.getsockname()[1]}"
        self._process = None

    def __enter__(self):
        log = os.path.join(self.directory, "log")
        with open(log, "w", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [os.path.join(PROGRAMS, "prometheus"), f"--config.file={self._config}",
                 f"--storage.tsdb.path={self.directory}/data", f"--web.listen-address={self._address}"],
                stdout=file, stderr=file)
        end = time.monotonic() + SECONDS
        while not self._is_ready():
            if time.monotonic() > end or self._process.poll() is not None:
                with open(log, encoding="utf-8") as file:
                    text = file.read()
                self.__exit__()
                raise AssertionError(f"Prometheus did not start:\n{text[-4000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _get(self, path, **parameters):
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression):
        """[(labels, value)] of the series that have a number now."""
        series = self._get("query", query=expression)["result"]
        values = [(one["metric"], float(one["value"][1])) for one in series]
        return [(labels, value) for labels, value in values if not math.isnan(value)]

    def rules(self):
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]
