"""A network namespace for one worker, whose way to the servers can be cut or made lossy.

    worker -- its namespace's eth0 ==veth== this side's sl<pid> -- the servers on 127.0.0.1

The worker keeps the servers' addresses: connections to 127.0.0.1 leave its namespace by a DNAT to
this side's end of the pair, and a second one brings them to the servers, to which they seem to come
from here (Redis refuses others). Packets are dropped where
they arrive, as by a network: no sender is told.

Nothing outlives the row, however it ends. The namespace lives as long as its holder, which ends
with its standard input; the pair goes with the namespace; the rules on this side belong to an nft
that holds its table as owner and ends likewise. Both are out of reach of a terminal's ctrl-C, so
that the worker can still drain.
"""

import os
import shutil
import subprocess

from cluster import wait_until
from trial import Missing

INSIDE = """
add table inet sluice
add set inet sluice cut {{ type inet_service; }}
add chain inet sluice in {{ type filter hook input priority 0; }}
add rule inet sluice in iifname eth0 tcp sport @cut counter drop
add table ip sluice_nat
add chain ip sluice_nat out {{ type nat hook output priority -100; }}
add rule ip sluice_nat out ip daddr 127.0.0.1 tcp dport {{ {ports} }} dnat to {here}
add chain ip sluice_nat post {{ type nat hook postrouting priority 100; }}
add rule ip sluice_nat post oifname eth0 masquerade
"""
HERE = """
add table ip {name} {{ flags owner; }}
add set ip {name} cut {{ type inet_service; }}
add chain ip {name} first {{ type filter hook prerouting priority -310; }}
add rule ip {name} first iifname {name} tcp dport @cut counter drop
add chain ip {name} nat {{ type nat hook prerouting priority -100; }}
add rule ip {name} nat iifname {name} tcp dport {{ {ports} }} dnat to 127.0.0.1
add chain ip {name} from {{ type nat hook input priority 100; }}
add rule ip {name} from iifname {name} snat to 127.0.0.1
"""


def need(*programs):
    if os.geteuid() != 0:
        raise Missing("needs root")
    for program in programs:
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed: deploy/setup --tests installs it")


def _run(*command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=20,
                          check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


class Namespace:
    """`enter` goes before a command that is to run inside; `inner` is its address from here."""

    def __init__(self, *ports):
        need("ip", "nft", "unshare", "nsenter")
        self._ports = ", ".join(str(port) for port in ports)

    def __enter__(self):
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read _"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        start_new_session=True)
        self._holder.stdout.readline()
        pid = self._holder.pid
        self.name = f"sl{pid}"
        self.enter = ("nsenter", f"--net=/proc/{pid}/ns/net")
        block = pid % (1 << 14)
        net = f"10.213.{block >> 6}.{(block & 63) << 2}".rsplit(".", 1)
        self._here = f"{net[0]}.{int(net[1]) + 1}"
        self.inner = f"{net[0]}.{int(net[1]) + 2}"
        try:
            self._connect(pid)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self, pid):
        _run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns",
             str(pid))
        _run("ip", "addr", "add", f"{self._here}/30", "dev", self.name)
        _run("ip", "link", "set", self.name, "up")
        self._write(f"{self.name}/route_localnet")
        for words in ("link set lo up", f"addr add {self.inner}/30 dev eth0", "link set eth0 up"):
            _run(*self.enter, "ip", *words.split())
        _run(*self.enter, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet")
        _run(*self.enter, "nft", "-f", "-", text=INSIDE.format(ports=self._ports, here=self._here))
        self._nft = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     start_new_session=True)
        self._tell(HERE.format(name=self.name, ports=self._ports))
        wait_until(lambda: "snat to 127.0.0.1" in self._rules(), 10, "the rules on this side")

    @staticmethod
    def _write(path):
        with open(f"/proc/sys/net/ipv4/conf/{path}", "w", encoding="ascii") as f:
            f.write("1")

    def _tell(self, text):
        self._nft.stdin.write(text.strip() + "\n")
        self._nft.stdin.flush()

    def _rules(self):
        done = subprocess.run(["nft", "list", "table", "ip", self.name], capture_output=True,
                              text=True, timeout=20, check=False)
        return done.stdout

    def cut(self, port):
        """Nothing to or from this port arrives any more."""
        self._tell(f"add element ip {self.name} cut {{ {port} }}")
        _run(*self.enter, "nft", "add", "element", "inet", "sluice", "cut", f"{{ {port} }}")
        wait_until(lambda: f"elements = {{ {port} }}" in self._rules(), 10, "the cut")

    def mend(self, port):
        self._tell(f"delete element ip {self.name} cut {{ {port} }}")
        _run(*self.enter, "nft", "delete", "element", "inet", "sluice", "cut", f"{{ {port} }}")
        wait_until(lambda: "elements" not in self._rules(), 10, "the mend")

    def lose(self, percent):
        """Of all packets, both ways."""
        rule = f"numgen random mod 100 < {percent} counter drop"
        self._tell(f"add rule ip {self.name} first iifname {self.name} {rule}")
        _run(*self.enter, "nft", "add", "rule", "inet", "sluice", "in", "iifname", "eth0",
             *rule.split())
        wait_until(lambda: "numgen" in self._rules(), 10, "the loss")

    def dropped(self):
        """Packets so far, both ways."""
        inside = _run(*self.enter, "nft", "list", "table", "inet", "sluice")
        words = (inside + self._rules()).split()
        return sum(int(words[at + 1]) for at, word in enumerate(words) if word == "packets")

    def __exit__(self, *_error):
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        for process in (getattr(self, "_nft", None), self._holder):
            if process is not None:
                process.stdin.close()
                process.wait()
