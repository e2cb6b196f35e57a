"""Addresses and ports that nobody else on this machine uses."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from e2e.cluster.errors import ClusterError
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

__all__ = [
    "Ranges",
    "choose_slot",
    "connect",
    "disconnect",
    "first_address",
    "free_ports",
    "routes",
]

SLOTS = 64
REQUEST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Ranges:
    """The addresses of the node in one slot: its link to the machine, its pods and its Services."""

    slot: int

    @property
    def link(self) -> str:
        """The range of the link between machine and node."""
        return f"10.213.{self.slot}.0/30"

    @property
    def machine_address(self) -> str:
        """The machine's end of the link."""
        return f"10.213.{self.slot}.1"

    @property
    def node_address(self) -> str:
        """The node's end of the link."""
        return f"10.213.{self.slot}.2"

    @property
    def pods(self) -> str:
        """The range of pod addresses."""
        return f"10.214.{self.slot}.0/24"

    @property
    def services(self) -> str:
        """The range of Service addresses."""
        return f"10.215.{self.slot}.0/24"

    @property
    def machine_link(self) -> str:
        """The name of the link's end on the machine."""
        return f"ullage{self.slot}"

    def overlaps(self, network: str) -> bool:
        """Whether any of these ranges shares an address with `network`."""
        other = ipaddress.ip_network(network, strict=False)
        return any(
            ipaddress.ip_network(own).overlaps(other)
            for own in (self.link, self.pods, self.services)
        )


def choose_slot(taken: Collection[int], routed: Iterable[str]) -> Ranges:
    """Return the ranges of the first slot that is not taken and overlaps with no routed network."""
    networks = list(routed)
    for slot in range(SLOTS):
        ranges = Ranges(slot)
        if slot not in taken and not any(ranges.overlaps(network) for network in networks):
            return ranges
    message = f"all {SLOTS} address ranges for nodes are in use on this machine"
    raise ClusterError(message)


def routes() -> list[str]:
    """Return the IPv4 networks this machine has routes to, the default route left out."""
    shown = json.loads(run(["ip", "-json", "-4", "route", "show"]).stdout or "[]")
    return [str(each["dst"]) for each in shown if each.get("dst", "default") != "default"]


def connect(ranges: Ranges, pid: int) -> None:
    """Link this machine with the network namespace of process `pid`, and route both ways.

    Pods and Services become reachable from this machine by their own addresses.
    """
    machine, node = ranges.machine_link, "eth0"
    peer = ["peer", "name", node, "netns", str(pid)]
    run(["ip", "link", "add", machine, "type", "veth", *peer])
    run(["ip", "address", "add", f"{ranges.machine_address}/30", "dev", machine])
    run(["ip", "link", "set", machine, "up"])
    inside = ["nsenter", "--target", str(pid), "--net", "ip"]
    run([*inside, "address", "add", f"{ranges.node_address}/30", "dev", node])
    run([*inside, "link", "set", node, "up"])
    run([*inside, "route", "add", "default", "via", ranges.machine_address])
    for network in (ranges.pods, ranges.services):
        run(["ip", "route", "add", network, "via", ranges.node_address, "dev", machine])


def disconnect(ranges: Ranges) -> None:
    """Remove the link, and with it its routes; the kernel may have done so already."""
    if shutil.which("ip") and _exists(ranges.machine_link):
        run(["ip", "link", "delete", ranges.machine_link], check=False)
        if _exists(ranges.machine_link):
            message = f"the network link {ranges.machine_link} cannot be removed"
            raise ClusterError(message)


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Return `count` different ports on which nothing listens at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def first_address(network: str) -> str:
    """Return the first usable address of a range, which Kubernetes gives to its own Service."""
    return str(ipaddress.ip_network(network)[1])


def answers(url: str, *, authority: Path | None = None) -> bool:
    """Whether a server of this machine answers with success at this moment."""
    context = ssl.create_default_context(cafile=str(authority)) if authority else None
    # A proxy that the environment names must not be asked for an address of this machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=REQUEST_SECONDS) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def _exists(link: str) -> bool:
    return run(["ip", "link", "show", link], check=False).returncode == 0
