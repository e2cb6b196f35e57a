"""Runs: which texts of a batch are filled up to the same length."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.errors import InsufficientMemory
from ullage_runtime.engines.onnx.session import BATCH, RUN_TOKENS, runs_of, tried_in_halves


def lengths(*texts: int) -> list[list[int]]:
    return [[len(text) for text in run] for run in runs_of([[0] * length for length in texts])]


def test_texts_of_like_length_are_computed_together_and_others_apart() -> None:
    assert lengths(8, 8, 9, 9) == [[8, 8, 9, 9]]
    assert lengths(8, 8, 200, 210) == [[8, 8], [200, 210]]
    assert lengths(300, 310) == [[300], [310]]
    assert lengths(4000) == [[4000]]
    assert lengths() == []


@given(st.lists(st.integers(1, 2 * BATCH), max_size=64).map(sorted))
def test_no_text_is_lost_and_no_run_is_filled_up_beyond_its_limits(texts: list[int]) -> None:
    runs = lengths(*texts)
    assert [length for run in runs for length in run] == texts
    for run in runs:
        assert len(run) == 1 or len(run) * max(run) <= BATCH
        assert all(
            place * (after - before) <= RUN_TOKENS
            for place, (before, after) in enumerate(itertools.pairwise(run), start=1)
        )


def test_what_takes_too_much_memory_is_tried_once_more_in_halves_and_then_refused() -> None:
    tried: list[int] = []

    def compute(texts: Sequence[Sequence[int]]) -> list[bytes]:
        tried.append(len(texts))
        if len(texts) > 4:
            raise MemoryError
        return [bytes(text) for text in texts]

    texts = [[number] for number in range(7)]
    assert tried_in_halves(compute, texts) == [bytes(text) for text in texts]
    assert tried == [7, 4, 3]
    with pytest.raises(InsufficientMemory, match="no memory for 5 texts of up to 1 tokens"):
        tried_in_halves(compute, [[0]] * 9)
    assert tried == [7, 4, 3, 9, 5]
