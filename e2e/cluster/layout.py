"""Where the parts of one cluster lie: everything under one folder, which `down` removes."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from e2e.cluster.cache import cache_root
from e2e.cluster.errors import ClusterError
from e2e.cluster.processes import start_time

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEFAULT_NAME", "Layout", "Shape", "Spec", "clusters"]

Shape = Literal["control-plane", "node"]
DEFAULT_NAME = "default"
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a cluster was asked to be, kept in its folder.

    `slot` numbers a node's address ranges; `owner_pid` and `owner_started` name the process a
    throw-away cluster belongs to, so that a later run can end what a killed one left running.
    """

    name: str
    shape: Shape
    address: str = "127.0.0.1"
    port: int = 0
    service_range: str = "10.96.0.0/16"
    slot: int = -1
    audit: bool = True
    controllers: bool = True
    owner_pid: int = 0
    owner_started: str = ""

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.port}"

    @property
    def orphaned(self) -> bool:
        """Whether this cluster belonged to a process that has ended."""
        return self.owner_pid != 0 and start_time(self.owner_pid) != self.owner_started

    def owned(self) -> Spec:
        """Return this specification as one that belongs to the calling process."""
        return replace(self, owner_pid=os.getpid(), owner_started=start_time(os.getpid()))


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one cluster."""

    root: Path

    @classmethod
    def of(cls, name: str) -> Layout:
        """Return where the cluster `name` lies, whether or not it exists."""
        if not NAME_PATTERN.fullmatch(name):
            message = f"a cluster's name is at most 24 of a-z, 0-9 and '-', not {name!r}"
            raise ClusterError(message)
        return cls(cache_root() / "clusters" / name)

    @property
    def spec_file(self) -> Path:
        """What the cluster was asked to be."""
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.root / "pki"

    @property
    def config(self) -> Path:
        """Configuration files of the components."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """One log per component, and the audit log."""
        return self.root / "logs"

    @property
    def records(self) -> Path:
        """One record per running process."""
        return self.root / "processes"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON event per line."""
        return self.logs / "audit.log"

    @property
    def etcd(self) -> Path:
        """The data of etcd."""
        return self.root / "etcd"

    @property
    def node(self) -> Path:
        """Everything the node's programs write."""
        return self.root / "node"

    @property
    def kubectl_cache(self) -> Path:
        """What kubectl and helm remember of the API: a later cluster may have the same address."""
        return self.root / "kubectl-cache"

    @property
    def volumes(self) -> Path:
        """Folders behind the persistent volumes made for tests."""
        return self.root / "volumes"

    def save(self, spec: Spec) -> None:
        """Keep the specification."""
        self.spec_file.write_text(json.dumps(asdict(spec), indent=2))

    def load(self) -> Spec | None:
        """Return the specification of the cluster that lies here, if one does."""
        try:
            return Spec(**json.loads(self.spec_file.read_text()))
        except FileNotFoundError:
            return None


def clusters() -> Iterator[tuple[Layout, Spec]]:
    """Yield every cluster of this machine's cache, running or not."""
    for path in sorted((cache_root() / "clusters").glob("*/cluster.json")):
        layout = Layout(path.parent)
        spec = layout.load()
        if spec is not None:
            yield layout, spec
