"""What the stack consists of: for each process its command, environment, log and probe.

A component has one or more instances; only workers can have more than one. The instance of a server
is named like its component, those of a worker are numbered (embed-1, embed-2). To add a worker, add
a line to WORKERS.
"""

import os
import re
from dataclasses import dataclass, field

from . import ports, probes
from .errors import StackError

# Offsets of admin ports from their base, by worker. The gateway comes last so that it starts to
# accept questions when those who answer them are there.
WORKERS = {
    "embed": 1,
    "retrieve": 2,
    "rerank": 3,
    "generate": 4,
    "ingest": 5,
    "observe": 6,
    "gateway": 0,
}
SERVERS = ("kafka", "redis", "opensearch", "model-chat", "model-embed", "model-rerank")
COMPONENTS = SERVERS + tuple(WORKERS)
GROUPS = {
    "models": ("model-chat", "model-embed", "model-rerank"),
    "workers": tuple(WORKERS),
}
MAX_INSTANCES = 32

CHAT_MODEL = "smollm2-135m-instruct"
EMBED_MODEL = "all-minilm-l6-v2"
RERANK_MODEL = "minilm-l6-late-interaction"
EMBED_FILE = "all-MiniLM-L6-v2.f16.gguf"

# More requests at a time do not get a small machine's processors to finish any of them sooner.
CHAT_SLOTS = 2
CHAT_CONTEXT = 8192

# Where chunks are: a file, or an index of the stack's Redis.
STORES = ("sqlite", "redis", "opensearch")
STORE_VARIABLE = "SLUICE_STACK_STORE"
STORE_INDEX = "chunks"

# Calls in flight at most, by upstream. These servers queue what is beyond what they work on, and a
# call that waits in a queue of many ends by its time-out; here calls wait for a permit instead.
LIMITS = {
    "SLUICE_CHAT_LIMIT": CHAT_SLOTS,
    "SLUICE_EMBED_LIMIT": 4,
    "SLUICE_EMBED_QUERY_LIMIT": 4,
    "SLUICE_EMBED_RESERVE": 2,
    "SLUICE_RERANK_LIMIT": 2,
    # And a batch of chunks takes them long where other programs want the processors too.
    "SLUICE_EMBED_FIRST_BYTE_TIMEOUT": "60s",
    # A chat model on the processor may take long to its first token, and between two of them.
    "SLUICE_CHAT_FIRST_BYTE_TIMEOUT": "60s",
    "SLUICE_CHAT_IDLE_TIMEOUT": "60s",
    "SLUICE_CHAT_TIMEOUT": "60s",
}

# Seconds until a stopping process is killed. A worker's own limit, SLUICE_DRAIN_TIMEOUT, comes
# first: the time of a whole query where tokens are streamed, 10 s elsewhere.
STOP_SERVER = 30
STOP_WORKER = {"gateway": 75, "generate": 75}
STOP_OTHER_WORKER = 20
STOP_MARGIN = 10

# Seconds until a process that is not ready counts as failed.
START_SERVER = 120
START_WORKER = 60


@dataclass(frozen=True)
class Process:
    """One process under supervisor."""

    name: str
    component: str
    command: tuple
    environment: dict = field(default_factory=dict)
    stop_seconds: int = STOP_SERVER
    start_seconds: int = START_SERVER
    admin_port: int = None
    probe: object = None

    @property
    def program(self):
        """The file that is run, to see whether it was built anew."""
        return self.command[0]


def defaults(layout):
    """What `up` starts when nothing is named: a server of a store only where chunks are in it."""
    unused = {"opensearch"} - {store_kind(layout)}
    return [component for component in COMPONENTS if component not in unused]


def expand(names):
    """Components for the words of --only and the like: components, or groups of them."""
    wanted = set()
    for name in names:
        if name not in COMPONENTS and name not in GROUPS:
            words = ", ".join(COMPONENTS + tuple(GROUPS))
            raise StackError(f"there is no {name!r} in the stack; there are: {words}", 2)
        wanted.update(GROUPS.get(name, (name,)))
    return [component for component in COMPONENTS if component in wanted]


def instance_names(component, count):
    if component in SERVERS:
        return [component]
    return [f"{component}-{nth}" for nth in range(1, count + 1)]


def processors():
    return len(os.sched_getaffinity(0))


# ---- the servers ------------------------------------------------------------------------------


# With -XX:TieredStopAtLevel=1 a broker starts sooner, and then takes half as much again for a record.
JAVA_OPTIONS = "-Xms64m -Xmx320m -XX:+UseSerialGC"
JAVA_VARIABLE = "SLUICE_STACK_KAFKA_OPTIONS"


