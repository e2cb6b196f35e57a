"""The command that a worker process runs: `python -m ullage_runtime.engines.worker ENGINE FD …`."""

import argparse
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from ullage_runtime.engines.orphans import die_with_parent
from ullage_runtime.engines.registry import open_backend
from ullage_runtime.engines.worker.board import Board, Place
from ullage_runtime.engines.worker.server import EXIT_ORPHANED, WorkerServer

_OOM_SCORE = 500


def _die_before_server() -> None:
    """Ask the kernel to choose this process before the server's when memory runs out."""
    with contextlib.suppress(OSError):  # not everywhere, and only a preference
        Path("/proc/self/oom_score_adj").write_text(f"{_OOM_SCORE}\n")


def main() -> None:
    """Serve one engine on an inherited socket until the server says otherwise."""
    parser = argparse.ArgumentParser(prog="ullage-engine-worker")
    parser.add_argument("engine")
    parser.add_argument("fd", type=int)
    parser.add_argument("parent", type=int)
    parser.add_argument("board", type=int)
    parser.add_argument("place", type=int)
    options = parser.parse_args()
    die_with_parent(options.parent, EXIT_ORPHANED)
    _die_before_server()
    # A terminal's Ctrl-C, or a service manager's stop, goes to the whole group; the server drains
    # first and decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=options.fd) as connection:
        server: WorkerServer | None = None
        place = Place(Board(options.board), options.place)

        def log(level: str, text: str) -> None:
            if server is not None:
                server.log(level, text)
            elif level in {"warning", "error"}:
                sys.stderr.write(f"{text}\n")

        server = WorkerServer(open_backend(options.engine, log), connection, place)
        server.serve()
    sys.stderr.flush()
    # Threads of the engine's library may still run; the kernel ends them without ceremony.
    os._exit(0)


if __name__ == "__main__":
    main()
