"""The servers that are compared, each started alone with the same file and the same threads."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import llama_cpp

from bench.environment import HERE, only_variant, opponents_python, variant_file

MODEL: Final = "bench"
START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for every server."""

    file: Path
    threads: int
    parallel: int
    """Sequences at once, the widest load's concurrency."""
    context: int
    """Tokens of context for each of them."""
    same_features: bool = True
    """Whether all compute with the CPU features of the least able build."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Further fields of our own `spec.engine`."""
    shares_context: bool = False
    """Whether an opponent that could divide its context among its slots shares it, as ours does."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a server is started."""

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)


Builder = Callable[[Conditions, int, Path], Command]


def ours(conditions: Conditions, port: int, folder: Path) -> Command:
    """Return how `ullage up` serves the file."""
    engine = {
        # One memory for all that run, as xllamacpp's context is.
        "contextLength": conditions.context * conditions.parallel,
        "parallel": conditions.parallel,
        "threads": conditions.threads,
        "gpuLayers": 0,
    }
    manifest = {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": MODEL},
        "spec": {
            "pool": "default",
            "task": "Chat",
            "model": {"uri": f"file://{conditions.file}"},
            "engine": {**engine, **conditions.engine},
            "serving": {"maxQueue": 10_000, "requestSeconds": 3600},
        },
    }
    (folder / "model.yaml").write_text(json.dumps(manifest))
    environment = {
        "ULLAGE_STATE_DIR": str(folder / "state"),
        "ULLAGE_MODEL_CACHE_DIR": str(folder / "cache"),
    }
    if conditions.same_features:
        path = only_variant(Path(llama_cpp.__file__).parent.parent, folder / "variant")
        environment |= {"PYTHONPATH": str(path)} if path else {}
    program = "from ullage_runtime.cli import main; main()"
    models = ["--models-dir", str(conditions.file.parent)]
    command = [sys.executable, "-c", program, "up", str(folder / "model.yaml"), *models]
    return Command([*command, "--host", "127.0.0.1", "--port", str(port)], environment)


def xllamacpp(conditions: Conditions, port: int, folder: Path) -> Command:
    """Return how llama-server's core serves the file."""
    del folder
    values = {
        "model": conditions.file,
        "port": port,
        "threads": conditions.threads,
        "parallel": conditions.parallel,
        "context": conditions.context,
    }
    options = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    options += ["--unified"] if conditions.shares_context else []
    return Command([str(opponents_python()), str(HERE / "xllamacpp_server.py"), *options])


def llama_cpp_server(conditions: Conditions, port: int, folder: Path) -> Command:
    """Return how llama-cpp-python's own server serves the file, one request after the other."""
    del folder
    python = opponents_python()
    options = {
        "model": conditions.file,
        "model_alias": MODEL,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": conditions.context,
        "n_threads": conditions.threads,
        "n_threads_batch": conditions.threads,
        # Otherwise a request that comes ends the one that runs.
        "interrupt_requests": "false",
        "verbose": "false",
    }
    flat = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    site_packages = python.parent.parent / "lib" / "python3.11" / "site-packages"
    variant = variant_file(site_packages) if conditions.same_features else None
    # It does not look where its variants lie, so without this it has nothing to compute with.
    library = variant or _best_variant(site_packages)
    environment = {"GGML_BACKEND_PATH": str(library)} if library else {}
    return Command([str(python), "-m", "llama_cpp.server", *flat], environment)


def _best_variant(site_packages: Path) -> Path | None:
    from ullage_runtime.cli.hardware import probed_engine

    return variant_file(site_packages, probed_engine().variant)


SERVERS: Final[dict[str, Builder]] = {
    "ullage": ours,
    "xllamacpp": xllamacpp,
    "llama_cpp.server": llama_cpp_server,
}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    url: str
    pid: int
    start_seconds: float


@contextlib.contextmanager
def running(name: str, conditions: Conditions, folder: Path) -> Iterator[Running]:
    """Start a server, wait until it answers, and end it with all its children."""
    port = free_port()
    command = SERVERS[name](conditions, port, folder)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    with started(name, command, port, folder, ("/v1/chat/completions", body)) as server:
        yield server


@contextlib.contextmanager
def started(
    name: str, command: Command, port: int, folder: Path, question: tuple[str, dict[str, Any]]
) -> Iterator[Running]:
    """Run a command until it answers a question on a port, and to the block's end."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ULLAGE_") and k != "PORT"}
    log = folder / f"{name}.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            command.arguments,
            env={**kept, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_answers(name, url, process, log, question)
        yield Running(url, process.pid, time.perf_counter() - began)
    finally:
        _end(process)


def _wait_until_answers(
    name: str,
    url: str,
    process: "subprocess.Popen[bytes]",
    log: Path,
    question: tuple[str, dict[str, Any]],
) -> None:
    path, body = question
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{url}{path}", json=body, timeout=60)
            if answer.is_success:
                return
        time.sleep(0.05)
    words = log.read_text(errors="replace")[-2000:]
    raise SystemExit(f"{name} does not answer; it said:\n{words}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
