"""How many findings are looked at again, and in which order they come then."""

import pytest

from ullage_api.kinds.vector_collection import RerankSettings
from ullage_runtime.retrieval.ranking import in_new_order, ranked_of
from ullage_runtime.retrieval.searching import Hit


@pytest.mark.parametrize(
    ("given", "limit", "expected"),
    [
        ({}, 1, 20),
        ({}, 10, 50),
        ({}, 100, 200),
        ({}, 900, 900),
        ({"factor": 2}, 30, 60),
        ({"max": 7}, 3, 7),
        ({"min": 300}, 1, 300),
    ],
)
def test_a_few_times_as_many_are_looked_at_as_are_wanted_within_bounds(
    given: dict[str, int], limit: int, expected: int
) -> None:
    settings = RerankSettings.model_validate({"modelDeployment": "r", **given})
    assert ranked_of(settings, limit) == expected


def test_findings_without_a_text_come_last_and_equals_stay_in_their_order() -> None:
    hits = [Hit(n, 1.0 / n, {}, {}) for n in range(1, 5)]
    ordered = in_new_order(hits, [None, 0.5, 0.9, 0.5])
    assert [(hit.id, hit.score) for hit in ordered] == [(3, 0.9), (2, 0.5), (4, 0.5), (1, 0.0)]
    assert ordered[0].parts is not None
    assert ordered[0].parts["fused"].rank == 3
