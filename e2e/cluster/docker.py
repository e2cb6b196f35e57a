"""An image builder: the machine's own Docker daemon, or one that lives as long as it is needed.

Ours runs in mount and process namespaces of its own, so that it leaves no mount, no process and no
file behind, without a bridge and without packet filters, so that the network stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.binaries import say
from e2e.cluster.cache import cache_root, locked
from e2e.cluster.errors import CommandError, DeadlineError, MissingRequirementError
from e2e.cluster.packages import BUILDER_PROGRAMS, SYSTEM_PATH, require
from e2e.cluster.processes import run, start, stop, tail, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Docker", "docker"]

DAEMON_SECONDS = 60.0
BUILD_SECONDS = 3600.0
LOCK_SECONDS = 3600.0
LAYER_CACHE = "4GB"
# From this release on a client builds with BuildKit through a plugin; before, by itself.
PLUGIN_SINCE = 23
# Folders that the daemon writes to whatever it is told: it sees them through a layer that is thrown
# away. The shell's arguments are a folder for the layers, and the daemon's command.
SHIELD = """\
set -eu
folder=$1; shift
for name in etc opt run; do
    mkdir -p "$folder/$name/upper" "$folder/$name/work"
    layers="lowerdir=/$name,upperdir=$folder/$name/upper,workdir=$folder/$name/work"
    mount --no-mtab -t overlay -o "$layers" overlay "/$name"
done
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Docker:
    """A client of one daemon; `ours` says that nobody else uses it."""

    command: tuple[str, ...]
    ours: bool = False

    def run(
        self, *arguments: str | Path, check: bool = True, timeout: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run one docker command."""
        return run([*self.command, *arguments], check=check, timeout=timeout)

    def has_image(self, reference: str) -> bool:
        """Whether the daemon holds this image."""
        return self.run("image", "inspect", reference, check=False).returncode == 0

    def tidy(self) -> None:
        """Forget what no later build will use, where the store is ours to tidy."""
        if self.ours:
            self.run("image", "prune", "--force")
            self.run("builder", "prune", "--force", f"--keep-storage={LAYER_CACHE}")

    def build(self, context: Path, *, arguments: Sequence[str], log: Path) -> None:
        """Build the image of a packed context, its output in `log`."""
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        command = [*self.command, "build", *arguments, "-"]
        log.parent.mkdir(parents=True, exist_ok=True)
        with context.open("rb") as source, log.open("wb") as output:
            try:
                done = subprocess.run(
                    command,
                    stdin=source,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    timeout=BUILD_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                message = f"the build did not end within {BUILD_SECONDS:.0f} s\n{tail(log)}"
                raise DeadlineError(message) from None
        if done.returncode != 0:
            message = f"the build failed; its whole output is in {log}\n{tail(log, 40)}"
            raise CommandError(message)


@contextlib.contextmanager
def docker() -> Iterator[Docker]:
    """Give a Docker client whose daemon answers; one that we start ends with the block."""
    found = shutil.which("docker")
    if found and run([found, "version"], check=False).returncode == 0:
        yield Docker((client(SYSTEM_PATH),))
        return
    require_root()
    require(BUILDER_PROGRAMS, purpose="the image builder")
    with locked("docker", timeout=LOCK_SECONDS), _daemon() as socket:
        yield Docker((client(SYSTEM_PATH), "--host", f"unix://{socket}"), ours=True)


def require_root() -> None:
    """Raise `MissingRequirementError` where neither a daemon answers nor one can be started."""
    if os.geteuid() != 0:
        message = "no Docker daemon answers, and starting one needs root"
        raise MissingRequirementError(message)


def client(path: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the first docker client of `path` that can build with BuildKit."""
    for folder in dict.fromkeys(path.split(os.pathsep)):
        candidate = shutil.which("docker", path=folder)
        if candidate is None:
            continue
        version = run([candidate, "--version"], check=False, env=environment).stdout
        plugin = run([candidate, "buildx", "version"], check=False, env=environment)
        if builds_itself(version) or plugin.returncode == 0:
            return candidate
    message = "no docker client can build with BuildKit: install docker-buildx"
    raise MissingRequirementError(message)


def builds_itself(version: str) -> bool:
    """Return whether the client that says `version` needs no plugin to build with BuildKit."""
    match = re.search(r"version (\d+)\.", version)
    return match is not None and int(match[1]) < PLUGIN_SINCE


@contextlib.contextmanager
def _daemon() -> Iterator[Path]:
    """Run a daemon on a socket of its own; what it stores stays in the cache as its layer cache."""
    store = cache_root() / "images" / "docker"
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ullage-docker-") as name:
        folder = Path(name)
        socket, log = folder / "docker.sock", store.parent / "dockerd.log"
        log.unlink(missing_ok=True)
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        flags = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]
        flags += ["--ip-forward=false", f"--data-root={store}", f"--exec-root={folder}/run"]
        flags += [f"--pidfile={folder}/pid", f"--host=unix://{socket}"]
        say("no Docker daemon answers: starting one for the build")
        record = start(
            "dockerd",
            [
                "unshare",
                *namespaces,
                "sh",
                "-c",
                SHIELD,
                "sh",
                folder / "layers",
                "dockerd",
                *flags,
            ],
            log=log,
            records=folder / "processes",
            env={**os.environ, "PATH": SYSTEM_PATH},
        )
        try:
            wait_until(
                "dockerd answers",
                lambda: (
                    run(["docker", "-H", f"unix://{socket}", "version"], check=False).returncode
                    == 0
                ),
                timeout=DAEMON_SECONDS,
                processes=[record],
                poll=0.3,
            )
            yield socket
        finally:
            stop([record], grace=0.0)
