"""The control plane: etcd, the API server, and the controllers (garbage collection, Jobs, …)."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2e.cluster.binaries import program
from e2e.cluster.certificates import Authority, KeyPair
from e2e.cluster.network import answers, first_address, free_ports
from e2e.cluster.processes import ProcessRecord, run, start, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from e2e.cluster.layout import Layout, Spec

__all__ = ["ControlPlane", "kubeconfig_document", "kubectl_command"]

ETCD_SECONDS = 30.0
API_SERVER_SECONDS = 90.0
CONTROLLERS_SECONDS = 60.0

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    # One event per request, written when its answer is known.
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "omitManagedFields": True,
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Starts the control plane of one cluster.

    `launcher` stands before every command: empty on the machine itself, or what enters the node's
    namespaces.
    """

    layout: Layout
    spec: Spec
    authority: Authority
    launcher: Sequence[str] = ()

    def start(self) -> None:
        """Start every part, and return once the API answers and default accounts exist."""
        client, peer = free_ports(2)
        etcd = self._start("etcd", self.etcd_flags(client, peer))
        etcd_url = f"http://127.0.0.1:{client}"
        server = self._start("kube-apiserver", self.api_server_flags(etcd_url))
        wait_until(
            f"the API server answers on {self.spec.server}",
            self.answers,
            timeout=API_SERVER_SECONDS,
            processes=[etcd, server],
        )
        if self.spec.controllers:
            record = self._start("kube-controller-manager", self.controller_flags())
            wait_until(
                "the controllers have made the default service account",
                self._has_default_account,
                timeout=CONTROLLERS_SECONDS,
                processes=[etcd, server, record],
                poll=0.2,
            )

    def prepare(self) -> None:
        """Issue certificates, and write configuration files and the administrator's kubeconfig."""
        addresses = {"127.0.0.1", self.spec.address, first_address(self.spec.service_range)}
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        hosts = [f"IP:{each}" for each in sorted(addresses)] + [f"DNS:{each}" for each in names]
        self.authority.issue("apiserver", user="kube-apiserver", hosts=hosts)
        self.authority.issue("apiserver-kubelet", user="apiserver", groups=["system:masters"])
        self.authority.signing_key("service-accounts")
        self.write_kubeconfig("admin", user="ullage-admin", groups=["system:masters"])
        self.write_kubeconfig("kube-controller-manager", user="system:kube-controller-manager")
        self.layout.config.joinpath("audit-policy.json").write_text(json.dumps(AUDIT_POLICY))

    def write_kubeconfig(self, name: str, *, user: str, groups: Sequence[str] = ()) -> Path:
        """Issue a certificate for `user` and write a kubeconfig that carries it."""
        pair = self.authority.issue(name, user=user, groups=groups)
        admin = name == "admin"
        path = self.layout.kubeconfig if admin else self.layout.config / f"{name}.kubeconfig"
        document = kubeconfig_document(self.spec.server, self.authority.own.certificate, pair)
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=2))
        return path

    def etcd_flags(self, client: int, peer: int) -> list[str]:
        """Return etcd's flags. Data outlives nothing here, so it is never synced to disk."""
        peer_url = f"http://127.0.0.1:{peer}"
        return [
            "--name=ullage",
            f"--data-dir={self.layout.etcd}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=ullage={peer_url}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def api_server_flags(self, etcd_url: str) -> list[str]:
        """Return the API server's flags."""
        pki, spec = self.layout.pki, self.spec
        flags = [
            f"--etcd-servers={etcd_url}",
            f"--bind-address={spec.address}",
            f"--advertise-address={spec.address}",
            f"--secure-port={spec.port}",
            f"--service-cluster-ip-range={spec.service_range}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-kubelet.key",
            f"--kubelet-certificate-authority={pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/service-accounts.key",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
        ]
        if spec.shape == "control-plane":
            # Endpoints may not name a loopback address, and nothing here follows them anyway.
            flags.append("--endpoint-reconciler-type=none")
        if spec.audit:
            flags += [
                f"--audit-policy-file={self.layout.config}/audit-policy.json",
                f"--audit-log-path={self.layout.audit_log}",
                "--audit-log-maxsize=0",
            ]
        return flags

    def controller_flags(self) -> list[str]:
        """Return the controller manager's flags."""
        pki = self.layout.pki
        return [
            f"--kubeconfig={self.layout.config}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={pki}/service-accounts.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials=true",
            f"--flex-volume-plugin-dir={self.layout.root}/volume-plugins",
            "--leader-elect=false",
            "--secure-port=0",
        ]

    def answers(self) -> bool:
        """Whether the API server says that it is ready."""
        authority = self.authority.own.certificate
        return answers(f"{self.spec.server}/readyz", authority=authority)

    def _has_default_account(self) -> bool:
        asked = run(
            [*kubectl_command(self.layout), "get", "serviceaccount", "default"],
            check=False,
            timeout=20,
        )
        return asked.returncode == 0

    def _start(self, name: str, flags: Sequence[str]) -> ProcessRecord:
        return start(
            name,
            [*self.launcher, program(name), *flags],
            log=self.layout.logs / f"{name}.log",
            records=self.layout.records,
        )


def kubectl_command(layout: Layout) -> list[str]:
    """Return the command that runs kubectl as this cluster's administrator."""
    flags = [f"--kubeconfig={layout.kubeconfig}", f"--cache-dir={layout.kubectl_cache}"]
    return [str(program("kubectl")), *flags]


def kubeconfig_document(server: str, authority: Path, pair: KeyPair) -> dict[str, object]:
    """Return a kubeconfig that holds its certificates, so that it works wherever it is copied."""
    cluster = {"server": server, "certificate-authority-data": _encoded(authority)}
    user = {
        "client-certificate-data": _encoded(pair.certificate),
        "client-key-data": _encoded(pair.key),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "ullage",
        "clusters": [{"name": "ullage", "cluster": cluster}],
        "users": [{"name": "ullage", "user": user}],
        "contexts": [{"name": "ullage", "context": {"cluster": "ullage", "user": "ullage"}}],
    }


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
