"""A cache within bytes, held against a list that does the same slowly."""

import random
import tracemalloc

import pytest

from ullage_api.kinds.memory import MemoryLevel
from ullage_runtime.core.cache import ENTRY_BYTES, Cache, CacheKey, Size
from ullage_runtime.core.domain import Chunk
from ullage_runtime.core.joining import joined


def key(name: object, *, tenant: str = "t", model: str = "m", revision: str = "r") -> CacheKey:
    return CacheKey(tenant, model, revision, str(name).encode())


def of_entries(count: int) -> Cache[str]:
    """Return a cache with room for so many entries without weight of their own."""
    return Cache(count * ENTRY_BYTES)


def test_what_was_used_least_recently_leaves_first() -> None:
    cache = of_entries(2)
    for name in ("a", "b"):
        assert cache.put(key(name), name, 0, 100)
    assert cache.get(key("a"), 0) == "a"
    cache.put(key("c"), "c", 0, 100)
    assert [cache.get(key(name), 0) for name in "abc"] == ["a", None, "c"]


def test_an_entry_ends_with_its_time() -> None:
    cache = of_entries(2)
    cache.put(key("a"), "a", 0, 10)
    assert cache.get(key("a"), 9.9) == "a"
    assert cache.get(key("a"), 10) is None
    assert cache.size == Size(0, 0)


def test_what_is_larger_than_the_cache_is_not_kept_and_costs_nobody_his_place() -> None:
    cache = of_entries(2)
    cache.put(key("a"), "a", 0, 10)
    assert not cache.put(key("b"), "b", 2 * ENTRY_BYTES, 10)
    assert cache.get(key("a"), 0) == "a"
    assert not Cache[str](0).put(key("a"), "a", 0, 10)


def test_a_level_takes_its_share_and_gives_it_back_empty() -> None:
    cache = of_entries(8)
    for number in range(8):
        cache.put(key(number), "x", 0, 10)
    cache.fit(MemoryLevel.MODERATE)
    assert cache.size.entries == 8
    cache.fit(MemoryLevel.HIGH)
    assert [n for n in range(8) if cache.get(key(n), 0)] == [6, 7]
    cache.fit(MemoryLevel.CRITICAL)
    assert cache.size == Size(0, 0)
    assert not cache.put(key("a"), "a", 0, 10)
    cache.fit(None)
    assert cache.limit_bytes == cache.max_bytes
    assert cache.put(key("a"), "a", 0, 10)


def test_only_what_is_meant_is_forgotten() -> None:
    cache = of_entries(4)
    for tenant, model in (("a", "m"), ("a", "n"), ("b", "m")):
        cache.put(key(1, tenant=tenant, model=model), "x", 10, 10)
    assert cache.clear(lambda k: k.tenant == "a") == Size(2, 2 * (ENTRY_BYTES + 10))
    assert cache.get(key(1, tenant="b"), 0) == "x"


@pytest.mark.parametrize("seed", range(20))
def test_it_does_what_a_list_would(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - test data
    limit = 6 * ENTRY_BYTES + 600
    cache: Cache[int] = Cache(limit)
    oracle: list[tuple[CacheKey, int, int, int]] = []
    for now in range(400):
        wanted = key(chance.randrange(12))
        known = next((entry for entry in oracle if entry[0] == wanted), None)
        if chance.random() < 0.5:
            alive = known if known and known[3] > now else None
            assert cache.get(wanted, now) == (alive[1] if alive else None)
            oracle = [entry for entry in oracle if entry != known] + ([alive] if alive else [])
            continue
        size, expires = chance.randrange(200), now + chance.randrange(1, 60)
        cache.put(wanted, now, size, expires)
        oracle = [entry for entry in oracle if entry[0] != wanted]
        oracle.append((wanted, now, size, expires))
        while sum(entry[2] + ENTRY_BYTES for entry in oracle) > limit:
            del oracle[0]
        assert cache.size.entries == len(oracle)
        assert cache.size.bytes == sum(entry[2] + ENTRY_BYTES for entry in oracle) <= limit


def test_what_entries_take_beside_their_values_is_not_counted_short() -> None:
    cache: Cache[bytes] = Cache(1 << 30)
    tracemalloc.start()
    try:
        for number in range(5000):
            value = number.to_bytes(4, "big") * 100
            cache.put(key(number.to_bytes(32, "big")), value, len(value), 1e9)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= cache.size.bytes


def test_chunks_joined_tell_the_same_whatever_they_were_cut_into() -> None:
    whole = joined([Chunk("a b"), Chunk(" c", reasoning="x"), Chunk(reasoning="y")])
    assert (whole.text, whole.reasoning) == ("a b c", "xy")
    assert joined([whole]) == whole
