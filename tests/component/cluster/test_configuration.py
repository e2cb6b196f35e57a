from __future__ import annotations

import json
import tomllib
from pathlib import Path

from e2e.cluster.certificates import Authority
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.layout import Layout, Shape, Spec
from e2e.cluster.node_config import (
    CONTAINERD_SOCKET,
    cni_config,
    containerd_config,
    corefile,
    kubelet_config,
    proxy_config,
)

CRI = "io.containerd.grpc.v1.cri"


def flags(*, shape: Shape = "control-plane", audit: bool = True) -> list[str]:
    layout = Layout(Path("/clusters/one"))
    spec = Spec(name="one", shape=shape, address="10.1.2.3", port=7443, audit=audit)
    plane = ControlPlane(layout, spec, Authority(layout.pki))
    return plane.api_server_flags("http://127.0.0.1:2379")


def test_the_api_server_listens_where_its_kubeconfig_points() -> None:
    assert {"--bind-address=10.1.2.3", "--secure-port=7443"} <= set(flags())


def test_the_audit_log_lies_with_the_other_logs() -> None:
    assert "--audit-log-path=/clusters/one/logs/audit.log" in flags()


def test_without_an_audit_no_log_is_written() -> None:
    assert not any("audit" in flag for flag in flags(audit=False))


def test_only_a_node_publishes_the_api_servers_address() -> None:
    lone = "--endpoint-reconciler-type=none"
    assert lone in flags(shape="control-plane")
    assert lone not in flags(shape="node")


def test_containerd_takes_its_pause_image_from_what_we_import() -> None:
    text = containerd_config(cni_plugins=Path("/plugins"), cni_folder=Path("/networks"))
    document = tomllib.loads(text)
    assert document["grpc"]["address"] == CONTAINERD_SOCKET
    cri = document["plugins"][CRI]
    assert cri["sandbox_image"].startswith("docker.io/library/ullage-pause:")
    assert cri["restrict_oom_score_adj"] is True
    assert cri["cni"] == {"bin_dir": "/plugins", "conf_dir": "/networks"}


def test_pods_get_addresses_of_the_nodes_own_range() -> None:
    plugins = json.loads(cni_config("10.9.8.0/24"))["plugins"]
    assert plugins[0]["ipam"]["ranges"] == [[{"subnet": "10.9.8.0/24"}]]
    assert [plugin["type"] for plugin in plugins] == ["ptp", "portmap"]


def test_the_kubelet_keeps_to_its_own_control_group_and_collects_no_image() -> None:
    text = kubelet_config(pki=Path("/pki"), config=Path("/config"), cgroup="/ullage-one")
    document = json.loads(text)
    assert document["cgroupRoot"] == "/ullage-one"
    assert document["imageGCHighThresholdPercent"] == 100
    assert document["authentication"]["anonymous"] == {"enabled": False}


def test_the_proxy_leaves_connection_tracking_as_the_machine_has_it() -> None:
    text = proxy_config(kubeconfig=Path("/kubeconfig"), pod_range="10.9.8.0/24", node="one")
    document = json.loads(text)
    assert document["conntrack"]["maxPerCore"] == 0
    assert document["clusterCIDR"] == "10.9.8.0/24"


def test_names_beyond_the_cluster_are_answered_by_a_block_of_their_own() -> None:
    text = corefile(kubeconfig=Path("/kubeconfig"), address="10.1.2.3")
    ours, others = text.split(".:53 {")
    assert "kubernetes cluster.local" in ours
    assert "NXDOMAIN" not in ours
    assert "NXDOMAIN" in others
