"""Whatever is observed: once a plan is carried out, there is nothing left to do."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.facts import (
    POOL,
    World,
    coming,
    heard,
    known,
    pod,
    profile,
    report,
    resource,
    revision,
    serving,
    silent,
    told,
)
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.kinds.model_status import Residency
from ullage_api.kinds.rollout import Transition
from ullage_api.names import ROLLBACK_ANNOTATION
from ullage_operator.reconcile.model import decide_model
from ullage_operator.reconcile.observed import ProfileView
from ullage_operator.reconcile.pool import decide_pool

NAMES = [f"m{i}" for i in range(5)]

members = st.lists(
    st.builds(
        resource,
        st.sampled_from(NAMES),
        second=st.integers(0, 59),
        replicas=st.integers(0, 4),
        suspend=st.sampled_from([None, True, False]),
        aliases=st.lists(st.sampled_from(["x", "y", "m1"]), unique=True, max_size=2),
    ),
    unique_by=lambda m: m.metadata.name,
    max_size=5,
)
profiles = st.builds(
    lambda low, more, drain: profile(replicas={"min": low, "max": low + more}, drainSeconds=drain),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 99),
)
revisions = st.builds(
    revision,
    st.sampled_from(["r1", "r2"]),
    resident_bytes=st.integers(0, 1 << 35),
    estimated_bytes=st.integers(0, 1 << 35),
)


@st.composite
def entries(draw: st.DrawFn, member: ModelDeployment) -> Any:
    reason = draw(st.sampled_from(sorted(Reason)))
    if reason is Reason.SERVING:
        return serving(
            member,
            active=draw(revisions | st.just(told(member))),
            target=draw(revisions | st.just(told(member))),
            transition=draw(st.none() | st.sampled_from(Transition)),
        )
    return coming(
        member,
        reason,
        draw(st.text(max_size=20)),
        final=draw(st.booleans()),
        target=draw(st.none() | st.just(told(member))),
        generation=draw(st.integers(0, 2)),
        uid=draw(st.sampled_from([member.metadata.uid, "another"])),
        residency=draw(st.sampled_from(sorted(Residency))),
        fetched_bytes=draw(st.none() | st.integers(0, 1 << 40)),
        fetch_total_bytes=draw(st.none() | st.integers(0, 1 << 40)),
        weights_ready=draw(st.booleans()),
    )


@st.composite
def asking_back(draw: st.DrawFn, member: ModelDeployment) -> ModelDeployment:
    name = draw(st.sampled_from([None, "nonsense", told(member).revision]))
    annotations = {ROLLBACK_ANNOTATION: name} if name else {}
    metadata = member.metadata.model_copy(update={"annotations": annotations})
    return member.model_copy(update={"metadata": metadata})


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a cluster in any state, its pods and reports included."""
    chosen = [draw(asking_back(m)) for m in draw(members)]
    world = World(profile=known(draw(profiles))).add(*chosen)
    if draw(st.booleans()):
        world.carry_out(decide_pool(world.pool()))
        if draw(st.booleans()):
            world.profile = ProfileView(None, "broken", exists=True)
    for ordinal in draw(st.sets(st.integers(0, 4))):
        world.pods[ordinal] = pod(
            ordinal,
            ready=draw(st.booleans()),
            holds=frozenset(draw(st.sets(st.sampled_from(NAMES)))),
            trouble=draw(st.sampled_from([None, "CrashLoopBackOff", "Unschedulable"])),
        )
        said = [draw(entries(m)) for m in chosen if draw(st.booleans())]
        about = report(
            *said, ordinal=ordinal, acknowledged=draw(st.integers(0, 9)), acknowledged_hash="h"
        )
        world.reports[ordinal] = draw(
            st.sampled_from([heard(about), heard(about, 61), silent(ordinal)])
        )
    return world


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_a_pools_plan_carried_out_leaves_nothing_to_do(world: World) -> None:
    world.carry_out(decide_pool(world.pool()))
    again = decide_pool(world.pool())
    assert again.is_empty, again
    assert POOL in world.pool().pool


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_a_models_plan_carried_out_leaves_nothing_to_do(world: World) -> None:
    world.carry_out(decide_pool(world.pool()))
    for name in world.members:
        first = decide_model(world.model(name))
        world.carry_out(first, name)
        again = decide_model(world.model(name))
        assert again.is_empty, (first, again)


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_every_status_is_one_that_the_schema_allows(world: World) -> None:
    for name in world.members:
        plan = decide_model(world.model(name))
        if plan.status is None:
            continue
        assert {c["type"] for c in plan.status["conditions"]} == {
            "Ready",
            "Accepted",
            "WeightsReady",
            "Progressing",
            "MemoryPressure",
        }
        for each in plan.status["conditions"]:
            assert each["reason"] in set(Reason)
            assert each["message"]
            assert len(each["message"]) <= 2048
            assert each["observedGeneration"] == plan.status["observedGeneration"]
