"""A reindex job ends, whatever is wished and whoever dies, and what is read is never removed."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage_api.conditions import Reason
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan as Plan
from ullage_runtime.core.reindexing.machine import (
    TRANSITIONS,
    VERIFIED_SECONDS,
    Action,
    Do,
    Enter,
    Facts,
    Record,
    Step,
    Verified,
    Wait,
    Wishes,
    next_step,
)
from ullage_runtime.core.reindexing.planning import Planned, Refused

NOW = 10_000.0
COPY = Planned(Plan.COPY, "distance differs")
FAILED = (Reason.TOO_MANY_FAILURES, "12 of 100 points failed")


def at(phase: Phase, plan: Plan = Plan.COPY, since: float = NOW - 10) -> Record:
    return Record(phase, since, plan)


def entered(step: Step) -> Phase:
    assert isinstance(step, Enter), step
    return step.record.phase


@pytest.mark.parametrize(
    ("record", "facts", "phase"),
    [
        pytest.param(Record(), Facts(COPY), Phase.QUEUED, id="a plan"),
        pytest.param(at(Phase.QUEUED), Facts(COPY, is_turn=True), Phase.PREPARING, id="its turn"),
        pytest.param(
            at(Phase.QUEUED),
            Facts(Planned(Plan.ALREADY_CURRENT, "it is"), is_turn=True),
            Phase.SUCCEEDED,
            id="the job before has done it",
        ),
        pytest.param(
            at(Phase.PREPARING), Facts(is_prepared=True), Phase.DUAL_WRITING, id="prepared"
        ),
        pytest.param(
            at(Phase.PREPARING, Plan.IN_PLACE), Facts(is_prepared=True), Phase.INDEXING, id="alone"
        ),
        pytest.param(
            at(Phase.PREPARING, Plan.RECHUNK), Facts(is_prepared=True), Phase.COPYING, id="cut"
        ),
        pytest.param(
            at(Phase.DUAL_WRITING),
            Facts(writes_target=True, writers_know=True),
            Phase.COPYING,
            id="every writer knows",
        ),
        pytest.param(at(Phase.COPYING), Facts(is_copied=True), Phase.CATCHING_UP, id="copied"),
        pytest.param(
            at(Phase.CATCHING_UP), Facts(is_caught_up=True), Phase.INDEXING, id="caught up"
        ),
        pytest.param(at(Phase.INDEXING), Facts(is_built=True), Phase.VERIFYING, id="built"),
        pytest.param(
            at(Phase.VERIFYING),
            Facts(verified=Verified(NOW)),
            Phase.READY_TO_SWITCH,
            id="verified",
        ),
        pytest.param(
            at(Phase.VERIFYING, Plan.IN_PLACE),
            Facts(verified=Verified(NOW)),
            Phase.SUCCEEDED,
            id="verified in place",
        ),
        pytest.param(
            at(Phase.READY_TO_SWITCH), Facts(verified=Verified(NOW)), Phase.SWITCHING, id="ready"
        ),
        pytest.param(
            at(Phase.READY_TO_SWITCH),
            Facts(verified=Verified(NOW - VERIFIED_SECONDS)),
            Phase.VERIFYING,
            id="a verification gets stale",
        ),
        pytest.param(at(Phase.SWITCHING), Facts(reads_target=True), Phase.SOAKING, id="switched"),
        pytest.param(at(Phase.SOAKING), Facts(reads_target=True), Phase.CLEANING, id="soaked"),
        pytest.param(
            at(Phase.CLEANING),
            Facts(reads_target=True, writes_source=False),
            Phase.SUCCEEDED,
            id="clean",
        ),
    ],
)
def test_a_job_goes_on_once_something_is_so(record: Record, facts: Facts, phase: Phase) -> None:
    assert entered(next_step(record, Wishes(), facts, NOW)) is phase


@pytest.mark.parametrize(
    ("record", "facts", "action"),
    [
        (at(Phase.PREPARING), Facts(), Action.PREPARE),
        (at(Phase.DUAL_WRITING), Facts(), Action.DUAL_WRITE),
        (at(Phase.COPYING), Facts(), Action.COPY),
        (at(Phase.INDEXING), Facts(), Action.BUILD),
        (at(Phase.VERIFYING), Facts(), Action.VERIFY),
        (at(Phase.VERIFYING), Facts(verified=Verified(NOW - 11)), Action.VERIFY),
        (at(Phase.SWITCHING), Facts(), Action.SWITCH),
        (at(Phase.SOAKING), Facts(is_alias_right=False), Action.POINT_ALIAS),
        (at(Phase.CLEANING), Facts(), Action.STOP_WRITING),
        (at(Phase.CLEANING), Facts(writes_source=False, is_clean=False), Action.REMOVE),
        (at(Phase.ROLLING_BACK), Facts(reads_target=True), Action.SWITCH_BACK),
        (at(Phase.ROLLING_BACK, Plan.IN_PLACE), Facts(is_restored=False), Action.SWITCH_BACK),
        (at(Phase.ROLLING_BACK), Facts(is_alias_right=False), Action.POINT_ALIAS),
        (at(Phase.CANCELLING), Facts(writes_target=True, is_clean=False), Action.STOP_WRITING),
        (at(Phase.CANCELLING), Facts(is_clean=False), Action.REMOVE),
    ],
)
def test_what_is_not_so_is_done(record: Record, facts: Facts, action: Action) -> None:
    assert next_step(record, Wishes(), facts, NOW) == Do(action)


UNSWITCHED = (
    Phase.PREPARING,
    Phase.DUAL_WRITING,
    Phase.COPYING,
    Phase.CATCHING_UP,
    Phase.INDEXING,
    Phase.VERIFYING,
    Phase.READY_TO_SWITCH,
)


@pytest.mark.parametrize("phase", [*UNSWITCHED, Phase.PAUSED, Phase.SWITCHING])
@pytest.mark.parametrize("wishes", [Wishes(cancel=True), Wishes(deleted=True), Wishes(deadline=0)])
def test_until_the_switch_a_job_is_given_up_when_that_is_wished(
    phase: Phase, wishes: Wishes
) -> None:
    record = replace(at(phase), resumes=Phase.COPYING if phase is Phase.PAUSED else None)
    assert entered(next_step(record, wishes, Facts(), NOW)) is Phase.CANCELLING


@pytest.mark.parametrize("phase", UNSWITCHED)
def test_until_the_switch_a_job_can_be_paused_and_goes_on_where_it_was(phase: Phase) -> None:
    step = next_step(at(phase), Wishes(suspend=True), Facts(), NOW)
    assert isinstance(step, Enter)
    assert step.record.phase is Phase.PAUSED
    wait = next_step(step.record, Wishes(suspend=True), Facts(), NOW)
    assert isinstance(wait, Wait)
    assert wait.reason is Reason.SUSPENDED
    assert entered(next_step(step.record, Wishes(), Facts(), NOW)) is phase


@pytest.mark.parametrize("phase", UNSWITCHED)
@pytest.mark.parametrize("plan", [Plan.COPY, Plan.IN_PLACE])
def test_a_failure_is_kept_with_its_reason_until_the_job_is_over(phase: Phase, plan: Plan) -> None:
    step = next_step(at(phase, plan), Wishes(), Facts(failure=FAILED), NOW)
    assert isinstance(step, Enter)
    over = next_step(step.record, Wishes(), Facts(), NOW)
    assert isinstance(over, Enter)
    assert over.record.phase is Phase.FAILED
    assert (over.record.reason, over.record.message) == FAILED


def test_a_committed_switch_stands_whatever_was_wished_meanwhile() -> None:
    step = next_step(at(Phase.SWITCHING), Wishes(cancel=True), Facts(reads_target=True), NOW)
    assert entered(step) is Phase.SOAKING


@pytest.mark.parametrize("wishes", [Wishes(rollback=True), Wishes(cancel=True)])
def test_after_the_switch_a_job_goes_back_when_that_is_wished(wishes: Wishes) -> None:
    step = next_step(at(Phase.SOAKING), wishes, Facts(reads_target=True), NOW)
    assert isinstance(step, Enter)
    assert step.record.phase is Phase.ROLLING_BACK
    assert step.record.reason is Reason.ROLLED_BACK
    assert entered(next_step(step.record, wishes, Facts(), NOW)) is Phase.CANCELLED


def test_a_job_that_is_deleted_after_the_switch_is_finished_and_not_undone() -> None:
    wishes = Wishes(deleted=True, rollback_seconds=900)
    assert entered(next_step(at(Phase.SOAKING), wishes, Facts(reads_target=True), NOW)) is (
        Phase.CLEANING
    )


def test_a_manual_cutover_waits_for_its_approval() -> None:
    facts, record = Facts(verified=Verified(NOW)), at(Phase.READY_TO_SWITCH)
    step = next_step(record, Wishes(needs_approval=True), facts, NOW)
    assert isinstance(step, Wait)
    assert step.reason is Reason.WAITING_FOR_APPROVAL
    assert step.until == NOW + VERIFIED_SECONDS
    approved = Wishes(needs_approval=True, approved=True)
    assert entered(next_step(record, approved, facts, NOW)) is Phase.SWITCHING


def test_the_old_collection_is_kept_for_as_long_as_a_rollback_may_come() -> None:
    step = next_step(at(Phase.SOAKING), Wishes(rollback_seconds=900), Facts(reads_target=True), NOW)
    assert isinstance(step, Wait)
    assert step.until == NOW - 10 + 900
    suspended = Wishes(suspend=True)
    step = next_step(at(Phase.SOAKING, since=0), suspended, Facts(reads_target=True), NOW)
    assert isinstance(step, Wait)


def test_a_verification_that_fails_ends_the_job_and_says_what_differs() -> None:
    verified = Verified(NOW, ("point 7 has version 3, and 2 in the target", "recall is 41 %"))
    step = next_step(at(Phase.VERIFYING), Wishes(), Facts(verified=verified), NOW)
    assert isinstance(step, Enter)
    assert step.record.phase is Phase.CANCELLING
    assert step.record.reason is Reason.VERIFICATION_FAILED
    assert "point 7 has version 3, and 2 in the target; recall" in step.record.message


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.QUEUED])
def test_what_can_only_be_refused_is_refused_and_what_may_come_is_waited_for(phase: Phase) -> None:
    refused = Refused(Reason.NO_ROOM, "needs 2.0 GiB; 1.0 GiB are free")
    facts = Facts(refused, is_turn=True)
    step = next_step(at(phase), Wishes(), facts, NOW)
    assert isinstance(step, Enter)
    assert (step.record.phase, step.record.reason) == (Phase.FAILED, Reason.NO_ROOM)
    facts = replace(facts, outlook=replace(refused, is_final=False))
    step = next_step(at(phase), Wishes(), facts, NOW)
    assert isinstance(step, Wait)
    assert "1.0 GiB are free" in step.message


@dataclass
class World:
    """A collection and its owner, who may die between any two steps and forgets all but these."""

    record: Record = field(default_factory=Record)
    reads: str = "A"
    writes: set[str] = field(default_factory=lambda: {"A"})
    there: set[str] = field(default_factory=lambda: {"A"})
    alias: str = "A"
    progress: int = 0
    is_built: bool = False
    verified: Verified | None = None
    now: float = 0.0

    def facts(self, *, failure: bool) -> Facts:
        named = {self.reads, *self.writes}
        return Facts(
            outlook=COPY,
            is_turn=True,
            is_prepared="B" in self.there,
            writes_target="B" in self.writes,
            writes_source="A" in self.writes,
            writers_know=True,
            is_copied=self.progress > 2,
            is_caught_up=True,
            is_built=self.is_built,
            verified=self.verified,
            reads_target=self.reads == "B",
            is_alias_right=self.alias == self.reads,
            is_clean=self.there <= named,
            failure=FAILED if failure else None,
        )

    def act(self, action: Action) -> None:
        match action:
            case Action.COPY:
                self.progress += 1
            case Action.BUILD:
                self.is_built = True
            case Action.VERIFY:
                self.verified = Verified(self.now)
            case _:
                self.route(action)

    def route(self, action: Action) -> None:
        match action:
            case Action.PREPARE:
                self.there.add("B")
            case Action.DUAL_WRITE:
                self.writes = {"A", "B"}
            case Action.SWITCH:
                assert "B" in self.there
                self.reads = "B"
            case Action.SWITCH_BACK:
                assert "A" in self.there
                assert "A" in self.writes, "it would lack what was written meanwhile"
                self.reads = "A"
            case Action.POINT_ALIAS:
                self.alias = self.reads
            case Action.STOP_WRITING:
                self.writes = {self.reads}
            case Action.REMOVE:
                self.there &= {self.reads, *self.writes}
            case _:
                raise AssertionError(action)


WISHES = st.builds(
    Wishes,
    suspend=st.booleans(),
    cancel=st.booleans(),
    deleted=st.booleans(),
    needs_approval=st.booleans(),
    approved=st.booleans(),
    rollback=st.booleans(),
    rollback_seconds=st.sampled_from([0.0, 5.0]),
    deadline=st.sampled_from([None, 20.0]),
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(WISHES, st.booleans(), st.integers(1, 4), st.floats(0, 4000)), max_size=12)
)
def test_whatever_is_wished_a_job_ends_with_one_whole_collection(
    wishes: list[tuple[Wishes, bool, int, float]],
) -> None:
    world = World()
    for wished, failure, steps, seconds in wishes:
        for _ in range(steps):
            _stepped(world, wished, failure=failure and world.record.phase in UNSWITCHED)
        world.now += seconds
    for _ in range(60):
        _stepped(world, Wishes(), failure=False)
    assert world.record.phase.is_over
    assert world.reads == ("B" if world.record.phase is Phase.SUCCEEDED else "A")
    assert world.there == world.writes == {world.alias} == {world.reads}


def _stepped(world: World, wishes: Wishes, *, failure: bool) -> None:
    before = world.record
    step = next_step(before, wishes, world.facts(failure=failure), world.now)
    world.now += 1
    if isinstance(step, Enter):
        assert step.record.phase in TRANSITIONS[before.phase]
        world.record = step.record
    elif isinstance(step, Do):
        world.act(step.action)
    assert {world.reads, *world.writes} <= world.there, "what is named is there"


def test_every_phase_has_its_transitions_and_only_finished_ones_have_none() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert {phase for phase, after in TRANSITIONS.items() if not after} == {
        phase for phase in Phase if phase.is_over
    }
