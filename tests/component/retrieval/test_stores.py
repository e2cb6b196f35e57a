"""Every vector store, by the same tests: the embedded one, and the Qdrant of QDRANT_URL."""

import pathlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.support.stores import LAYOUT, STORES, eventually, opened, point, vector
from ullage_runtime.retrieval.stores.embedded import EmbeddedStore
from ullage_runtime.retrieval.stores.objects import token_vectors
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    LARGEST_POINT,
    VERSION,
    Branch,
    Carried,
    Fusion,
    Point,
    PointId,
    Query,
    Sparse,
    Store,
    StoreRefused,
    Stretch,
)

SECONDS = 60.0
INT8 = {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Store]:
    async with opened(request.param, tmp_path / "volume") as opened_store:
        yield opened_store


@pytest.fixture
async def name(store: Store) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex[:12]}"
    await store.create(name, LAYOUT)
    yield name
    await store.drop(name)


async def test_a_collection_is_described_as_it_was_made(store: Store, name: str) -> None:
    assert await store.describe("nothing-of-this-name") is None
    wanted = replace(
        LAYOUT,
        has_sparse=False,
        hnsw={"m": 32, "ef_construct": 256},
        quantization=INT8,
        metadata={"made_by": "a test"},
    )
    other = f"{name}-other"
    await store.create(other, wanted)
    found = await store.describe(other)
    await store.drop(other)
    assert found is not None
    assert found.layout == wanted
    assert found.points == 0
    assert found.is_optimised
    with pytest.raises(StoreRefused, match="already exists"):
        await store.create(name, LAYOUT)


async def test_points_come_back_as_they_were_written(store: Store, name: str) -> None:
    key = str(uuid.uuid4())
    payload = {"text": 'é\n"quoted"', "n": 3, "f": 1.5, "none": None, "list": [1, {"a": "b"}]}
    unit = (1.0,) + (0.0,) * 7
    written = [Point(key, payload, unit, Sparse((3, 9), (1.0, 2.0))), Point(7, {}, unit)]
    await store.write(name, written, 5)
    found = {each.id: each for each in await store.retrieve(name, [7, key, 8], vectors=True)}
    assert set(found) == {7, key}
    assert found[key].payload == {**payload, VERSION: 5}
    assert found[key].dense == unit
    assert found[key].sparse == Sparse((3, 9), (1.0, 2.0))
    assert found[7].sparse is None
    assert found[7].version == 5


async def test_a_late_write_changes_nothing(store: Store, name: str) -> None:
    await store.write(name, [point(1, say="new")], 7)
    await store.write(name, [point(1, say="old"), point(2, say="only")], 6)
    await store.write(name, [point(1, say="same")], 7)
    found = {each.id: each.payload["say"] for each in await store.retrieve(name, [1, 2])}
    assert found == {1: "new", 2: "only"}


async def test_a_tombstone_keeps_a_late_write_out_until_it_is_purged(
    store: Store, name: str
) -> None:
    await store.write(name, [point(1), point(2)], 1)
    await store.write(name, [Point(1, {DELETED: True})], 3)
    await store.write(name, [point(1)], 2)
    (gone,) = await store.retrieve(name, [1], vectors=True)
    assert gone.is_tombstone
    assert gone.dense is None
    (found,) = await store.query(name, [Query((Branch(vector(1), 10),), 10)], seconds=SECONDS)
    assert [each.id for each in found] == [2]
    await store.purge(name, 2)
    assert len(await store.retrieve(name, [1])) == 1
    await store.purge(name, 3)
    assert await store.retrieve(name, [1]) == []
    assert len(await store.retrieve(name, [2])) == 1


async def test_foreign_points_without_a_version_are_older_than_all(store: Store, name: str) -> None:
    client = store._client  # type: ignore[attr-defined]
    models = store._models  # type: ignore[attr-defined]
    await client.upsert(name, [models.PointStruct(id=1, vector={}, payload={"a": 1})], wait=True)
    await store.write(name, [point(1, a=2)], 1)
    (found,) = await store.retrieve(name, [1])
    assert found.payload == {"a": 2, VERSION: 1}


