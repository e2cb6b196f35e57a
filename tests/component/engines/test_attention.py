"""What we change in ggml's attention, against the same in double precision."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.ggml_attention import Attention, Floats, computed, exact, variants

VARIANTS = variants()
CELLS = 700

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda path: path.stem)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the changes are for x86")
def test_there_is_a_variant_to_look_at() -> None:
    assert VARIANTS


def asked(
    rows: list[int], *, heads: int = 4, shared: int = 1, size: int = 64, seed: int = 1
) -> Attention:
    """Return what sequences with so many new rows each ask, their cells among each other's."""
    random = np.random.default_rng(seed)

    def values(*shape: int) -> Floats:
        made: Floats = random.standard_normal(shape).astype(np.float32)
        return made

    owners = random.integers(0, len(rows) + 1, CELLS)  # the last is nobody who asks
    seen = np.zeros((sum(rows), CELLS), dtype=bool)
    at = 0
    for sequence, count in enumerate(rows):
        own = np.flatnonzero(owners == sequence)
        for row in range(count):
            seen[at, own[: len(own) - count + row + 1]] = True
            at += 1
    keys = heads // shared
    return Attention(
        q=values(sum(rows), heads, size),
        k=values(CELLS, keys, size),
        v=values(CELLS, keys, size),
        seen=seen,
    )


def check(one: Attention, variant: Path, threads: int = 2) -> None:
    np.testing.assert_allclose(computed(one, variant, threads), exact(one), atol=2e-5)


@each_variant
@pytest.mark.parametrize(
    "rows",
    [[1], [1] * 8, [2, 1, 3], [1, 4, 1], [5], [8, 1], [1, 9, 1], [1, 70], [3, 40, 8]],
    ids=str,
)
def test_rows_of_several_sequences_see_what_is_theirs(variant: Path, rows: list[int]) -> None:
    check(asked(rows), variant)


@each_variant
@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("shared", [1, 2, 4])
def test_heads_may_share_keys_and_are_shared_out_to_threads(
    variant: Path, threads: int, shared: int
) -> None:
    check(asked([1, 6, 1], shared=shared), variant, threads)
    check(asked([1], shared=shared), variant, threads)


@each_variant
@pytest.mark.parametrize("size", [40, 72, 80, 128, 256])
def test_heads_may_have_any_size(variant: Path, size: int) -> None:
    check(asked([1, 5, 1, 20], size=size), variant)


@each_variant
@pytest.mark.parametrize("rows", [[1, 1], [6], [30]], ids=str)
def test_biases_softcaps_and_sinks_count(variant: Path, rows: list[int]) -> None:
    plain = asked(rows, heads=6)
    check(replace(plain, max_bias=8.0), variant)
    check(replace(plain, logit_softcap=3.0), variant)
    check(replace(plain, sinks=np.linspace(-2, 6, 6, dtype=np.float32)), variant)
