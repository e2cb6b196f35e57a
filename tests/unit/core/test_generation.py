"""Leases and generations."""

import pytest

from ullage_runtime.core.generation import Generation, GenerationError


def test_a_leased_generation_is_never_unloaded() -> None:
    generation = Generation("chat/1#1", "1")
    generation.acquire()
    generation.drain()
    assert not generation.may_unload
    generation.release()
    assert generation.may_unload


def test_an_active_generation_stays_without_leases() -> None:
    assert not Generation("chat/1#1", "1").may_unload


def test_a_draining_generation_gives_no_leases() -> None:
    generation = Generation("chat/1#1", "1")
    generation.drain()
    with pytest.raises(GenerationError):
        generation.acquire()


def test_a_lease_is_given_back_once() -> None:
    generation = Generation("chat/1#1", "1")
    generation.acquire()
    generation.release()
    with pytest.raises(GenerationError):
        generation.release()


def test_a_lease_outlives_an_engine_that_died() -> None:
    generation = Generation("chat/1#1", "1")
    generation.acquire()
    generation.end()
    generation.release()
    assert generation.leases == 0