async def test_scrolling_shows_every_point_once_in_the_order_of_ids(
    store: Store, name: str
) -> None:
    await store.write(name, [point(number, even=number % 2 == 0) for number in range(25)], 1)
    seen, after = [], None
    while True:
        page, after = await store.scroll(name, after=after, limit=10)
        seen += [each.id for each in page]
        if after is None:
            break
    assert seen == list(range(25))
    where = {"must": [{"key": "even", "match": {"value": True}}]}
    page, _ = await store.scroll(name, limit=100, where=where)
    assert [each.id for each in page] == list(range(0, 25, 2))
    assert await store.count(name) == 25
    assert await store.count(name, where) == 13


async def test_a_store_that_copies_by_itself_leaves_what_is_newer_or_deleted_here_and_there(
    store: Store, name: str
) -> None:
    named = "00000000-0000-4000-8000-000000000001"
    target = f"{name}-target"
    await store.create(target, LAYOUT)
    await store.write(name, [point(n, n=n) for n in range(150)], 3)
    await store.write(name, [replace(point(7, n=7), id=named)], 3)
    await store.write(name, [Point(10, {DELETED: True})], 4)
    await store.write(name, [point(11, n="newer")], 9)
    await store.copy(name, [Point(12, {"n": "foreign"}, vector(12))], 99)
    for number, version in ((20, 2), (21, 8)):
        await store.write(target, [point(number, n="there")], version)
    pages: list[Carried] = []
    for first, last in ((None, 99), (100, None)):
        after: PointId | None = first
        while True:
            page = await store.carry(Stretch(name, target, after, last, 40, before=5))
            if page is None:
                assert not isinstance(store, EmbeddedStore)
                await store.drop(target)
                return
            pages.append(page)
            after = page.next
            if after is None:
                break
    assert [each.seen for each in pages] == [40, 40, 20, 40, 11]
    assert sum(each.copied for each in pages) == 149
    source, there = [
        {each.id: each for each in (await store.scroll(side, limit=1000, vectors=True))[0]}
        for side in (name, target)
    ]
    await store.drop(target)
    assert there.keys() == source.keys() - {10, 11}
    assert there.pop(21).payload == {"n": "there", VERSION: 8}
    assert there.pop(12).payload == {"n": "foreign", VERSION: 0}
    assert all(source[each] == there[each] for each in there)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"must": [{"key": "n", "range": {"gte": 3, "lt": 5}}]}, {3, 4}),
        ({"must": {"key": "tag", "match": {"any": ["a", "b"]}}}, {0, 1, 3, 4}),
        ({"must_not": [{"key": "tag", "match": {"except": ["c"]}}]}, {2, 5}),
        ({"should": [{"key": "n", "match": {"value": 0}}, {"has_id": [5]}]}, {0, 5}),
        ({"must": [{"is_empty": {"key": "rare"}}]}, {0, 1, 2, 3, 4}),
        (
            {"must": [{"nested": {"key": "parts", "filter": {
                "must": [{"key": "x", "match": {"value": 2}}]}}}]},
            {2},
        ),
        ({"must": [{"should": [{"key": "n", "range": {"gt": 4}}]}]}, {5}),
        (
            {"min_should": {"min_count": 2, "conditions": [
                {"key": "n", "range": {"gte": 4}}, {"key": "tag", "match": {"value": "b"}}]}},
            {4},
        ),
    ],
)  # fmt: skip
async def test_filters_mean_what_they_mean_in_qdrant(
    store: Store, name: str, where: dict[str, object], expected: set[int]
) -> None:
    points = [
        point(n, n=n, tag="abc"[n % 3], parts=[{"x": n}], **({"rare": 1} if n == 5 else {}))
        for n in range(6)
    ]
    await store.write(name, points, 1)
    page, _ = await store.scroll(name, limit=100, where=where)
    assert {each.id for each in page} == expected


async def test_nearest_points_come_first_dense_sparse_and_fused(store: Store, name: str) -> None:
    await store.write(name, [point(number) for number in range(50)], 1)
    dense = Branch(vector(20), 10)
    sparse = Branch(Sparse((30,), (1.0,)), 10)
    queries = [
        Query((dense,), 3),
        Query((sparse,), 3),
        Query((dense, sparse), 3, fusion=Fusion.RRF, rrf_k=60),
        Query((dense, sparse), 3, fusion=Fusion.DBSF),
        Query((replace(dense, threshold=0.999),), 3),
        Query((dense,), 3, filter={"must_not": [{"has_id": [20]}]}),
        Query((dense,), 3, params={"exact": True, "hnsw_ef": 32}),
    ]
    found = await store.query(name, queries, seconds=SECONDS)
    ids = [[each.id for each in answer] for answer in found]
    assert ids[0][0] == 20
    assert found[0][0].score == pytest.approx(1, abs=1e-4)
    assert ids[1] == [30]
    assert {20, 30} <= set(ids[2])
    assert found[2][0].score == pytest.approx(1 / 60, rel=0.1), "k is what was asked for, not 2"
    assert ids[3][0] == 20
    assert ids[4] == [20]
    assert 20 not in ids[5]
    assert ids[6][0] == 20


