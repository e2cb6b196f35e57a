"""The operator is on no request's path: killed, its clients notice nothing."""

from datetime import UTC, datetime

from e2e.scenarios.platform import SYSTEM, Platform
from e2e.scenarios.team import Team
from e2e.traffic import Traffic


def test_clients_notice_nothing_when_the_operator_is_killed(
    platform: Platform, ready: Team
) -> None:
    with ready.reach("guide-model") as url, Traffic(url, "guide", per_second=4) as traffic:
        traffic.wait_for(8)
        traffic.mark("killed")
        killed_at = datetime.now(UTC)
        old = platform.operator_pods()
        platform.cluster.kubectl(
            "delete", "pod", "-n", SYSTEM, *old, "--grace-period=0", "--force", "--wait=false"
        )
        ready.wait(
            "another operator is ready",
            lambda: (
                bool(platform.operator_pods(ready=True))
                and not set(old) & set(platform.operator_pods())
            ),
            timeout=90,
        )
        traffic.wait_for(20)
    window = traffic.window()
    assert len(window.outcomes) > 20
    window.require()

    # What is already so is not written again.
    platform.wait_until_settled(ready.namespace)
    writes = platform.operator_writes(since=killed_at, namespace=ready.namespace)
    assert [(w.verb, w.resource, w.subresource, w.name) for w in writes] == []


def test_a_change_made_while_the_operator_was_down_is_picked_up(
    platform: Platform, ready: Team
) -> None:
    platform.scale_operator(0)
    try:
        ready.patch("guide", {"aliases": ["assistant"]})
    finally:
        platform.scale_operator(1)
    with ready.reach("guide-model") as url, Traffic(url, "assistant", per_second=2) as traffic:
        generation = ready.cluster.get_json(
            "modeldeployments.ullage.dev", "guide", "-n", ready.namespace
        )["metadata"]["generation"]
        ready.wait(
            "the new spec is observed",
            lambda: ready.status("guide").get("observedGeneration") == generation,
            timeout=90,
        )
        traffic.mark("observed")
        traffic.wait_for(5)
    # One that began before may have been refused: nobody knew the alias yet.
    assert [o.error for o in traffic.window("observed").started if o.failed] == []
