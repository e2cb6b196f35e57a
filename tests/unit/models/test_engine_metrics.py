"""What engines tell becomes series that only grow, whichever engine tells it."""

from dataclasses import replace

from prometheus_client import CollectorRegistry

from ullage_runtime.core.domain import EngineStats
from ullage_runtime.models.engine_metrics import EngineMetrics

BUSY = EngineStats(
    resident_bytes=1,
    requests_running=2,
    requests_waiting=3,
    kv_cells=100,
    kv_cells_running=25,
    steps=4,
    steps_by_width=(1, 2, 0, 0, 0, 0, 0, 0, 0, 1),
    step_widths=305,
    preemptions=1,
    prefix_tokens=7,
)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"model": "guide", **labels})


def test_a_model_that_works_shows_what_it_does_now() -> None:
    registry = CollectorRegistry()
    EngineMetrics(registry).working("guide", "guide/a#1", BUSY, held=5)
    assert value(registry, "ullage_requests_running") == 2
    assert value(registry, "ullage_requests_waiting") == 8
    assert value(registry, "ullage_kv_cache_usage") == 0.25


def test_a_model_that_rests_keeps_its_counts_and_whoever_waits_for_it() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    metrics.working("guide", "guide/a#1", BUSY, held=0)
    metrics.resting("guide", held=6)
    assert value(registry, "ullage_requests_running") == 0
    assert value(registry, "ullage_requests_waiting") == 6
    assert value(registry, "ullage_kv_cache_usage") == 0
    assert value(registry, "ullage_engine_steps_total") == 4


def test_another_engine_goes_on_counting_where_the_last_one_ended() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    metrics.working("guide", "guide/a#1", BUSY, held=0)
    metrics.working("guide", "guide/a#1", replace(BUSY, steps=5, preemptions=2), held=0)
    metrics.resting("guide", held=0)
    metrics.working("guide", "guide/b#2", EngineStats(resident_bytes=1), held=0)
    assert value(registry, "ullage_engine_steps_total") == 5
    metrics.working("guide", "guide/b#2", BUSY, held=0)
    assert value(registry, "ullage_engine_steps_total") == 9
    assert value(registry, "ullage_preemptions_total") == 3
    assert value(registry, "ullage_prefix_cache_hit_tokens_total") == 14
    assert value(registry, "ullage_batch_width_bucket", le="1.0") == 2
    assert value(registry, "ullage_batch_width_bucket", le="256.0") == 6
    assert value(registry, "ullage_batch_width_bucket", le="+Inf") == 8
    assert value(registry, "ullage_batch_width_count") == 8
    assert value(registry, "ullage_batch_width_sum") == 610


def test_a_model_that_is_gone_has_no_series() -> None:
    registry = CollectorRegistry()
    metrics = EngineMetrics(registry)
    metrics.working("guide", "guide/a#1", BUSY, held=0)
    metrics.forget("guide")
    assert value(registry, "ullage_engine_steps_total") is None
