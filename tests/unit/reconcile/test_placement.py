from hypothesis import given
from hypothesis import strategies as st

from ullage_operator.reconcile.placement import Demand, placed, pool_size

demands = st.lists(
    st.builds(
        Demand,
        name=st.sampled_from([f"m{i}" for i in range(12)]),
        replicas=st.integers(1, 6),
        footprint=st.integers(0, 1 << 36),
    ),
    unique_by=lambda d: d.name,
    max_size=12,
)
previous = st.dictionaries(
    st.sampled_from([f"m{i}" for i in range(12)]), st.lists(st.integers(0, 7), max_size=6)
)


def test_a_pool_has_as_many_pods_as_its_widest_model_wants_within_the_profile() -> None:
    wide = [Demand("a", 1), Demand("b", 5)]
    assert pool_size(wide, 1, 8) == 5
    assert pool_size(wide, 1, 3) == 3
    assert pool_size(wide, 6, 8) == 6
    assert pool_size([], 2, 8) == 2


def test_a_new_model_goes_to_the_pod_with_the_fewest_bytes() -> None:
    there = {"big": (0,), "small": (1,)}
    wanted = [Demand("big", 1, 100), Demand("small", 1, 10), Demand("new", 1, 5)]
    assert placed(wanted, 2, there).ordinals["new"] == (1,)


def test_what_is_placed_stays_although_elsewhere_would_be_better_now() -> None:
    there = {"a": (0,), "b": (0,)}
    wanted = [Demand("a", 1, 100), Demand("b", 1, 100)]
    assert placed(wanted, 4, there).ordinals == {"a": (0,), "b": (0,)}


def test_each_placement_says_why() -> None:
    found = placed([Demand("a", 3)], 2, {})
    assert found.ordinals == {"a": (0, 1)}
    assert "a goes to pod 0" in found.why[0]
    assert found.why[-1] == "a asks for 3 replicas of 2 pods"


@given(demands, st.integers(1, 8), previous)
def test_every_model_gets_as_many_pods_as_it_wants_and_there_are(
    wanted: list[Demand], pods: int, before: dict[str, list[int]]
) -> None:
    found = placed(wanted, pods, before).ordinals
    assert set(found) == {d.name for d in wanted}
    for demand in wanted:
        mine = found[demand.name]
        assert len(mine) == len(set(mine)) == min(demand.replicas, pods)
        assert all(0 <= ordinal < pods for ordinal in mine)


@given(demands, st.integers(1, 8), previous)
def test_nothing_moves_without_need(
    wanted: list[Demand], pods: int, before: dict[str, list[int]]
) -> None:
    found = placed(wanted, pods, before).ordinals
    for demand in wanted:
        still = {o for o in before.get(demand.name, ()) if o < pods}
        kept = still & set(found[demand.name])
        assert len(kept) == min(len(still), demand.replicas)


@given(demands, st.integers(1, 8), previous)
def test_placing_again_changes_nothing(
    wanted: list[Demand], pods: int, before: dict[str, list[int]]
) -> None:
    first = placed(wanted, pods, before).ordinals
    assert placed(wanted, pods, first).ordinals == first