def java(layout, *arguments):
    options = (layout.environ.get(JAVA_VARIABLE) or JAVA_OPTIONS).split()
    logging = tuple(
        f"-Dorg.slf4j.simpleLogger.{setting}"
        for setting in (
            "showDateTime=true",
            "dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "showThreadName=false",
            "showShortLogName=true",
            "defaultLogLevel=warn",
            "log.kafka=info",
        )
    )
    return ("java", *options, *logging, "-cp", str(layout.local / "kafka/libs/*"), *arguments)


def kafka_format(layout):
    """The command that prepares Kafka's empty data directory; `None` if it is prepared."""
    if (layout.data / "kafka/meta.properties").exists():
        return None
    config = str(layout.config / "kafka.properties")
    # The id of the cluster: any UUID will do, and one that is always the same is one secret fewer.
    identity = "c2x1aWNlLXN0YWNrLTAwMA"
    return java(layout, "kafka.tools.StorageTool", "format", "-t", identity, "-c", config)


def write_kafka_config(layout, chosen):
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{ports.LOOPBACK}:{chosen['controller']}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "listeners": f"PLAINTEXT://{ports.LOOPBACK}:{chosen['kafka']},"
        f"CONTROLLER://{ports.LOOPBACK}:{chosen['controller']}",
        "advertised.listeners": f"PLAINTEXT://{ports.LOOPBACK}:{chosen['kafka']}",
        "log.dirs": layout.data / "kafka",
        "auto.create.topics.enable": "false",
        # Threads beyond the processors only wake each other.
        "num.network.threads": max(1, processors() // 2),
        "num.io.threads": max(2, processors()),
        # One broker holds the only copy.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # A consumer group is ready at once instead of waiting 3 s for more members.
        "group.initial.rebalance.delay.ms": 0,
        # Compaction's buffer: the default of 128 MB is a third of the heap.
        "log.cleaner.dedupe.buffer.size": 8 << 20,
    }
    lines = [f"{name}={value}\n" for name, value in settings.items()]
    (layout.config / "kafka.properties").write_text("".join(lines))
    kcat = f"metadata.broker.list={ports.LOOPBACK}:{chosen['kafka']}\n"
    (layout.config / "kcat.conf").write_text(kcat)


# The server that takes the module, and the module.
QUERY_ENGINE = ("query-engine/valkey-server", "query-engine/redisearch.so")


def store_kind(layout):
    kind = layout.environ.get(STORE_VARIABLE) or STORES[0]
    if kind not in STORES:
        raise StackError(f"{STORE_VARIABLE} is {kind!r}: it must be one of {', '.join(STORES)}", 2)
    return kind


def write_redis_config(layout, chosen):
    # The one server cannot read what the other has written.
    directory = layout.data / ("redis-query-engine" if store_kind(layout) == "redis" else "redis")
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "bind": ports.LOOPBACK,
        "port": chosen["redis"],
        "dir": f'"{directory}"',
        # Claims and permits must never be evicted, and must outlive a restart.
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        # No snapshots besides: Redis refuses to end when it cannot write one.
        "save": '""',
        "daemonize": "no",
        # A title would be written over the environment, and with it over the stack's mark.
        "set-proc-title": "no",
    }
    if store_kind(layout) == "redis":
        settings["loadmodule"] = layout.local / QUERY_ENGINE[1]
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    (layout.config / "redis.conf").write_text("".join(lines))


def server_process(layout, chosen, component):
    python = str(layout.local / "venv/bin/python")
    models = layout.root / "deploy/models"
    threads = ("--threads", str(processors()))

    def llama(role, port, *options):
        command = (python, str(models / "serve_llama.py"), role, "--port", str(port))
        return (*command, *threads, *options)

    if component == "kafka":
        command = java(layout, "kafka.Kafka", str(layout.config / "kafka.properties"))
        probe = lambda: probes.kafka(chosen["kafka"])
    elif component == "redis":
        server = "redis-server"
        if store_kind(layout) == "redis":
            server = str(layout.local / QUERY_ENGINE[0])
        command = (server, str(layout.config / "redis.conf"))
        probe = lambda: probes.redis(chosen["redis"])
    elif component == "opensearch":
        serve = str(layout.root / "deploy/opensearch/serve")
        addresses = (str(chosen["opensearch"]), str(chosen["opensearch-transport"]))
        command = (serve, str(layout.data / "opensearch"), *addresses)
        probe = lambda: probes.opensearch(chosen["opensearch"])
    elif component == "model-chat":
        size = ("--parallel", str(CHAT_SLOTS), "--ctx", str(CHAT_CONTEXT))
        command = llama("chat", chosen["chat"], *size)
        probe = lambda: probes.model(chosen["chat"])
    elif component == "model-embed":
        model = str(layout.local / "models" / EMBED_FILE)
        command = llama("embed", chosen["embed"], "--model", model)
        probe = lambda: probes.model(chosen["embed"])
    else:
        script = str(models / "serve_rerank.py")
        command = (python, script, "--port", str(chosen["rerank"]), *threads)
        probe = lambda: probes.model(chosen["rerank"])
    return Process(component, component, command, probe=probe)


