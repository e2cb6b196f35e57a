"""The configuration of a node's programs, as plain functions from addresses and paths to text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from e2e.cluster.binaries import PAUSE_REFERENCE
from e2e.cluster.node_init import DNS_ADDRESS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "CONTAINERD_SOCKET",
    "DNS_READY_PORT",
    "cni_config",
    "containerd_config",
    "corefile",
    "kubelet_config",
    "proxy_config",
]

# Paths inside the node's own mount namespace.
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
DNS_READY_PORT = 8181


def containerd_config(*, cni_plugins: Path, cni_folder: Path) -> str:
    """Return containerd's configuration.

    Scores for the out-of-memory killer are never lowered: that needs a capability which a
    container or a small virtual machine often lacks.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"

[grpc]
address = "{CONTAINERD_SOCKET}"

[{cri}]
sandbox_image = "{PAUSE_REFERENCE}"
restrict_oom_score_adj = true

[{cri}.cni]
bin_dir = "{cni_plugins}"
conf_dir = "{cni_folder}"

[{cri}.containerd]
snapshotter = "overlayfs"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def cni_config(pod_range: str) -> str:
    """Return the pods' network: a link and a route per pod.

    Routed rather than bridged, because a bridge carries the answers of a pod on the same node past
    the address translation of Services unless a kernel module makes it stop.
    """
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": pod_range}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": "ullage", "plugins": plugins}, indent=2)


def kubelet_config(*, pki: Path, config: Path, cgroup: str) -> str:
    """Return the kubelet's configuration."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "tlsCertFile": f"{pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{config}/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # The disk is the developer's: nearly full is not our business, and images come from no
        # registry, so one that is collected is lost.
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    return json.dumps(document, indent=2)


def proxy_config(*, kubeconfig: Path, pod_range: str, node: str) -> str:
    """Return kube-proxy's configuration; connection tracking stays as the machine has it."""
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": pod_range,
        "hostnameOverride": node,
        "oomScoreAdj": 0,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return json.dumps(document, indent=2)


def corefile(*, kubeconfig: Path, address: str) -> str:
    """Return CoreDNS's configuration: names of the cluster, and a quick no to every other.

    Nothing is cached, so that a test sees a Service's address the moment it changes.
    """
    return f"""\
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {DNS_ADDRESS}
    errors
    ready {address}:{DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
    loadbalance
}}

.:53 {{
    bind {DNS_ADDRESS}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
