"""Stored responses: what is found, by whom, for how long, and what goes when room is short."""

import pathlib
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ullage_runtime.http.responses.store import Bounds, Item, ResponseStore, Stored

DAY = 86400.0
ROOM = Bounds(max_bytes=64 << 20, max_count=1000, seconds=30 * DAY)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def said(name: str, text: str = "hello") -> Item:
    return {"id": name, "type": "message", "text": text}


def answered(name: str, *context: Item, text: str = "hi") -> Stored:
    return Stored({"id": name, "output": [said(f"{name}-answer", text)]}, context)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "responses.sqlite"


@pytest.fixture
def store(path: pathlib.Path, clock: Clock) -> Iterator[ResponseStore]:
    store = ResponseStore(path, ROOM, clock)
    yield store
    store.close()


def small(path: pathlib.Path, clock: Clock, **bounds: float) -> ResponseStore:
    return ResponseStore(path, Bounds(**{**_fields(ROOM), **bounds}), clock)  # type: ignore[arg-type]


def _fields(bounds: Bounds) -> dict[str, float]:
    return {name: getattr(bounds, name) for name in Bounds.__slots__}


def rows(path: pathlib.Path, table: str) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])  # noqa: S608
    finally:
        db.close()


def test_what_was_stored_comes_back_as_it_was(store: ResponseStore) -> None:
    stored = answered("r1", said("a"), said("b", "Grüße 🚰"))
    assert store.save("me", stored)
    assert store.get("me", "r1") == stored
    assert store.item("me", "b") == said("b", "Grüße 🚰")
    assert store.item("me", "r1-answer") is not None


def test_nobody_else_finds_it_or_can_delete_it(store: ResponseStore) -> None:
    store.save("me", answered("r1", said("a")))
    assert store.get("you", "r1") is None
    assert store.item("you", "a") is None
    assert not store.delete("you", "r1")
    assert store.get("me", "r1") is not None


def test_equal_items_of_two_tenants_are_two_items(store: ResponseStore, path: pathlib.Path) -> None:
    store.save("me", answered("r1", said("a")))
    store.save("you", answered("r2", said("a")))
    assert store.delete("me", "r1")
    assert store.item("me", "a") is None
    assert store.item("you", "a") == said("a")


def test_turns_share_their_items_and_each_stands_by_itself(
    store: ResponseStore, path: pathlib.Path
) -> None:
    context: tuple[Item, ...] = ()
    for turn in range(20):
        context = (*context, said(f"q{turn}"))
        stored = answered(f"r{turn}", *context)
        store.save("me", stored)
        context = stored.conversation
    assert rows(path, "items") == 40
    for turn in range(19):
        assert store.delete("me", f"r{turn}")
    last = store.get("me", "r19")
    assert last is not None
    assert last.conversation == context


def test_what_is_deleted_is_gone_from_the_file(store: ResponseStore, path: pathlib.Path) -> None:
    store.save("me", answered("r1", said("a", "an unmistakable secret")))
    assert store.delete("me", "r1")
    assert not store.delete("me", "r1")
    assert rows(path, "items") == rows(path, "uses") == rows(path, "responses") == 0
    store.close()
    assert b"unmistakable" not in path.read_bytes()


def test_a_response_expires(store: ResponseStore, path: pathlib.Path, clock: Clock) -> None:
    store.save("me", answered("old", said("a")))
    clock.now += ROOM.seconds - 1
    assert store.get("me", "old") is not None
    clock.now += 1
    assert store.get("me", "old") is None
    store.save("me", answered("new", said("b")))
    assert rows(path, "responses") == 1
    assert store.item("me", "a") is None


def test_when_there_are_too_many_the_one_unused_for_longest_goes(
    path: pathlib.Path, clock: Clock
) -> None:
    store = small(path, clock, max_count=3)
    for name in ("r1", "r2", "r3"):
        store.save("me", answered(name, said(name)))
        clock.now += 1
    assert store.get("me", "r1") is not None
    clock.now += 1
    store.save("me", answered("r4", said("r4")))
    kept = [name for name in ("r1", "r2", "r3", "r4") if store.get("me", name)]
    assert kept == ["r1", "r3", "r4"]
    store.close()


