"""What fails again and again is left alone."""

from ullage_runtime.retrieval.breakers import FAILURES, PAUSE_SECONDS, Breakers, Dependency


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_find_out() -> None:
    clock = Clock()
    breakers = Breakers(clock)
    breaker = breakers.of(Dependency.STORE, "notes")
    for _ in range(FAILURES - 1):
        breaker.failed(OSError("away"))
    breaker.succeeded()
    for _ in range(FAILURES):
        assert breaker.left() == 0.0
        breaker.failed(OSError("away"))
    assert breaker.left() == PAUSE_SECONDS
    clock.now += PAUSE_SECONDS
    assert breaker.left() == 0.0
    assert breaker.left() == PAUSE_SECONDS, "the one who tries is alone"
    clock.now += PAUSE_SECONDS
    assert breaker.left() == 0.0, "whoever tried and left does not leave it shut for ever"
    breaker.succeeded()
    assert breaker.left() == 0.0
    assert not breaker.is_open


def test_each_dependency_has_its_own_and_metrics_tell_them() -> None:
    breakers = Breakers()
    for _ in range(FAILURES):
        breakers.of(Dependency.STORE, "notes").failed(OSError("away"))
    assert not breakers.of(Dependency.EMBEDDER, "notes").is_open
    (metric,) = breakers.collect()
    assert {(s.labels["dependency"], s.labels["name"]): s.value for s in metric.samples} == {
        ("store", "notes"): 1,
        ("embedder", "notes"): 0,
    }
