"""llama-server's core as a process of its own; runs in the opponents' environment."""

import argparse
import signal
import threading

# It is installed in the opponents' environment only.
import xllamacpp  # type: ignore[import-not-found]


def main() -> None:
    """Serve a model until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    for name in ("port", "threads", "parallel", "context"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--unified", action="store_true")
    given = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.port = given.port
    params.cpuparams.n_threads = given.threads
    params.cpuparams_batch.n_threads = given.threads
    params.n_parallel = given.parallel
    # It divides its context among the slots, unless they share it.
    params.n_ctx = given.context * given.parallel
    params.kv_unified = given.unified
    params.n_gpu_layers = 0
    params.fit_params = False
    params.ui = False
    # Keeping past prompts in memory would cost it time and never help: no prompt comes twice.
    params.cache_ram_mib = 0
    params.verbosity = 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(params)
    print(f"listening at {server.listening_address}; {xllamacpp.get_system_info()}", flush=True)
    stop.wait()
    del server


if __name__ == "__main__":
    main()
