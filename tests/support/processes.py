"""The project's own commands as real processes."""

import contextlib
import os
import pathlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import httpx

ULLAGE = (sys.executable, "-c", "from ullage_runtime.cli import main; main()")
POD = (sys.executable, "-m", "ullage_runtime")

PATIENCE = 90.0
"""Seconds that a process may take to come up on a busy machine."""


def environment(folder: pathlib.Path, **settings: object) -> dict[str, str]:
    """Return an environment in which nothing of this machine's own settings is left."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ULLAGE_") and k != "PORT"}
    ours = {
        "ULLAGE_STATE_DIR": str(folder / "state"),
        "ULLAGE_MODEL_CACHE_DIR": str(folder / "cache"),
        **{f"ULLAGE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    return {**kept, **ours, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A running command whose output is collected."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.errors.append(line)
            self._lines.put(line)

    def wait_for_error_line(self, words: str, seconds: float = PATIENCE) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.2)
                if words in line:
                    return line
            if self.popen.poll() is not None and self._lines.empty():
                break
        raise AssertionError(f"{words!r} was not said; it said:\n{''.join(self.errors)}")

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """End the process with a signal and return its exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        finally:
            self.popen.kill()
            self.popen.wait()
            self._reader.join(10)
            for stream in (self.popen.stdout, self.popen.stderr, self.popen.stdin):
                if stream is not None:
                    stream.close()


@contextlib.contextmanager
def running_process(
    command: Sequence[str], env: Mapping[str, str], *arguments: str, cwd: pathlib.Path
) -> Iterator[Process]:
    popen = subprocess.Popen(
        [*command, *arguments],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = Process(popen)
    try:
        yield process
    finally:
        process.end()


def wait_until_answers(url: str, process: Process, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer; the process said:\n{''.join(process.errors)}")


def manifest(name: str, uri: str, **spec: object) -> str:
    """Return the YAML of a ModelDeployment; JSON values are YAML too."""
    import json

    fields = {"pool": "default", "task": "Chat", "model": {"uri": uri}, **spec}
    return (
        "apiVersion: ullage.dev/v1alpha1\nkind: ModelDeployment\n"
        f"metadata: {{name: {name}}}\nspec: {json.dumps(fields)}\n"
    )
