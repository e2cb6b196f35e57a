"""Texts packed into batches: nobody starves, nothing is lost, and no batch exceeds its budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.errors import Overloaded
from ullage_runtime.core.scheduling.packing import Job, Packer, by_job


def job(name: str, *lengths: int, tenant: str = "", deadline: float | None = None) -> Job:
    return Job(name, [range(length) for length in lengths], tenant=tenant, deadline=deadline)


def packer(budget: int = 100, width: int = 8, max_tokens: int = 10_000) -> Packer:
    return Packer(budget=budget, width=width, max_tokens=max_tokens)


def computed(given: Packer) -> list[list[tuple[str, int]]]:
    """Return the batches until nothing is left, as pairs of request and text."""
    batches = []
    while batch := given.next_batch():
        batches.append([(place.job.id, place.index) for place in batch])
        for done, _ in by_job(batch):
            if not done.left:
                given.remove(done.id)
    return batches


def test_a_batch_begins_with_its_shortest_text() -> None:
    line = packer()
    line.add(job("a", 30, 10, 20))
    assert computed(line) == [[("a", 1), ("a", 2), ("a", 0)]]


def test_a_text_of_its_own_length_is_computed_alone_when_it_exceeds_the_budget() -> None:
    line = packer(budget=100)
    line.add(job("a", 400, 10))
    assert computed(line) == [[("a", 1)], [("a", 0)]]


def test_a_query_does_not_wait_for_a_bulk_load() -> None:
    line = packer(budget=100, width=8)
    line.add(job("bulk", *[20] * 500, tenant="a"))
    line.next_batch()
    line.add(job("query", 20, tenant="b"))
    assert "query" in [place.job.id for place in line.next_batch()]


def test_requests_of_one_tenant_take_turns() -> None:
    line = packer(budget=40, width=8)
    line.add(job("a", 20, 20, 20))
    line.add(job("b", 20, 20, 20))
    assert [sorted(r for r, _ in batch) for batch in computed(line)] == [["a", "b"]] * 3


def test_a_long_text_is_not_passed_by_for_ever() -> None:
    line = packer(budget=100, width=8)
    line.add(job("short", *[30] * 60))
    line.add(job("long", 90))
    batches = computed(line)
    assert [("long", 0)] in batches[:3]


def test_too_many_waiting_tokens_are_refused_unless_nothing_else_waits() -> None:
    line = packer(max_tokens=100)
    line.add(job("huge", 1000))
    with pytest.raises(Overloaded, match="1000 tokens already wait"):
        line.add(job("more", 1))
    line.remove("huge")
    line.add(job("more", 1))
    assert len(line) == 1


def test_what_is_late_or_cancelled_leaves_nothing_behind() -> None:
    line = packer(max_tokens=100)
    line.add(job("late", 40, deadline=5.0))
    line.add(job("early", 40, deadline=50.0))
    assert [each.id for each in line.expire(10.0)] == ["late"]
    assert line.remove("early") is not None
    assert line.remove("early") is None
    line.add(job("next", 100))
    assert computed(line) == [[("next", 0)]]


LENGTHS = st.lists(st.integers(1, 250), min_size=1, max_size=20)


@given(st.lists(st.tuples(st.sampled_from("ab"), LENGTHS), min_size=1, max_size=8))
def test_every_text_is_computed_once_within_the_bounds(given: list[tuple[str, list[int]]]) -> None:
    line = packer(budget=100, width=5, max_tokens=1 << 20)
    jobs = {str(n): job(str(n), *lengths, tenant=t) for n, (t, lengths) in enumerate(given)}
    for each in jobs.values():
        line.add(each)
    batches = computed(line)
    flat = [place for batch in batches for place in batch]
    assert sorted(flat) == sorted((n, i) for n, j in jobs.items() for i in range(len(j.texts)))
    for batch in batches:
        tokens = sum(len(jobs[name].texts[index]) for name, index in batch)
        assert len(batch) <= 5
        assert tokens <= 100 or len(batch) == 1
    assert len(line) == 0