def test_a_tenant_that_stores_much_pushes_out_its_own_and_nobody_elses(
    path: pathlib.Path, clock: Clock
) -> None:
    store = small(path, clock, max_bytes=1 << 20)
    store.save("modest", answered("mine", said("m")))
    for number in range(100):
        clock.now += 1
        assert store.save("greedy", answered(f"r{number}", said(f"q{number}", "x" * 50_000)))
    assert store.get("modest", "mine") is not None
    assert store.get("greedy", "r99") is not None
    assert store.get("greedy", "r0") is None
    store.close()
    assert path.stat().st_size < 1.5 * (1 << 20)


def test_one_response_may_not_take_all_the_room(path: pathlib.Path, clock: Clock) -> None:
    store = small(path, clock, max_bytes=1 << 20)
    store.save("you", answered("r1", said("a")))
    assert not store.save("me", answered("big", said("b", "x" * (1 << 19))))
    assert store.get("me", "big") is None
    assert store.get("you", "r1") is not None
    store.close()


def test_without_room_nothing_is_stored(path: pathlib.Path, clock: Clock) -> None:
    store = small(path, clock, max_bytes=0)
    assert not store.save("me", answered("r1"))
    assert store.get("me", "r1") is None
    store.close()


def test_responses_survive_a_restart(path: pathlib.Path, clock: Clock) -> None:
    first = ResponseStore(path, ROOM, clock)
    first.save("me", answered("r1", said("a")))
    first.close()
    second = ResponseStore(path, ROOM, clock)
    assert second.get("me", "r1") == answered("r1", said("a"))
    second.close()
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_database_is_put_aside(path: pathlib.Path, clock: Clock) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    store = ResponseStore(path, ROOM, clock)
    assert store.save("me", answered("r1", said("a")))
    assert store.get("me", "r1") is not None
    store.close()
    assert path.with_suffix(".broken").read_bytes().startswith(b"no database")


def test_two_processes_may_share_the_file(path: pathlib.Path, clock: Clock) -> None:
    one, other = ResponseStore(path, ROOM, clock), ResponseStore(path, ROOM, clock)
    one.save("me", answered("r1", said("a")))
    other.save("me", answered("r2", said("a")))
    assert one.get("me", "r2") is not None
    assert other.delete("me", "r1")
    assert one.get("me", "r1") is None
    assert one.item("me", "a") == said("a")
    one.close()
    other.close()


_ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["save", "get", "delete", "wait"]),
        st.sampled_from(["me", "you"]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=_ACTIONS)
def test_whatever_happens_the_store_agrees_with_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, str, int]]
) -> None:
    clock = Clock()
    path = tmp_path_factory.mktemp("store") / "responses.sqlite"
    store = ResponseStore(path, ROOM, clock)
    model: dict[tuple[str, str], tuple[float, Stored]] = {}
    for step, (action, tenant, number) in enumerate(actions):
        model = {k: v for k, v in model.items() if v[0] + ROOM.seconds > clock.now}
        owned = sorted(name for owner, name in model if owner == tenant)
        name = owned[number % len(owned)] if owned else "none"
        if action == "save":
            before = model[tenant, name][1].conversation if owned and number % 2 else ()
            stored = answered(f"r{step}", *before, said(f"q{number}"), text=str(number))
            store.save(tenant, stored)
            model[tenant, f"r{step}"] = (clock.now, stored)
        elif action == "get":
            found = model.get((tenant, name))
            assert store.get(tenant, name) == (found[1] if found else None)
        elif action == "delete":
            assert store.delete(tenant, name) == (model.pop((tenant, name), None) is not None)
        else:
            clock.now += number * 2 * DAY
    for tenant in ("me", "you"):
        for name in {name for _, name in model}:
            found = model.get((tenant, name))
            alive = found is not None and found[0] + ROOM.seconds > clock.now
            assert store.get(tenant, name) == (found[1] if found and alive else None)
    store.close()
