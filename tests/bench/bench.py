"""What every subject of the benchmark is given: the options, the stub, the servers, and how a system
is started and measured."""

import contextlib

import measure
from measure import Load, Progress, ms, say
from systems import SYSTEMS, Servers, Sluice, Stub

WARM_RATE, WARM_SECONDS = 150, 6


class Bench:
    """A context manager; `stub` runs while it is open, `servers` from when they are first needed."""

    def __init__(self, options):
        self.options = options
        self.stub = Stub()
        self.servers = Servers(warm_seconds=4 if options.quick else 12)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.enter_context(self.servers)
        try:
            self._stack.enter_context(self.stub)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error):
        self._stack.close()

    def wanted(self, *names):
        """Those of the named systems that --only leaves; the floor is both its halves."""
        only = self.options.only
        floors = ("calls", "hops")
        return [name for name in names if name in only or name in floors and "floor" in only]

    @contextlib.contextmanager
    def system(self, name, warm=True, **settings):
        """A started system that has answered for some seconds: connections are open, Java and
        Python have seen the code."""
        with contextlib.ExitStack() as stack:
            with Progress(f"start {SYSTEMS[name].label}") as progress:
                made = (self.sluice(**settings) if name == "sluice" else
                        SYSTEMS[name](self.stub, self.servers))
                system = stack.enter_context(made)
                progress.done(" ".join(f"{n} {pid}" for n, pid in system.processes().items()))
            if warm:
                self.stub.behave(tokens=16, free=True)
                seconds = 2 if self.options.quick else WARM_SECONDS
                measure.run(system, self.servers, self.stub, Load(
                    rate=WARM_RATE, tokens=16, seconds=seconds, warmup=0, timeout_ms=10000))
            yield system

    def sluice(self, **settings):
        return Sluice(self.stub, self.servers, **{**settings, **self.options.set})

    def run(self, system, load, label):
        """A run and its line of progress."""
        with Progress(f"{system.name:9} {label}") as progress:
            result = measure.run(system, self.servers, self.stub, load)
            progress.done(summary(result))
        return result


def summary(result):
    over, cpu = result["overhead_ms"], result["cpu_ms"]
    failed = result["failed"]
    kinds = ", ".join(f"{n} {kind}" for kind, n in result["failures"].items() if n)
    return (f"{result['answered']:6} answered, {failed} failed{f' ({kinds})' if kinds else ''}; "
            f"above ideal p50 {ms(over['p50'])} p99 {ms(over['p99'])} ms; "
            f"CPU {cpu['own']:.2f} own, {cpu['all']:.2f} ms in all")


def heading(text):
    say(f"\n{text}")
