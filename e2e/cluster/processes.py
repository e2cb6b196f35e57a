"""Long-lived processes that outlive the command which started them.

A process is remembered by its pid *and* its start time: pids are reused, and ending a stranger that
happens to have inherited a number is the one thing `down` must never do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.errors import ClusterError, CommandError, DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ProcessRecord", "run", "start", "start_time", "stop", "tail", "wait_until"]

POLL_SECONDS = 0.05
TERMINATE_SECONDS = 3.0
KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One started process: enough to find it again, and to know that it is still the same one."""

    name: str
    pid: int
    started: str
    log: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return self.started != "" and start_time(self.pid) == self.started

    def save(self, folder: Path) -> None:
        """Write the record to `folder`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{self.name}.json"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.rename(folder / f"{self.name}.json")

    @classmethod
    def load_all(cls, folder: Path) -> list[ProcessRecord]:
        """Return the records kept in `folder`, in the order in which their processes started."""
        paths = [p for p in folder.glob("*.json") if not p.name.startswith(".")]
        paths.sort(key=lambda path: path.stat().st_mtime_ns)
        return [cls(**json.loads(path.read_text())) for path in paths]


def start_time(pid: int) -> str:
    """Return when process `pid` started, as a text to compare; empty if it is gone."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The second field is the command in brackets, and may itself hold brackets and spaces.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        state, ticks = fields[0], fields[19]
        return "" if state in "ZX" else ticks
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "" if shown.stdout.lstrip().startswith("Z") else shown.stdout.strip()


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    records: Path,
    env: Mapping[str, str] | None = None,
) -> ProcessRecord:
    """Start `command` in a session of its own, its output in `log`, its record in `records`."""
    argv = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        argv[0],
        argv,
        dict(os.environ if env is None else env),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE],
    )
    record = ProcessRecord(name=name, pid=pid, started=start_time(pid), log=str(log))
    record.save(records)
    return record


def stop(records: Sequence[ProcessRecord], *, grace: float = TERMINATE_SECONDS) -> None:
    """End these processes, last started first: politely, then by force.

    A record whose pid now belongs to another process is left alone.
    """
    for record in reversed(records):
        _signal(record, signal.SIGTERM)
    if _all_gone(records, grace):
        return
    for record in records:
        _signal(record, signal.SIGKILL)
    if not _all_gone(records, KILL_SECONDS):
        left = ", ".join(f"{r.name} ({r.pid})" for r in records if r.alive)
        message = f"these processes do not end: {left}"
        raise ClusterError(message)


def wait_until(
    what: str,
    ready: Callable[[], bool],
    *,
    timeout: float,
    processes: Sequence[ProcessRecord] = (),
    poll: float = POLL_SECONDS,
) -> None:
    """Wait until `ready()`; fail at the deadline, or as soon as one of `processes` has ended.

    The message ends with the last lines of the logs of the processes at fault.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        dead = [record for record in processes if not record.alive]
        if dead:
            names = ", ".join(record.name for record in dead)
            message = f"{names} ended before {what}\n{_tails(dead)}"
            raise DeadlineError(message)
        if time.monotonic() > deadline:
            message = f"{what}: not within {timeout:.0f} s\n{_tails(processes)}"
            raise DeadlineError(message)
        time.sleep(poll)


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a short command and return what it said; a failure carries its output."""
    argv = [str(word) for word in command]
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=env,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as error:
        message = f"`{' '.join(argv)}` did not end within {timeout:.0f} s"
        raise DeadlineError(message) from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        message = f"`{' '.join(argv)}` ended with {done.returncode}: {said}"
        raise CommandError(message)
    return done


def tail(path: Path, lines: int = 20) -> str:
    """Return the last `lines` lines of a log that may be missing, empty or very large."""
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - 64 * 1024))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    if record.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def _all_gone(records: Sequence[ProcessRecord], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while any(record.alive for record in records):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _tails(records: Sequence[ProcessRecord]) -> str:
    parts = [f"--- {r.name}: {r.log}\n{tail(Path(r.log))}" for r in records]
    return "\n".join(parts)
