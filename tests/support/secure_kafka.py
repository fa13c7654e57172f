"""A Kafka of one broker with every kind of listener, and the certificates that go with it.

    with SecureKafka() as kafka:
        kafka.environment("sasl_ssl", "SCRAM-SHA-256")   # what a program needs to connect

The listeners: `plaintext`, `ssl` (asks for a client's certificate), `sasl_ssl` and `sasl_plaintext`
(PLAIN, SCRAM-SHA-256, SCRAM-SHA-512). All is in one temporary directory; the certificates are made
by openssl, valid for 127.0.0.1 alone."""

import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The first librdkafka whose SCRAM Kafka 4 takes.
SCRAM_WORKS = ctypes.CDLL("librdkafka.so.1").rd_kafka_version() >= 0x020601FF
LISTENERS = ("plaintext", "ssl", "sasl_ssl", "sasl_plaintext")
USER = "sluice-user"
START_SECONDS = 60


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


class Authority:
    """A certificate authority in a directory; its certificate is `ca_file`."""

    def __init__(self, directory, name):
        self._base = os.path.join(directory, name)
        self.ca_file = self._base + "-ca.pem"
        self._ca_key = self._base + "-ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", "2", "-subj", f"/CN={name} authority", "-keyout", self._ca_key,
                "-out", self.ca_file)

    def issue(self, name, subject="IP:127.0.0.1"):
        """The files of a certificate and of its key."""
        key, request, certificate, extensions = (
            f"{self._base}-{name}.{end}" for end in ("key", "csr", "pem", "ext"))
        with open(extensions, "w", encoding="ascii") as f:
            f.write(f"subjectAltName={subject}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._ca_key,
                "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate)
        return certificate, key


class SecureKafka:
    def __init__(self, password):
        self.password = password
        self._users = {USER: password}
        self.directory = tempfile.mkdtemp(prefix="sluice-secure-kafka-")
        self.authority = Authority(self.directory, "ours")
        self.client = self.authority.issue("client")
        *ports, self._controller = free_ports(len(LISTENERS) + 1)
        self.ports = dict(zip(LISTENERS, ports))
        self._process = None

    def environment(self, listener, mechanism="none", **more):
        """SLUICE_KAFKA_*, all that this listener asks for."""
        values = {"SLUICE_KAFKA_BROKERS": f"127.0.0.1:{self.ports[listener]}",
                  "SLUICE_KAFKA_SECURITY": listener}
        if listener in ("ssl", "sasl_ssl"):
            values["SLUICE_KAFKA_CA_FILE"] = self.authority.ca_file
        if listener == "ssl":
            values["SLUICE_KAFKA_CERT_FILE"], values["SLUICE_KAFKA_KEY_FILE"] = self.client
        if listener.startswith("sasl"):
            values.update(SLUICE_KAFKA_SASL_MECHANISM=mechanism, SLUICE_KAFKA_USERNAME=USER,
                          SLUICE_KAFKA_PASSWORD=self.password)
        return {**values, **more}

    def _settings(self):
        certificate, key = self.authority.issue("broker")
        store = os.path.join(self.directory, "broker-store.pem")
        with open(store, "w", encoding="ascii") as out:
            for path in (key, certificate):
                with open(path, encoding="ascii") as f:
                    out.write(f.read())
        listeners = [f"{name.upper()}://127.0.0.1:{port}" for name, port in self.ports.items()]
        settings = {
            "process.roles": "broker,controller", "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT," + ",".join(
                f"{name.upper()}:{name.upper()}" for name in LISTENERS),
            "listeners": ",".join(listeners + [f"CONTROLLER://127.0.0.1:{self._controller}"]),
            "advertised.listeners": ",".join(listeners),
            "log.dirs": os.path.join(self.directory, "data"),
            "auto.create.topics.enable": "false",
            "num.network.threads": 1, "num.io.threads": 2,
            "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 8 << 20,
            "ssl.keystore.type": "PEM", "ssl.keystore.location": store,
            "ssl.truststore.type": "PEM", "ssl.truststore.location": self.authority.ca_file,
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        }
        users = "".join(f' user_{name}="{word}"' for name, word in self._users.items())
        module = "org.apache.kafka.common.security"
        for listener in ("sasl_ssl", "sasl_plaintext"):
            settings[f"listener.name.{listener}.plain.sasl.jaas.config"] = (
                f"{module}.plain.PlainLoginModule required{users};")
            for name in ("scram-sha-256", "scram-sha-512"):
                settings[f"listener.name.{listener}.{name}.sasl.jaas.config"] = (
                    f"{module}.scram.ScramLoginModule required;")
        return settings

    def _java(self, *arguments):
        libs = os.path.join(ROOT, ".local", "kafka", "libs", "*")
        return ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
                libs, *arguments]

    def _write_config(self):
        config = os.path.join(self.directory, "server.properties")
        with open(config, "w", encoding="ascii") as f:
            f.writelines(f"{name}={value}\n" for name, value in self._settings().items())
        return config

    def __enter__(self):
        config = self._write_config()
        scram = [word for name in ("SCRAM-SHA-256", "SCRAM-SHA-512")
                 for word in ("-S", f"{name}=[name={USER},password={self.password}]")]
        try:
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "-t", "c2x1aWNlLXN0YWNrLTAwMA", "-c",
                           config, *scram), capture_output=True, text=True, timeout=60, check=False)
            if done.returncode != 0:
                raise AssertionError(f"Kafka's storage cannot be prepared:\n{done.stdout}{done.stderr}")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        config = os.path.join(self.directory, "server.properties")
        with open(os.path.join(self.directory, "server.log"), "ab") as log:
            self._process = subprocess.Popen(self._java("kafka.Kafka", config), stdout=log, stderr=log,
                                             cwd=self.directory)
        end = time.monotonic() + START_SECONDS
        for port in self.ports.values():
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if self._process.poll() is not None or time.monotonic() > end:
                        raise AssertionError("Kafka did not start:\n" + self.log()) from None
                    time.sleep(0.05)

    def add_user(self, name, password):
        """To those that PLAIN knows; the broker starts anew."""
        self._users[name] = password
        self._stop()
        self._write_config()
        self.start()

    def _stop(self):
        self._process.kill()
        self._process.wait()

    def log(self):
        with open(os.path.join(self.directory, "server.log"), encoding="utf-8") as f:
            return f.read()[-4000:]

    def __exit__(self, *_):
        if self._process is not None:
            self._stop()
        shutil.rmtree(self.directory, ignore_errors=True)
