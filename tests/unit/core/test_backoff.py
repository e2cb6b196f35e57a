"""How long to wait before trying again."""

from ullage_runtime.core.backoff import Crashes, load_delay


def test_a_dead_engine_is_restarted_after_half_a_second_doubling_to_thirty() -> None:
    crashes, delays = Crashes(), []
    for _ in range(8):
        crashes = crashes.after_death(lived_seconds=1)
        delays.append(crashes.delay)
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_three_deaths_in_a_row_are_a_loop() -> None:
    crashes = Crashes().after_death(1).after_death(1)
    assert not crashes.is_loop
    assert crashes.after_death(1).is_loop


def test_a_long_healthy_life_forgives_earlier_deaths() -> None:
    crashes = Crashes(deaths=5).after_death(lived_seconds=61)
    assert crashes.deaths == 1


def test_failed_loads_back_off_to_a_minute_and_jitter_only_shortens() -> None:
    assert [load_delay(n, 0.0) for n in (1, 2, 3, 7, 50)] == [1, 2, 4, 60, 60]
    assert load_delay(7, 1.0) == 45
