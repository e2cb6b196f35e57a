from __future__ import annotations

import http.server
import threading

import pytest

from e2e.cluster.errors import ClusterError
from e2e.cluster.network import Ranges, answers, choose_slot, first_address, free_ports


def test_the_first_free_slot_is_taken() -> None:
    assert choose_slot({0, 1}, []).slot == 2


@pytest.mark.parametrize("network", ["10.213.0.0/24", "10.214.0.128/25", "10.215.0.7/32"])
def test_a_slot_that_overlaps_with_a_route_of_this_machine_is_left_out(network: str) -> None:
    assert choose_slot(set(), [network]).slot == 1


def test_a_machine_without_free_ranges_is_told_so() -> None:
    with pytest.raises(ClusterError, match="in use"):
        choose_slot(set(), ["10.0.0.0/8"])


def test_two_slots_share_no_address() -> None:
    first, second = Ranges(0), Ranges(1)
    for network in (second.link, second.pods, second.services):
        assert not first.overlaps(network)


def test_ports_are_given_out_once() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8


def test_the_first_address_of_a_range_is_the_api_servers() -> None:
    assert first_address("10.96.0.0/16") == "10.96.0.1"


def test_a_port_where_nobody_listens_does_not_answer() -> None:
    assert not answers(f"http://127.0.0.1:{free_ports(1)[0]}/readyz")


def test_only_success_is_an_answer() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ready" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert answers(f"{url}/ready")
            assert not answers(f"{url}/starting")
        finally:
            server.shutdown()
            thread.join()
