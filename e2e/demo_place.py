"""Where the demo runs: which cluster, who made it, and how it is removed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.binaries import program
from e2e.cluster.cache import cache_root
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout, Spec
from e2e.cluster.lifecycle import down, prune, up
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Kind", "Place", "chosen_place", "forget_place", "remembered_place"]

OWN_NAME = "demo"
KIND_NAME = "ullage-demo"
KIND_SECONDS = 600.0


class Kind(StrEnum):
    """Who runs the demo's cluster."""

    OWN = "own"
    """`e2e.cluster`, on this machine."""
    KIND = "kind"
    """kind, in this machine's Docker."""
    GIVEN = "given"
    """Somebody else: it is neither started nor ended here."""


@dataclass(frozen=True, slots=True)
class Place:
    """The cluster of the demo."""

    kind: Kind
    cluster: Cluster

    @property
    def description(self) -> str:
        """The cluster, in words."""
        return {
            Kind.OWN: "our own on this machine",
            Kind.KIND: f"kind's cluster {KIND_NAME}",
            Kind.GIVEN: f"the one of {self.cluster.kubeconfig}",
        }[self.kind]

    def remove(self) -> None:
        """End the cluster, unless somebody else runs it."""
        if self.kind is Kind.OWN:
            down(OWN_NAME)
        elif self.kind is Kind.KIND:
            _kind("delete", "cluster", "--name", KIND_NAME)


def chosen_place(*, current: bool) -> Place:
    """Return a running cluster: the one asked for, the demo's last one, kind's or our own."""
    last = remembered_place()
    kind = _chosen_kind(current=current, last=last)
    if last is not None and last.kind is not kind:
        message = f"there is a demo on {last.description} already: `make demo-down` first"
        raise ClusterError(message)
    _folder().mkdir(parents=True, exist_ok=True)
    place = Place(kind, _cluster(kind, current=current))
    _record().write_text(json.dumps({"kind": kind.value}))
    return place


def _chosen_kind(*, current: bool, last: Place | None) -> Kind:
    if current or os.environ.get("ULLAGE_E2E_KUBECONFIG"):
        return Kind.GIVEN
    if last is not None and last.kind is not Kind.GIVEN:
        return last.kind
    return Kind.KIND if shutil.which("kind") else Kind.OWN


def _cluster(kind: Kind, *, current: bool) -> Cluster:
    match kind:
        case Kind.OWN:
            prune()
            return up(Spec(name=OWN_NAME, shape="node"))
        case Kind.KIND:
            return _kind_cluster()
        case Kind.GIVEN if current:
            return _external(_current_kubeconfig())
        case Kind.GIVEN:
            return _external(_copied(Path(os.environ["ULLAGE_E2E_KUBECONFIG"]).expanduser()))


def remembered_place() -> Place | None:
    """Return where the last demo ran, if it has not been removed."""
    try:
        kind = Kind(json.loads(_record().read_text())["kind"])
    except FileNotFoundError:
        return None
    if kind is Kind.OWN:
        layout = Layout.of(OWN_NAME)
        return Place(kind, Cluster.local(layout)) if layout.load() is not None else None
    return Place(kind, _external(_kubeconfig()))


def forget_place() -> None:
    """Forget where the demo ran."""
    shutil.rmtree(_folder(), ignore_errors=True)


def _folder() -> Path:
    return cache_root() / "demo"


def _record() -> Path:
    return _folder() / "place.json"


def _kubeconfig() -> Path:
    return _folder() / "kubeconfig"


def _external(kubeconfig: Path) -> Cluster:
    return Cluster.external(kubeconfig, _folder())


def _current_kubeconfig() -> Path:
    """Copy the current context alone, so that switching it later cannot mislead `demo-down`."""
    kubectl = shutil.which("kubectl") or str(program("kubectl"))
    return _written(run([kubectl, "config", "view", "--raw", "--minify", "--flatten"]).stdout)


def _copied(kubeconfig: Path) -> Path:
    if not kubeconfig.is_file():
        message = f"there is no kubeconfig at {kubeconfig}"
        raise ClusterError(message)
    return _written(kubeconfig.read_text())


def _written(text: str) -> Path:
    path = _kubeconfig()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def _kind_cluster() -> Cluster:
    path = _kubeconfig()
    path.parent.mkdir(parents=True, exist_ok=True)
    if KIND_NAME in _kind("get", "clusters").split():
        _kind("export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig", str(path))
    else:
        _kind("create", "cluster", "--name", KIND_NAME, "--kubeconfig", str(path), "--wait=180s")
    return _external(path)


def _kind(*arguments: str) -> str:
    command: Sequence[str] = ["kind", *arguments]
    return run(command, timeout=KIND_SECONDS).stdout
