"""What has to be there before anything can be measured: installed packages, programs, Python's
packages for the comparisons. Each step looks first whether there is anything to do."""

import os
import subprocess
import sys
import time

from measure import BenchError, Progress

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOCAL = os.environ.get("SLUICE_LOCAL") or os.path.join(ROOT, ".local")
OUT = os.path.join(ROOT, "build", "bench")
VENV = os.path.join(LOCAL, "bench-venv")
COMPARE = os.path.join(ROOT, "tests", "bench", "compare")
LAST_LINES = 15


def step(title, name, *commands):
    """Runs commands with their output in build/bench/NAME.log; its last lines where one fails."""
    os.makedirs(OUT, exist_ok=True)
    path = os.path.join(OUT, name + ".log")
    began = time.monotonic()
    with Progress(title) as progress, open(path, "w+", encoding="utf-8", errors="replace") as log:
        for command in commands:
            code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  check=False).returncode
            if code != 0:
                log.seek(0)
                sys.stderr.writelines(log.readlines()[-LAST_LINES:])
                raise BenchError(f"{' '.join(command)}: {code}; the log: {os.path.relpath(path, ROOT)}")
        progress.done(f"{time.monotonic() - began:.1f} s")


def build():
    step("install what is missing", "setup", ["deploy/setup"])
    step("build", "build", ["cmake", "--preset", "release"], ["cmake", "--build", "--preset", "release"],
         ["cmake", "--build", "--preset", "release", "--target", "bench"])


def comparisons():
    """The virtual environment of the Python systems."""
    step("install the comparisons' packages", "venv", [os.path.join(COMPARE, "setup")])
