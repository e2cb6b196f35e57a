"""Bringing a cluster up, telling how it is, and taking it down without a trace."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from e2e.cluster.binaries import build_all, say
from e2e.cluster.cache import cache_root, locked
from e2e.cluster.certificates import Authority
from e2e.cluster.cluster import Cluster
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.errors import ClusterError
from e2e.cluster.layout import Layout, Shape, Spec, clusters
from e2e.cluster.network import free_ports
from e2e.cluster.node import Node
from e2e.cluster.processes import ProcessRecord, stop

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Status", "build_programs", "down", "prune", "status", "up"]

LOCK_SECONDS = 900.0
BINARIES: dict[Shape, tuple[str, ...]] = {
    "control-plane": ("kube-apiserver", "helm"),
    "node": ("kube-apiserver", "helm", "coredns"),
}


@dataclass(frozen=True, slots=True)
class Status:
    """How a cluster is: what it was asked to be, and which of its processes run."""

    name: str
    spec: Spec | None
    processes: tuple[ProcessRecord, ...]

    @property
    def running(self) -> bool:
        """Whether every part of it runs."""
        return bool(self.processes) and all(each.alive for each in self.processes)


def status(name: str) -> Status:
    """Return how the cluster `name` is."""
    layout = Layout.of(name)
    return Status(name, layout.load(), tuple(ProcessRecord.load_all(layout.records)))


def up(wanted: Spec) -> Cluster:
    """Make the cluster that `wanted` describes run, and return it.

    A cluster of this name that already runs in this shape is returned as it is; one that has
    partly died is made anew. Whatever interrupts the start, Ctrl-C included, leaves only logs.
    """
    layout = Layout.of(wanted.name)
    build_programs(wanted.shape)
    with locked(f"cluster-{wanted.name}", timeout=LOCK_SECONDS):
        found = status(wanted.name)
        if found.running and found.spec is not None and _answers(layout, found.spec):
            if found.spec.shape != wanted.shape:
                message = (
                    f"cluster {wanted.name!r} runs in the shape {found.spec.shape}: "
                    "take it down first, or choose another name"
                )
                raise ClusterError(message)
            return Cluster.local(layout)
        _remove(layout)
        try:
            _create(layout, wanted)
        except BaseException:
            kept = _keep_logs(layout)
            _remove(layout)
            say(f"cluster {wanted.name!r} did not come up; its logs are in {kept}")
            raise
    return Cluster.local(layout)


def build_programs(shape: Shape) -> None:
    """Build what a cluster of this shape is made of, on a machine that can run it."""
    if shape == "node":
        Node.require()
    build_all(BINARIES[shape])


def down(name: str) -> bool:
    """End all that `up` started for this cluster, remove its folder, and say whether it existed."""
    layout = Layout.of(name)
    with locked(f"cluster-{name}", timeout=LOCK_SECONDS):
        existed = layout.root.exists()
        _remove(layout)
        shutil.rmtree(_kept_logs(layout), ignore_errors=True)
    return existed


def prune() -> list[str]:
    """Take down the clusters whose owner has ended without doing so, and return their names."""
    orphans = [spec.name for _, spec in clusters() if spec.orphaned]
    for name in orphans:
        down(name)
    return orphans


def _create(layout: Layout, wanted: Spec) -> None:
    for folder in (layout.root, layout.config, layout.logs):
        folder.mkdir(parents=True, exist_ok=True)
    authority = Authority.create(layout.pki)
    if wanted.shape == "node":
        node = Node.reserve(layout, wanted, authority)
        control_plane = ControlPlane(layout, node.spec, authority, launcher=node.launcher)
        control_plane.prepare()
        control_plane.start()
        node.start(control_plane)
        return
    spec = replace(wanted, port=wanted.port or free_ports(1)[0])
    layout.save(spec)
    control_plane = ControlPlane(layout, spec, authority)
    control_plane.prepare()
    control_plane.start()


def _answers(layout: Layout, spec: Spec) -> bool:
    return ControlPlane(layout, spec, Authority(layout.pki)).answers()


def _remove(layout: Layout) -> None:
    """End this cluster's processes, then undo what it did to the machine, then remove its files."""
    spec = layout.load()
    stop(ProcessRecord.load_all(layout.records))
    if spec is not None and spec.shape == "node":
        Node.clean_up(spec)
    if layout.root.exists():
        shutil.rmtree(layout.root)


def _kept_logs(layout: Layout) -> Path:
    return cache_root() / "failed" / layout.root.name


def _keep_logs(layout: Layout) -> Path:
    kept = _kept_logs(layout)
    shutil.rmtree(kept, ignore_errors=True)
    if layout.logs.exists():
        shutil.copytree(layout.logs, kept)
    return kept