# ---- the workers ------------------------------------------------------------------------------


def exports(layout, chosen):
    """What a shell needs to talk to the stack: the programs' variables, and kcat's."""
    variables = connections(layout, chosen)
    if "gateway" in chosen:
        host = ports.listen_address(layout.environ)[0]
        host = ports.LOOPBACK if host in ("0.0.0.0", "[::]") else host
        variables["SLUICE_URL"] = f"http://{host}:{chosen['gateway']}"
    if chosen["admin"]:
        names = sorted(chosen["admin"], key=by_admin_port)
        addresses = [f"{ports.LOOPBACK}:{chosen['admin'][name]}" for name in names]
        variables["SLUICE_ADMIN_HOSTS"] = ",".join(addresses)
    if "kafka" in chosen:
        variables["KCAT_CONFIG"] = str(layout.config / "kcat.conf")
    return variables


def connections(layout, chosen):
    """The variables with which a program reaches this stack's parts, as far as they have ports."""
    variables = {}

    def add(port_name, **values):
        if port_name in chosen:
            address = f"{ports.LOOPBACK}:{chosen[port_name]}"
            for name, value in values.items():
                variables[name] = value.format(address)

    add("kafka", SLUICE_KAFKA_BROKERS="{}")
    add("redis", SLUICE_REDIS_URL="redis://{}")
    add("embed", SLUICE_EMBED_URL="http://{}/v1", SLUICE_EMBED_MODEL=EMBED_MODEL)
    add("rerank", SLUICE_RERANK_URL="http://{}/v1", SLUICE_RERANK_MODEL=RERANK_MODEL)
    add("chat", SLUICE_CHAT_URL="http://{}/v1", SLUICE_CHAT_MODEL=CHAT_MODEL)
    store = f"sqlite://{layout.data / 'sluice.db'}"
    if store_kind(layout) == "redis" and "redis" in chosen:
        store = f"redis://{ports.LOOPBACK}:{chosen['redis']}/{STORE_INDEX}"
    if store_kind(layout) == "opensearch" and "opensearch" in chosen:
        store = f"opensearch+http://{ports.LOOPBACK}:{chosen['opensearch']}/{STORE_INDEX}"
    variables["SLUICE_VECTOR_URL"] = variables["SLUICE_KEYWORD_URL"] = store
    variables["SLUICE_SQLITE_VEC"] = str(layout.local / "lib/vec0.so")
    return variables


def worker_process(layout, chosen, passed_on, component, name):
    """`passed_on` holds the variables that the user set: they win."""
    admin = chosen["admin"][name]
    environment = connections(layout, chosen)
    environment.update({name: str(limit) for name, limit in LIMITS.items()})
    environment.update(passed_on)
    environment["SLUICE_ADMIN_LISTEN"] = f"{ports.LOOPBACK}:{admin}"
    if component == "gateway":
        host, _ = ports.listen_address(layout.environ)
        environment["SLUICE_LISTEN"] = f"{host}:{chosen[gateway_port_name(name)]}"
    return Process(
        name,
        component,
        (str(layout.bin / f"sluice-{component}"),),
        environment,
        stop_seconds=stop_seconds(component, environment.get("SLUICE_DRAIN_TIMEOUT", "")),
        start_seconds=START_WORKER,
        admin_port=admin,
        probe=lambda: probes.worker(admin),
    )


def by_admin_port(name):
    """A key that sorts instances as their default admin ports are: gateway-1, gateway-2, embed-1."""
    component, _, number = name.rpartition("-")
    return WORKERS[component], int(number)


def gateway_port_name(name):
    """The name in ports.json of a gateway's public port."""
    return "gateway" if name == "gateway-1" else name


def stop_seconds(component, drain_timeout):
    """Longer than the worker's own drain time-out, given as the programs read a duration."""
    match = re.fullmatch(r"([0-9.]+)(ms|s|m|h|)", drain_timeout)
    if match is None:
        return STOP_WORKER.get(component, STOP_OTHER_WORKER)
    unit = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "": 1}[match[2]]
    return int(float(match[1]) * unit) + STOP_MARGIN
