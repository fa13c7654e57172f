"""What both designs need to serve streams over HTTP: uvicorn as tuned for many open streams, and
raw ASGI around one answer. Starlette's StreamingResponse runs a task group with two tasks for each
answer, which took 1.46 ms of CPU a request against 1.28 (16 tokens, all latencies 0); what it is
needed for, to notice that the client left, is one task.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.routing import Route

STREAM_START = {"type": "http.response.start", "status": 200, "headers": [
    (b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]}
BODY_LIMIT = 1 << 20


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_collector():
    """What was imported lives for ever; and answers have few cycles, so that a full collection of
    a large heap every few hundred allocations is only a pause."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(main):
    """Runs a program's coroutine."""
    logging.basicConfig(level=logging.WARNING)
    raise_file_limit()
    uvloop.install()
    tune_collector()
    asyncio.run(main)


class BadRequest(Exception):
    pass


async def read_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_LIMIT:
            raise BadRequest("the body is too large")
    return body


async def send_json(send, status, value):
    body = orjson.dumps(value)
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class StreamEndpoint:
    """A POST whose answer is a stream. `read(body)` makes a question of it (ValueError: 400);
    `answer(question, write)` answers it and is cancelled when the client leaves; `write(data)` must
    be awaited, `write(data, False)` ends the answer."""

    def __init__(self, read, answer):
        self._read, self._answer = read, answer

    async def __call__(self, scope, receive, send):
        try:
            question = self._read(await read_body(receive))
        except (ValueError, BadRequest) as error:
            await send_json(send, 400, {"error": {"message": str(error), "code": "bad_request"}})
            return
        except asyncio.CancelledError:
            return

        started = False

        async def write(data, more=True):
            nonlocal started
            if not started:
                started = True
                await send(STREAM_START)
            await send({"type": "http.response.body", "body": data, "more_body": more})

        watch = asyncio.create_task(cancel_when_left(receive, asyncio.current_task()))
        try:
            await self._answer(question, write)
        except asyncio.CancelledError:
            if not watch.done():
                raise
        finally:
            watch.cancel()


async def cancel_when_left(receive, task):
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def health():
    return {"status": "ok"}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        """uvicorn would raise the signal again after its shutdown: a stop is no failure."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started:
            print(f"port={sockets[0].getsockname()[1]}\nready", flush=True)


async def serve(port, endpoint):
    """Serves POST /v1/query until SIGTERM or SIGINT; prints the port and `ready`."""
    app = FastAPI(openapi_url=None)
    app.router.routes.append(Route("/v1/query", endpoint, methods=["POST"]))
    app.get("/health")(health)
    listener = socket.create_server(("127.0.0.1", port), backlog=8192)
    listener.setblocking(False)
    config = uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", access_log=False, log_level="warning",
        date_header=False, server_header=False, proxy_headers=False, backlog=8192,
        timeout_keep_alive=75, timeout_graceful_shutdown=5)
    await _Server(config).serve(sockets=[listener])
