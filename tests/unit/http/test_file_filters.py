"""OpenAI's filters in Qdrant's language."""

from typing import Any

import pytest

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.file_filters import MAX_DEPTH, filter_of


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"type": "eq", "key": "a", "value": "x"},
            {"must": [{"key": "a", "match": {"value": "x"}}]},
        ),
        (
            {"type": "ne", "key": "a", "value": True},
            {"must_not": [{"key": "a", "match": {"value": True}}]},
        ),
        (
            {"type": "eq", "key": "a", "value": 1.5},
            {"must": [{"key": "a", "range": {"gte": 1.5, "lte": 1.5}}]},
        ),
        (
            {"type": "gte", "key": "a", "value": 2},
            {"must": [{"key": "a", "range": {"gte": 2}}]},
        ),
        (
            {"type": "nin", "key": "a", "value": ["x", "y"]},
            {"must_not": [{"key": "a", "match": {"any": ["x", "y"]}}]},
        ),
        (
            {"type": "or", "filters": [{"type": "eq", "key": "a", "value": 1}]},
            {"should": [{"must": [{"key": "a", "match": {"value": 1}}]}]},
        ),
    ],
)
def test_each_comparison_has_its_counterpart(given: Any, expected: Any) -> None:
    assert filter_of(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"type": "and", "filters": []},
        {"type": "lt", "key": "a", "value": True},
        {"type": "in", "key": "a", "value": []},
        {"type": "eq", "key": "a", "value": None},
        {"type": "like", "key": "a", "value": "x"},
    ],
)
def test_what_is_no_comparison_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="is no filter"):
        filter_of(given)


def test_filters_within_filters_have_an_end() -> None:
    nested: Any = {"type": "eq", "key": "a", "value": 1}
    for _ in range(MAX_DEPTH + 1):
        nested = {"type": "and", "filters": [nested]}
    with pytest.raises(InvalidRequest, match="within each other"):
        filter_of(nested)
