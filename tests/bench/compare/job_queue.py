#!/usr/bin/env python3
"""The job-queue design: a gateway and a worker for each stage, over Kafka and Redis.

    job_queue.py gateway --brokers H:P --redis redis://H:P --prefix jq. [--port 0]
    job_queue.py worker embed|retrieve|rerank|generate --brokers H:P --redis redis://H:P
                 --prefix jq. --upstream URL [--limit 5000]

A question is a JSON record that each stage enriches and hands to the next stage's topic; events go
to the gateway on a reply topic, already as the bytes that its caller gets. Each stage works on many
jobs at a time and commits what is done. Limits of calls in flight, states and cancellations are in
Redis (permits.py).
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import time

import orjson
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError

import pipeline
import serving
from permits import Cancelled, Permits

STAGES = ("embed", "retrieve", "rerank", "generate")
REPLIES = "replies"
COMMIT_SECONDS = 1.0
JOBS_AT_A_TIME = 5000
FAILURES = (*pipeline.FAILURES, KafkaError, redis.RedisError)
log = logging.getLogger("job_queue")


# Kafka


async def create_topics(options):
    topics = {options.prefix + name: options.partitions for name in STAGES}
    topics[options.prefix + REPLIES] = 1
    admin = AIOKafkaAdminClient(bootstrap_servers=options.brokers)
    await admin.start()
    try:
        for name, partitions in topics.items():
            with contextlib.suppress(TopicAlreadyExistsError):
                await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


def new_producer(options):
    # linger 0: a batch is what gathers while the one before it is under way, up to what the broker
    # takes by default.
    return AIOKafkaProducer(bootstrap_servers=options.brokers, acks="all", linger_ms=0,
                            max_batch_size=1_000_000, max_request_size=1 << 22)


def new_consumer(options, *topics, **more):
    # Of several partitions one that was just read is only asked for again when the fetch of the
    # others, which are empty, has come back: with the default wait a record would lie until then.
    # A single one needs no short wait, which costs a fetch each few milliseconds also when idle.
    fetch_wait_ms = 500 if options.partitions == 1 else 5
    return AIOKafkaConsumer(*topics, bootstrap_servers=options.brokers, enable_auto_commit=False,
                            fetch_max_wait_ms=fetch_wait_ms, check_crcs=False,
                            max_partition_fetch_bytes=1 << 22, **more)


class Offsets(ConsumerRebalanceListener):
    """What is being worked on of each partition: a dict keeps the order in which offsets began, so
    its first one is the least that is not done."""

    def __init__(self, consumer):
        self._consumer = consumer
        self._open, self._next, self._committed = {}, {}, {}
        self.assigned = asyncio.Event()

    def begin(self, partition, offset):
        self._open.setdefault(partition, {})[offset] = True
        self._next[partition] = offset + 1

    def end(self, partition, offset):
        self._open.get(partition, {}).pop(offset, None)

    async def commit(self):
        done = {p: next(iter(self._open[p]), after) for p, after in self._next.items()}
        new = {p: offset for p, offset in done.items() if offset > self._committed.get(p, 0)}
        if new:
            await self._consumer.commit(new)
            self._committed.update(new)

    async def on_partitions_revoked(self, revoked):
        with contextlib.suppress(KafkaError):
            await self.commit()
        for table in (self._open, self._next, self._committed):
            table.clear()

    async def on_partitions_assigned(self, assigned):
        if assigned:
            self.assigned.set()


def open_redis(options):
    """A few connections: callers wait for a free one."""
    return redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(options.redis, max_connections=32))


# Workers


class Worker:
    """One stage: takes jobs off its topic and runs each as a task."""

    def __init__(self, options, stage, store, upstreams, producer):
        self._prefix, self._stage = options.prefix, stage
        self._store, self.up, self.producer = store, upstreams, producer
        self._handle = HANDLERS[stage]
        self._tasks = {}
        self._slots = asyncio.Semaphore(JOBS_AT_A_TIME)
        self.permits = {name: Permits(store, options.prefix, name, options.limit)
                        for name in PERMITS[stage]}
        self.consumer = new_consumer(options, group_id=options.prefix + stage,
                                     auto_offset_reset="earliest")
        self._offsets = Offsets(self.consumer)

    async def run(self):
        self.consumer.subscribe([self._prefix + self._stage], listener=self._offsets)
        await self.consumer.start()
        helpers = [asyncio.create_task(self._commit()), asyncio.create_task(self._cancel()),
                   asyncio.create_task(self._say_ready())]
        try:
            while True:
                for partition, records in (await self.consumer.getmany(timeout_ms=1000)).items():
                    for record in records:
                        await self._slots.acquire()
                        self._offsets.begin(partition, record.offset)
                        self._tasks[record.key.decode()] = asyncio.create_task(
                            self._work(partition, record))
        finally:
            running = [*helpers, *self._tasks.values()]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self.consumer.stop()

    async def _say_ready(self):
        await self._offsets.assigned.wait()
        print("ready", flush=True)

    async def _commit(self):
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            try:
                await self._offsets.commit()
            except KafkaError as error:
                log.warning("commit: %r", error)

    async def _cancel(self):
        """Ends the tasks of callers that left: those that come later are refused a permit."""
        async with self._store.pubsub(ignore_subscribe_messages=True) as messages:
            await messages.subscribe(self._prefix + "cancel")
            async for message in messages.listen():
                if task := self._tasks.get(message["data"].decode()):
                    task.cancel()

    async def _work(self, partition, record):
        job = orjson.loads(record.value)
        try:
            async with asyncio.timeout(job["deadline"] - time.time()):
                await self._handle(self, job)
        except Cancelled:
            pass
        except FAILURES as error:
            log.warning("%s: %r", job["id"], error)
            await self.reply(job, pipeline.error_of(pipeline.Events(job["id"]), error))
        finally:
            self._offsets.end(partition, record.offset)
            self._tasks.pop(job["id"], None)
            self._slots.release()

    async def hand_on(self, job, stage):
        await self.producer.send_and_wait(
            self._prefix + stage, orjson.dumps(job), key=job["id"].encode())

    async def reply(self, job, data):
        """Sends events; to await the result is to wait for the broker."""
        topic, partition = job["reply"]
        return await self.producer.send(topic, data, key=job["id"].encode(), partition=partition)


async def embed(worker, job):
    async with worker.permits["embed"](job["id"]):
        [job["vector"]] = await worker.up.embed([job["query"]])
    await worker.hand_on(job, "retrieve")


async def retrieve(worker, job):
    async def search(name, call, what):
        async with worker.permits[name](job["id"]):
            return await call(what)

    vector, keyword = await asyncio.gather(
        search("vector", worker.up.search_vector, job.pop("vector")),
        search("keyword", worker.up.search_keyword, job["query"]), return_exceptions=True)
    if isinstance(vector, Cancelled) or isinstance(keyword, Cancelled):
        raise Cancelled
    job["hits"] = pipeline.fuse_found(vector, keyword)
    await worker.hand_on(job, "rerank")


async def rerank(worker, job):
    async with worker.permits["rerank"](job["id"]):
        job["sources"] = await worker.up.rerank(job["query"], job.pop("hits"))
    events = pipeline.Events(job["id"])
    sent = await worker.reply(job, events.sources(job["sources"]))
    await worker.hand_on(job, "generate")
    await sent


async def generate(worker, job):
    events = pipeline.Events(job["id"])
    async with worker.permits["chat"](job["id"]), contextlib.aclosing(
            worker.up.chat(job["query"], job["history"], job["sources"])) as pieces:
        async for piece in pieces:
            await worker.reply(job, events.delta(piece))
    await (await worker.reply(job, events.done()))


HANDLERS = {"embed": embed, "retrieve": retrieve, "rerank": rerank, "generate": generate}
PERMITS = {"embed": ("embed",), "retrieve": ("vector", "keyword"), "rerank": ("rerank",),
           "generate": ("chat",)}


async def run_worker(options):
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, main.cancel)
    await create_topics(options)
    upstreams = pipeline.Upstreams(options.upstream)
    try:
        async with open_redis(options) as store, new_producer(options) as producer:
            await Worker(options, options.stage, store, upstreams, producer).run()
    except asyncio.CancelledError:
        pass
    finally:
        await upstreams.close()


# The gateway


class Stream:
    """Events on their way to one caller. The sources come from another process than the deltas:
    what overtakes them waits."""

    __slots__ = ("_parts", "_early", "_ready", "_has_sources")

    def __init__(self):
        self._parts, self._early = [], []
        self._has_sources = False
        self._ready = asyncio.Event()

    def put(self, data):
        if not self._has_sources:
            if data.startswith(b"id: 0:"):
                self._has_sources = True
                self._parts = [data, *self._early]
            elif b"\nevent: error\n" in data[:64]:
                self._parts = [data]
            else:
                self._early.append(data)
                return
        else:
            self._parts.append(data)
        self._ready.set()

    async def get(self):
        """All that is ready."""
        await self._ready.wait()
        self._ready.clear()
        data, self._parts = b"".join(self._parts), []
        return data


class Gateway:
    def __init__(self, options, store, producer):
        self._prefix, self._store, self._producer = options.prefix, store, producer
        self._replies = TopicPartition(options.prefix + REPLIES, 0)
        self._consumer = new_consumer(options)
        self._streams = {}
        self._reader = None

    async def start(self):
        await self._consumer.start()
        self._consumer.assign([self._replies])
        await self._consumer.seek_to_end(self._replies)
        self._reader = asyncio.create_task(self._read())

    async def stop(self):
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._consumer.stop()

    async def _read(self):
        while True:
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    if stream := self._streams.get(record.key):
                        stream.put(record.value)

    async def answer(self, question, write):
        text, history = question
        query_id = pipeline.new_id()
        key, stream = query_id.encode(), Stream()
        self._streams[key] = stream
        job = {"id": query_id, "query": text, "history": history, "reply": list(self._replies),
               "deadline": time.time() + pipeline.QUESTION_SECONDS}
        try:
            async with asyncio.timeout(pipeline.QUESTION_SECONDS + 1):
                await self._producer.send_and_wait(
                    self._prefix + STAGES[0], orjson.dumps(job), key=key)
                data = b""
                while not data.endswith(pipeline.DONE):
                    data = await stream.get()
                    await write(data, not data.endswith(pipeline.DONE))
        except asyncio.CancelledError:
            await asyncio.shield(self._cancel(query_id))
            raise
        except FAILURES as error:
            await write(pipeline.error_of(pipeline.Events(query_id), error), False)
        finally:
            del self._streams[key]

    async def _cancel(self, query_id):
        async with self._store.pipeline(transaction=False) as commands:
            commands.set(f"{self._prefix}cancelled:{query_id}", 1, ex=pipeline.QUESTION_SECONDS)
            commands.publish(self._prefix + "cancel", query_id)
            await commands.execute()


async def run_gateway(options):
    await create_topics(options)
    async with open_redis(options) as store, new_producer(options) as producer:
        gateway = Gateway(options, store, producer)
        await gateway.start()
        try:
            await serving.serve(
                options.port, serving.StreamEndpoint(pipeline.read_question, gateway.answer))
        finally:
            await gateway.stop()


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    gateway = commands.add_parser("gateway", help="takes questions, streams answers")
    gateway.add_argument("--port", type=int, default=0, help="0 takes a free one")
    worker = commands.add_parser("worker", help="one stage")
    worker.add_argument("stage", choices=STAGES)
    worker.add_argument("--upstream", required=True, metavar="URL", help="of models and stores")
    worker.add_argument("--limit", type=int, default=5000, help="calls in flight, each upstream")
    for command in (gateway, worker):
        command.add_argument("--brokers", required=True, metavar="HOST:PORT")
        command.add_argument("--redis", required=True, metavar="URL")
        command.add_argument("--prefix", default="jq.", help="of topics, groups and keys")
        command.add_argument("--partitions", type=int, default=1, help="of a stage's topic: as "
                             "many as it has workers")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parse()
    serving.run(run_gateway(chosen) if chosen.command == "gateway" else run_worker(chosen))
