"""llama.cpp's own server, as the wheel `xllamacpp` holds it: python llama_server.py GGUF PORT THREADS SLOTS.

Prompt cache and continuous batching are on, as they are by default; every slot has room for 512 tokens.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main() -> None:
    gguf, port, threads, slots = sys.argv[1], *map(int, sys.argv[2:])
    settings = xllamacpp.CommonParams()
    settings.model.path = gguf
    settings.model_alias = {"llama"}
    settings.hostnames = ["127.0.0.1"]
    settings.port = port
    settings.cpuparams.n_threads = threads
    settings.cpuparams_batch.n_threads = threads
    settings.n_parallel = slots
    settings.n_ctx = 512 * slots
    settings.n_gpu_layers = 0
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
