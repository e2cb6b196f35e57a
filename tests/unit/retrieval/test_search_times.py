"""What is told of searches of late: of the last seconds, or of the last few."""

from prometheus_client import CollectorRegistry

from ullage_runtime.retrieval.metrics import (
    LEAST_RECENT,
    RECENT_LIMIT_SECONDS,
    RECENT_SECONDS,
    RetrievalMetrics,
)


def test_where_much_is_searched_what_is_told_is_of_the_last_seconds() -> None:
    now = [0.0]
    metrics = RetrievalMetrics(CollectorRegistry(), lambda: now[0])
    for number in range(400):
        now[0] = number / 20
        metrics.searched("notes", {"query": 1.0 if now[0] < 10 else 0.002})
    count, p95 = metrics.recent("notes")
    assert count == RECENT_SECONDS * 20 + 1
    assert p95 == 0.002


def test_where_little_is_searched_the_last_few_are_told_of_unless_they_are_old() -> None:
    now = [0.0]
    metrics = RetrievalMetrics(CollectorRegistry(), lambda: now[0])
    for number in range(60):
        now[0] = float(number)
        metrics.searched("notes", {"query": 0.5 if number < 40 else 0.002})
    assert metrics.recent("notes") == (LEAST_RECENT, 0.002)
    now[0] += RECENT_LIMIT_SECONDS - 10
    assert metrics.recent("notes") == (11, 0.002)
    now[0] += RECENT_LIMIT_SECONDS
    assert metrics.recent("notes") == (0, None)
