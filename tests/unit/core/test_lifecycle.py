"""What to do next for a model, as a table of situations."""

import pytest

from ullage_runtime.core.lifecycle import BringUp, Rest, Retire, Situation, Step, next_step

NOW = 100.0


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        pytest.param(Situation("v1", wanted=False), Rest(), id="not wanted and not there"),
        pytest.param(Situation("v1", wanted=False, active="v1"), Retire(), id="no longer wanted"),
        pytest.param(Situation("v1"), BringUp("v1"), id="wanted and not there"),
        pytest.param(Situation("v1", active="v1"), Rest(), id="wanted and there"),
        pytest.param(Situation("v2", active="v1"), BringUp("v2"), id="a new target"),
        pytest.param(
            Situation("v2", active="v1", failed=frozenset({"v2"})),
            Rest(),
            id="a failed target leaves the old one serving",
        ),
        pytest.param(
            Situation("v2", last_good="v1", failed=frozenset({"v2"})),
            BringUp("v1"),
            id="a failed target and a dead old one bring the old one back",
        ),
        pytest.param(
            Situation("v1", failed=frozenset({"v1"})), Rest(), id="nothing that could load"
        ),
        pytest.param(
            Situation("v2", active="v1", retry_at={"v2": 130.0}),
            Rest(130.0),
            id="a passing failure is tried again in time",
        ),
        pytest.param(
            Situation("v2", active="v1", retry_at={"v2": 99.0}),
            BringUp("v2"),
            id="the time to try again has come",
        ),
        pytest.param(Situation("v1", restart_at=105.0), Rest(105.0), id="a dead engine backs off"),
        pytest.param(
            Situation("v2", active="v1", restart_at=105.0),
            BringUp("v2"),
            id="a restart's backoff does not hold up a target while something answers",
        ),
        pytest.param(
            Situation("v2", last_good="v1", retry_at={"v2": 160.0}),
            BringUp("v1"),
            id="the old one comes back while the target must wait",
        ),
        pytest.param(
            Situation("v2", active="v1", last_good="v1", waits=True),
            Rest(),
            id="its turn has not come, and the old one answers",
        ),
        pytest.param(
            Situation("v2", last_good="v1", waits=True),
            BringUp("v1"),
            id="its turn has not come, and the old one comes back",
        ),
        pytest.param(
            Situation("v2", waits=True),
            BringUp("v2"),
            id="its turn has not come, and there is nothing else",
        ),
        pytest.param(
            Situation("v2", last_good="v1", waits=True, failed=frozenset({"v1"})),
            BringUp("v2"),
            id="its turn has not come, and the old one cannot load",
        ),
    ],
)
def test_the_next_step_follows_from_the_situation(situation: Situation, step: Step) -> None:
    assert next_step(situation, NOW) == step