async def test_vectors_of_tokens_score_the_points_that_are_named_and_no_others(
    store: Store,
) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    layout = replace(LAYOUT, token_width=4, quantization=INT8)
    await store.create(name, layout)
    try:
        found = await store.describe(name)
        assert found is not None
        assert found.layout.token_width == 4
        east, north = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
        both = token_vectors([east, north])
        points = [
            replace(point(1), colbert=token_vectors([east])),
            replace(point(2), colbert=both),
            point(3),
            replace(point(4), colbert=both),
            # Of its own size it goes alone.
            replace(point(5), colbert=token_vectors([north] * (LARGEST_POINT // 4 - 2))),
        ]
        await store.write(name, points, 1)
        read = {each.id: each for each in await store.retrieve(name, [1, 2, 3], vectors=True)}
        assert read[2].colbert == both
        assert read[3].colbert is None
        named = {"must": [{"has_id": [1, 2, 3, 5]}]}
        for question, expected in (
            (both, [(2, 2.0), (1, 1.0), (5, 1.0)]),
            (token_vectors([east, east, east]), [(1, 3.0), (2, 3.0), (5, 0.0)]),
        ):
            query = Query((Branch(question, 10),), 10, filter=named)
            (answer,) = await store.query(name, [query], seconds=SECONDS)
            assert sorted((each.id, each.score) for each in answer) == sorted(expected)
            scores = [each.score for each in answer]
            assert scores == sorted(scores, reverse=True)
        with pytest.raises(StoreRefused):
            await store.write(name, [replace(point(6), colbert=token_vectors([(1.0, 0.0)]))], 2)
    finally:
        await store.drop(name)


async def test_what_cannot_be_done_is_refused_in_the_stores_words(store: Store, name: str) -> None:
    with pytest.raises(StoreRefused, match=r"expected dim: 8, got 3"):
        await store.write(name, [Point(1, {}, (1.0, 2.0, 3.0))], 1)
    with pytest.raises(StoreRefused, match=r"expected dim: 8, got 2"):
        await store.query(name, [Query((Branch((1.0, 2.0), 1),), 1)], seconds=SECONDS)
    with pytest.raises(StoreRefused):
        await store.retrieve(name, ["no-uuid"])
    with pytest.raises(StoreRefused, match="nothing"):
        await store.write("nothing", [point(1)], 1)
    with pytest.raises(StoreRefused, match="filter"):
        await store.count(name, {"must": [{"what": 1}]})
    assert await store.count(name) == 0


async def test_an_alias_is_one_name_that_points_elsewhere_in_one_step(
    store: Store, name: str
) -> None:
    other, alias = f"{name}-b", f"{name}-alias"
    await store.create(other, LAYOUT)
    try:
        await store.write(other, [point(1)], 1)
        await store.point_alias(alias, name)
        assert await store.count(alias) == 0
        await store.point_alias(alias, other)
        assert await store.count(alias) == 1
        assert (await store.aliases())[alias] == other
    finally:
        await store.drop(other)
    assert alias not in await store.aliases()


async def test_fields_are_indexed_and_settings_changed_only_where_they_differ(
    store: Store, name: str
) -> None:
    await store.index_field(name, "tag", "keyword")
    await store.write(name, [point(n, tag="ab"[n % 2]) for n in range(10)], 1)
    found = await store.describe(name)
    assert found is not None
    assert found.payload_indexes == {"tag": "keyword"}
    assert await store.count(name, {"must": [{"key": "tag", "match": {"value": "a"}}]}) == 5
    await store.alter(name, {"m": 32, "ef_construct": 200}, INT8)
    changed = await store.describe(name)
    assert changed is not None
    assert changed.layout.hnsw == {"m": 32, "ef_construct": 200}
    assert changed.layout.quantization == INT8
    assert await store.count(name) == 10
    await store.alter(name, {"m": 32, "ef_construct": 200}, INT8)

    async def is_green() -> bool:
        described = await store.describe(name)
        return described is not None and described.is_optimised

    await eventually(is_green)
