"""What a run on a GPU is held against, and what it says where there is none."""

import pytest

from bench.gpu import verdicts
from bench.gpu.machine import boards, missing
from bench.gpu.verdicts import Board

MIB = 1 << 20
GIB = 1 << 30


def test_what_is_missing_is_said_with_what_to_do() -> None:
    def no_driver() -> list[object]:
        raise OSError("NVML Shared Library Not Found")

    wanting = missing(no_driver, lambda: False)
    assert len(wanting) == 2
    assert "NVML Shared Library Not Found" in wanting[0]
    assert "Dockerfile.runtime" in wanting[1]
    assert missing(list, lambda: True) == [
        "no GPU: the driver lists none; run this where nvidia-smi lists one"
    ]
    assert missing(lambda: ["gpu0"], lambda: True) == []


def test_devices_are_those_that_the_drivers_tool_lists() -> None:
    theirs = boards([["NVIDIA H100", "81559"]])
    assert verdicts.devices([Board("NVIDIA H100", 81559 * MIB)], theirs).holds
    assert verdicts.devices([], theirs).holds is False
    assert verdicts.devices([Board("NVIDIA H100", 40 * GIB)], theirs).holds is False


@pytest.mark.parametrize(
    ("ledger", "holds"), [(1000, True), (1029, True), (971, True), (1035, False), (960, False)]
)
def test_the_ledger_is_held_against_the_driver(ledger: int, *, holds: bool) -> None:
    assert verdicts.ledger("load", GIB, GIB + 1000 * MIB, ledger * MIB).holds is holds


def test_small_models_may_be_off_by_some_mebibytes() -> None:
    assert verdicts.ledger("load", 0, 100 * MIB, 115 * MIB).holds
    assert verdicts.returned("eviction", GIB, GIB + 15 * MIB).holds
    assert verdicts.returned("eviction", GIB, GIB + 17 * MIB).holds is False


def test_a_promotion_that_did_not_happen_is_no_success() -> None:
    assert verdicts.promotion(5.0, 0.4).holds
    assert verdicts.promotion(5.0, 0.6).holds is False
    assert verdicts.promotion(5.0, None).holds is None
    assert verdicts.swap(50, 0).holds
    assert verdicts.swap(50, 1).holds is False
    assert verdicts.throttling(["power_cap"], ["power_cap", "thermal"]).holds
    assert verdicts.throttling(["unheard of"], ["power_cap"]).holds is False


def test_the_page_has_a_line_for_each() -> None:
    found = [verdicts.swap(50, 1), verdicts.promotion(5.0, None)]
    page = verdicts.markdown({"gpu": "NVIDIA H100"}, found)
    assert "# On NVIDIA H100" in page
    assert "| swap under requests | **fails** | 1 of 50 failed | none fails |" in page
    assert "| promotion | not measured |" in page
