"""`sluice ask` on a whole Sluice: it outlives its gateway, and ctrl-C cancels."""

import os
import signal
import subprocess
import unittest

from cluster import BIN, Cluster, wait_until  # First: it sets the path of what follows.
from answers import expected_tokens

TOKENS = 120


class Ask(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None, None, None)

    def setUp(self):
        self.cluster.upstream.reset()
        self.cluster.upstream.behave(chat={"token_interval_ms": 40, "tokens": TOKENS})

    def ask(self, question):
        return subprocess.Popen([os.path.join(BIN, "sluice"), "ask", question],
                                env=self.cluster.environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=False)

    def test_the_answer_goes_on_when_its_gateway_is_killed_and_started_again(self):
        question = "Question 1: who survives?"
        with self.ask(question) as process:
            begin = b""
            while len(begin) < 100:
                begin += process.stdout.read1(100)
            self.cluster.kill(self.cluster.of("gateway")[0])
            self.cluster.start("gateway")
            rest, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, err), (0, b""))
        text = (begin + rest).decode().partition("\n\nsources\n")[0]
        self.assertEqual(text, "".join(expected_tokens(question, TOKENS)).rstrip("\n"))
        self.assertEqual(self.cluster.upstream.stats()["chat"]["calls"], 1)

    def test_ctrl_c_cancels_the_query(self):
        with self.ask("Question 2: who stops?") as process:
            process.stdout.read1(100)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 130)
        wait_until(lambda: self.cluster.upstream.stats()["chat"]["aborted"] == 1, 5,
                   "the model's call closed")


if __name__ == "__main__":
    unittest.main()
