"""A running cluster as tests and commands use it, wherever it runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2e.cluster.audit import AuditEvent, read_audit
from e2e.cluster.binaries import program
from e2e.cluster.errors import ClusterError, DeadlineError
from e2e.cluster.layout import Layout, Spec
from e2e.cluster.processes import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from datetime import datetime

    from e2e.cluster.images import BuiltImage

__all__ = ["Cluster"]

COMMAND_SECONDS = 60.0
HELM_SECONDS = 300.0
POLL_SECONDS = 0.1
FIELD_MANAGER = "ullage-tests"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kubernetes cluster, reached with the kubeconfig of an administrator.

    Attributes:
        kubeconfig: path of the kubeconfig file.
        dir: a folder that lives as long as the cluster does.
        spec: what our own cluster was asked to be; none for one that somebody else runs.
    """

    kubeconfig: Path
    dir: Path
    spec: Spec | None = None

    @classmethod
    def local(cls, layout: Layout) -> Cluster:
        """Return the cluster of this package that lies in `layout`."""
        return cls(kubeconfig=layout.kubeconfig, dir=layout.root, spec=layout.load())

    @classmethod
    def external(cls, kubeconfig: Path, folder: Path) -> Cluster:
        """Return any other cluster; it is neither started nor ended here."""
        if not kubeconfig.is_file():
            message = f"there is no kubeconfig at {kubeconfig}"
            raise ClusterError(message)
        return cls(kubeconfig=kubeconfig, dir=folder)

    @property
    def layout(self) -> Layout:
        """Where our own cluster's parts lie."""
        if self.spec is None:
            message = "this cluster is run by somebody else: its files are not here"
            raise ClusterError(message)
        return Layout(self.dir)

    @property
    def has_nodes(self) -> bool:
        """Whether pods run here."""
        return self.spec is None or self.spec.shape == "node"

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run has for it
        check: bool = True,
        timeout: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as an administrator; with `check`, a failure is raised with its output."""
        flags = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self._kubectl_cache}"]
        command = [str(self._program("kubectl")), *flags, *arguments]
        return run(command, stdin=input, check=check, timeout=timeout)

    def helm(
        self, *arguments: str, check: bool = True, timeout: float = HELM_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run helm as an administrator; its caches and settings stay with the cluster."""
        home = self.dir / "helm"
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self._kubectl_cache),
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }
        return run(
            [self._program("helm"), *arguments], check=check, timeout=timeout, env=environment
        )

    def apply(self, manifest: str | dict[str, Any], *, namespace: str | None = None) -> str:
        """Apply a manifest (YAML text, or an object) on the server's side; return what it says."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        scope = ["--namespace", namespace] if namespace else []
        manager = f"--field-manager={FIELD_MANAGER}"
        return self.kubectl("apply", "--server-side", manager, *scope, "-f", "-", input=text).stdout

    def get_json(self, *arguments: str) -> dict[str, Any]:
        """Run `kubectl get ARGUMENTS -o json` and return the object or the list."""
        document = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        if not isinstance(document, dict):
            message = f"`kubectl get {' '.join(arguments)}` answered with no object"
            raise ClusterError(message)
        return document

    def wait_for(
        self,
        what: str,
        ready: Callable[[], bool],
        *,
        timeout: float = COMMAND_SECONDS,
        poll: float = POLL_SECONDS,
        show: Callable[[], object] | None = None,
    ) -> None:
        """Wait until `ready()`, or raise `DeadlineError`: what did not happen, and what is so."""
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                state = f"; instead: {show()}" if show else ""
                message = f"{what}: not within {timeout:.0f} s{state}"
                raise DeadlineError(message)
            time.sleep(poll)

    def wait_until_gone(self, *what: str, timeout: float = 120.0) -> None:
        """Wait until `kubectl get WHAT` finds nothing; what stays is told with its conditions."""
        left: dict[str, object] = {}

        def gone() -> bool:
            left.clear()
            for each in self.get_json(*what)["items"]:
                left[each["metadata"]["name"]] = each.get("status", {}).get("conditions")
            return not left

        self.wait_for(f"{' '.join(what)} are gone", gone, timeout=timeout, show=lambda: left)

    def service_ip(self, namespace: str, name: str) -> str:
        """Return a Service's cluster address, which this machine can reach on our own node."""
        return str(self.get_json("service", name, "--namespace", namespace)["spec"]["clusterIP"])

    def kubeconfig_for(self, namespace: str, account: str, *, duration: str = "2h") -> Path:
        """Write a kubeconfig that speaks as a service account, to run a program under its RBAC."""
        token = self.kubectl(
            "create", "token", account, "--namespace", namespace, f"--duration={duration}"
        ).stdout.strip()
        shown = self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        document = json.loads(shown.stdout)
        document["users"] = [{"name": account, "user": {"token": token}}]
        for context in document["contexts"]:
            context["context"]["user"] = account
            context["context"]["namespace"] = namespace
        path = self.dir / f"{namespace}.{account}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def create_volumes(self, prefix: str, count: int = 1, *, size: str = "1Gi") -> None:
        """Make `count` persistent volumes that any claim without a storage class can bind.

        They are folders of the node, writable by every user and removed with the cluster. Clusters
        that somebody else runs have a provisioner of their own, and get none.
        """
        if self.spec is None:
            return
        for index in range(count):
            name = f"{prefix}-{index}"
            folder = self.layout.volumes / name
            folder.mkdir(parents=True)
            folder.chmod(0o777)
            self.apply(persistent_volume(name, folder, size))

    def load_images(self, *images: str | BuiltImage) -> None:
        """Make images of the local image builder available to this cluster's pods."""
        # Imported here: it is by far the largest part, and few callers need it.
        from e2e.cluster.images import load_images

        load_images(self, images)

    def audit_events(
        self,
        *,
        since: datetime | None = None,
        user: str = "",
        user_agent: str = "",
        writes_only: bool = False,
    ) -> list[AuditEvent]:
        """Return the requests the API server has answered, oldest first.

        An event is written just after its answer, so poll where the last request matters.

        Args:
            since: leave out what was received before this moment.
            user: leave out users whose name does not start with this.
            user_agent: leave out clients whose User-Agent does not start with this.
            writes_only: leave out everything that only reads.
        """
        events = read_audit(self.layout.audit_log)
        return [
            event
            for event in events
            if (since is None or event.received >= since)
            and event.user.startswith(user)
            and event.user_agent.startswith(user_agent)
            and (event.writes or not writes_only)
        ]

    @property
    def _kubectl_cache(self) -> Path:
        return Layout(self.dir).kubectl_cache

    def _program(self, name: str) -> Path:
        found = None if self.spec else shutil.which(name)
        return Path(found) if found else program(name)


def persistent_volume(name: str, folder: Path, size: str) -> dict[str, Any]:
    """Return a persistent volume that is a folder of the one node."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }
