"""The node: a scheduler, a kubelet and what they need, in namespaces of their own.

All of it, the control plane included, runs inside one set of mount, network and process
namespaces (see `node_init`). Several nodes therefore stand side by side on one machine with the
usual ports and paths, and ending a node's first process ends its containers, mounts, links and
packet filters too.
Only two things are outside and undone by hand: one network link, and one control group.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster import node_config, node_init
from e2e.cluster.binaries import pause_image, program
from e2e.cluster.cache import locked
from e2e.cluster.control_plane import kubectl_command
from e2e.cluster.errors import ClusterError, MissingRequirementError
from e2e.cluster.layout import clusters
from e2e.cluster.network import Ranges, answers, choose_slot, connect, disconnect, routes
from e2e.cluster.packages import NODE_PROGRAMS, SYSTEM_PATH, cni_folder, require
from e2e.cluster.processes import ProcessRecord, run, start, start_time, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2e.cluster.certificates import Authority
    from e2e.cluster.control_plane import ControlPlane
    from e2e.cluster.layout import Layout, Spec

__all__ = ["Node", "ctr", "launcher"]

API_PORT = 6443
SLOT_LOCK_SECONDS = 60.0
INIT_SECONDS = 20.0
CONTAINERD_SECONDS = 30.0
READY_SECONDS = 90.0
DNS_SECONDS = 30.0
CGROUP_SECONDS = 10.0
INIT_RECORD = "node-init"
NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Node:
    """Starts the one node of a cluster."""

    layout: Layout
    spec: Spec
    authority: Authority

    @staticmethod
    def require() -> None:
        """Raise `MissingRequirementError` unless this machine can run a node."""
        if platform.system() != "Linux":
            message = "a node needs Linux; set ULLAGE_E2E_KUBECONFIG to use another cluster"
            raise MissingRequirementError(message)
        if os.geteuid() != 0:
            message = "a node needs root; set ULLAGE_E2E_KUBECONFIG to use another cluster"
            raise MissingRequirementError(message)
        require(NODE_PROGRAMS, purpose="a node")
        trial = run(["unshare", *NAMESPACES, "true"], check=False, env=_environment())
        if trial.returncode != 0:
            message = f"a node needs namespaces of its own: {trial.stderr.strip()}"
            raise MissingRequirementError(message)

    @classmethod
    def reserve(cls, layout: Layout, wanted: Spec, authority: Authority) -> Node:
        """Take free address ranges, make the namespaces and connect them with this machine."""
        for path in node_init.PRIVATE_FOLDERS.values():
            if layout.root.is_relative_to(path):
                message = f"a node's folder may not lie in {path}: set ULLAGE_CACHE_DIR"
                raise ClusterError(message)
        with locked("slots", timeout=SLOT_LOCK_SECONDS):
            taken = {spec.slot for _, spec in clusters()}
            ranges = choose_slot(taken, routes())
            spec = replace(
                wanted,
                slot=ranges.slot,
                address=ranges.node_address,
                port=wanted.port or API_PORT,
                service_range=ranges.services,
            )
            layout.save(spec)
            node = cls(layout, spec, authority)
            connect(ranges, node._make_namespaces())
        return node

    @property
    def launcher(self) -> list[str]:
        """What stands before a command to run it inside the node."""
        return launcher(self.layout)

    @property
    def name(self) -> str:
        """The node's name in Kubernetes."""
        return f"ullage-{self.spec.name}"

    @property
    def cgroup(self) -> str:
        """The control group of all pods, from the root of each hierarchy."""
        return _cgroup(self.spec)

    @property
    def ranges(self) -> Ranges:
        """The node's addresses."""
        return Ranges(self.spec.slot)

    def start(self, control_plane: ControlPlane) -> None:
        """Start the node's programs, and return once it is ready for pods."""
        self._prepare(control_plane)
        containerd = self._start(
            "containerd", ["containerd", "--config", str(self.layout.config / "containerd.toml")]
        )
        wait_until(
            "containerd answers",
            self._containerd_answers,
            timeout=CONTAINERD_SECONDS,
            processes=[containerd],
            poll=0.2,
        )
        run([*ctr(self.layout), "images", "import", pause_image()])
        _make_cgroups(self.cgroup)
        config = self.layout.config
        scheduler_flags = [f"--kubeconfig={config}/kube-scheduler.kubeconfig"]
        scheduler_flags += ["--leader-elect=false", "--secure-port=0"]
        processes = [
            containerd,
            self._start("kube-scheduler", [program("kube-scheduler"), *scheduler_flags]),
            self._start("kubelet", [program("kubelet"), *self._kubelet_flags()]),
            self._start("kube-proxy", [program("kube-proxy"), f"--config={config}/proxy.json"]),
            self._start("coredns", [program("coredns"), "-conf", str(config / "Corefile")]),
        ]
        wait_until(
            f"node {self.name} is ready",
            self._is_ready,
            timeout=READY_SECONDS,
            processes=processes,
            poll=0.3,
        )
        ready = f"http://{self.spec.address}:{node_config.DNS_READY_PORT}/ready"
        wait_until(
            "names of the cluster resolve",
            lambda: answers(ready),
            timeout=DNS_SECONDS,
            processes=processes,
        )

    @staticmethod
    def clean_up(spec: Spec) -> None:
        """Undo what a node whose processes have ended left outside its namespaces."""
        if spec.slot >= 0:
            disconnect(Ranges(spec.slot))
        _remove_cgroups(_cgroup(spec))

    def _make_namespaces(self) -> int:
        """Start the node's first process in new namespaces, and return its pid on this machine."""
        script = Path(node_init.__file__)
        outer = start(
            "node-namespaces",
            ["unshare", *NAMESPACES, sys.executable, "-I", script, self.layout.node],
            log=self.layout.logs / "node-init.log",
            records=self.layout.records,
            env=_environment(),
        )
        ready = self.layout.node / node_init.READY
        wait_until(
            "the node's namespaces are made",
            ready.exists,
            timeout=INIT_SECONDS,
            processes=[outer],
        )
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        pid = int(children[0])
        ProcessRecord(INIT_RECORD, pid, start_time(pid), outer.log).save(self.layout.records)
        return pid

    def _prepare(self, control_plane: ControlPlane) -> None:
        config, pki, ranges = self.layout.config, self.layout.pki, self.ranges
        hosts = [f"IP:{self.spec.address}", f"DNS:{self.name}"]
        self.authority.issue("kubelet-server", user=f"system:node:{self.name}", hosts=hosts)
        control_plane.write_kubeconfig(
            "kubelet", user=f"system:node:{self.name}", groups=["system:nodes"]
        )
        control_plane.write_kubeconfig("kube-scheduler", user="system:kube-scheduler")
        proxy = control_plane.write_kubeconfig("kube-proxy", user="system:kube-proxy")
        dns = control_plane.write_kubeconfig("coredns", user="coredns", groups=["system:masters"])
        cni = config / "cni"
        cni.mkdir()
        files = {
            "containerd.toml": node_config.containerd_config(
                cni_plugins=cni_folder(), cni_folder=cni
            ),
            "cni/10-ullage.conflist": node_config.cni_config(ranges.pods),
            "kubelet.json": node_config.kubelet_config(pki=pki, config=config, cgroup=self.cgroup),
            "proxy.json": node_config.proxy_config(
                kubeconfig=proxy, pod_range=ranges.pods, node=self.name
            ),
            "Corefile": node_config.corefile(kubeconfig=dns, address=self.spec.address),
            "resolv.conf": f"nameserver {node_init.DNS_ADDRESS}\n",
        }
        for name, text in files.items():
            (config / name).write_text(text)

    def _kubelet_flags(self) -> list[str]:
        config = self.layout.config
        return [
            f"--config={config}/kubelet.json",
            f"--kubeconfig={config}/kubelet.kubeconfig",
            f"--node-ip={self.spec.address}",
            f"--hostname-override={self.name}",
        ]

    def _is_ready(self) -> bool:
        get_node = ["get", "node", self.name, "-o", "json"]
        asked = run([*kubectl_command(self.layout), *get_node], check=False, timeout=20)
        if asked.returncode != 0:
            return False
        document = json.loads(asked.stdout)
        conditions = document["status"].get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return ready and not document["spec"].get("taints")

    def _containerd_answers(self) -> bool:
        return run([*ctr(self.layout), "version"], check=False).returncode == 0

    def _start(self, name: str, command: Sequence[str | Path]) -> ProcessRecord:
        return start(
            name,
            [*self.launcher, *command],
            log=self.layout.logs / f"{name}.log",
            records=self.layout.records,
            env=_environment(),
        )


def launcher(layout: Layout) -> list[str]:
    """Return what stands before a command to run it inside the node that lies in `layout`."""
    for record in ProcessRecord.load_all(layout.records):
        if record.name == INIT_RECORD and record.alive:
            return ["nsenter", "--target", str(record.pid), "--mount", "--net", "--pid", "--"]
    message = f"no node runs in {layout.root}"
    raise ClusterError(message)


def ctr(layout: Layout) -> list[str]:
    """Return containerd's client, speaking to the node's containerd about Kubernetes' images."""
    socket = node_config.CONTAINERD_SOCKET
    return [*launcher(layout), "ctr", "--address", socket, "--namespace", "k8s.io"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": SYSTEM_PATH}


def _cgroup(spec: Spec) -> str:
    return f"/ullage-{spec.name}"


def _hierarchies() -> list[Path]:
    """Return where control group hierarchies are mounted: one, or with version 1 one each."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(fields[1]) for fields in mounts if fields[2] in {"cgroup", "cgroup2"}]


def _make_cgroups(name: str) -> None:
    """Make the group in every hierarchy; the kubelet makes its own groups only below it."""
    for hierarchy in _hierarchies():
        folder = hierarchy / name.lstrip("/")
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            # With version 1 a new group has no processors and no memory until it is told.
            own, parent = folder / setting, hierarchy / setting
            if own.exists() and parent.exists() and not own.read_text().strip():
                own.write_text(parent.read_text())


def _remove_cgroups(name: str) -> None:
    """Remove the group from every hierarchy, the deepest first, once the kernel lets go of it."""
    deadline = time.monotonic() + CGROUP_SECONDS
    for hierarchy in _hierarchies():
        top = hierarchy / name.lstrip("/")
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if top.exists() and time.monotonic() > deadline:
                message = f"the control group {top} cannot be removed"
                raise ClusterError(message)
