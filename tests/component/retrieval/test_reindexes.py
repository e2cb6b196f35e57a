"""Reindex jobs on the real embedded store: what is searched, written, gone back to and removed."""

import asyncio
import itertools
import pathlib
from collections.abc import Iterator

import pytest

from tests.support.reindexed import Place, place, spec
from tests.support.stores import eventually
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_runtime.core.errors import LeaseHeld, StaleLease
from ullage_runtime.retrieval.ingest.documents import Document
from ullage_runtime.retrieval.reindex.wire import (
    CheckpointRequest,
    FailureRequest,
    LeaseRequest,
    PageRequest,
    Range,
    RangeProgress,
)
from ullage_runtime.retrieval.stores.port import Point


async def test_a_model_takes_over_and_goes_back_with_the_writes_made_since(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(300))
        await here.wants(spec("large"), 2)
        await here.job(rollbackSeconds=600)
        soaking = await here.reached("Soaking")
        assert soaking.plan == "Reembed"
        assert soaking.points.copied == 300
        assert (here.notes.model, here.notes.layout.dimensions) == ("large", 16)
        assert [await here.found(n) for n in range(0, 300, 30)] == list(range(0, 300, 30))
        await here.write(7, 300, again=True)
        await here.notes.delete([8], wait=True)

        await here.job(rollbackSeconds=600, rollback=True)
        back = await here.reached("Cancelled")
        assert back.reason == "RolledBack"
        assert (here.notes.model, here.notes.layout.dimensions) == ("small", 8)
        assert await here.found(300) == 300
        (seven,) = await here.notes.retrieve([7], vectors=False)
        assert seven.payload["again"] is True
        assert await here.notes.retrieve([8], vectors=False) == []
        assert await here.notes.store.describe("notes-2") is None
        assert await here.notes.store.aliases() == {"notes": "notes-1"}


async def test_searches_and_writes_go_on_and_every_answer_fits_one_model(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(200))
        await here.wants(spec("large"), 2)
        models: set[str] = set()
        written: dict[int, int] = {}
        over = asyncio.Event()

        def turns() -> Iterator[int]:
            return itertools.takewhile(lambda _: not over.is_set(), itertools.count())

        async def searching() -> None:
            for turn in turns():
                number = turn % 100
                assert await here.found(number) == number
                models.add(here.notes.model)

        async def writing() -> None:
            for turn in turns():
                number = 100 + turn % 120
                if turn % 7 == 3:
                    await here.notes.delete([number], wait=True)
                    written.pop(number, None)
                else:
                    await here.write(number, turn=turn)
                    written[number] = turn
                (found,) = await here.notes.retrieve([number], vectors=True) or (None,)
                assert (found and found.payload["turn"]) == written.get(number)

        users = [asyncio.create_task(searching()), asyncio.create_task(writing())]
        try:
            await here.job(rollbackSeconds=0)
            done = await here.reached("Succeeded")
            assert done.verification is not None
            assert done.verification.passed
            # What was deleted or written anew meanwhile was not copied, and is done all the same.
            assert done.points.copied == done.points.total
            ended = [task for task in users if task.done()]
            assert ended == [], [task.exception() for task in ended]
            # What is being written is written to its end, and noted.
            over.set()
            await asyncio.gather(*users)
        finally:
            for task in users:
                task.cancel()
            await asyncio.gather(*users, return_exceptions=True)
        assert models == {"small", "large"}
        assert here.notes.changes.routing.write == ("notes-2",)
        assert await here.notes.store.describe("notes-1") is None
        points = {p.id: p for p in await here.notes.retrieve(list(written), vectors=True)}
        assert {n: p.payload["turn"] for n, p in points.items()} == written
        assert {len(p.dense or ()) for p in points.values()} == {16}


async def test_a_profile_is_built_in_place_and_a_copy_can_be_asked_for(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec(profile="HighAccuracy")) as here:
        await here.write(*range(50))
        await here.wants(spec(profile="FastQuery"), 2)
        await here.job()
        done = await here.reached("Succeeded")
        assert (done.plan, done.switched) == ("InPlace", False)
        built = await here.notes.store.describe("notes-1")
        assert built is not None
        assert built.layout.hnsw["ef_construct"] == 100
        assert built.layout.quantization is not None

        await here.wants(spec(profile="HighAccuracy"), 3)
        await here.job("back")
        assert (await here.reached("Succeeded", name="back")).plan == "InPlace"
        built = await here.notes.store.describe("notes-1")
        assert built is not None
        assert built.layout.hnsw["ef_construct"] == 256
        assert built.layout.quantization is None

        await here.wants(spec(profile="FastQuery"), 4)
        await here.job("copy", mode="Copy", rollbackSeconds=0)
        done = await here.reached("Succeeded", name="copy")
        assert (done.plan, done.switched) == ("Copy", True)
        assert here.notes.physical == "notes-2"
        assert await here.found(31) == 31

        await here.job("again")
        assert (await here.reached("Succeeded", name="again")).reason == "AlreadyCurrent"


async def test_documents_are_cut_again_from_their_originals(tmp_path: pathlib.Path) -> None:
    whole = " ".join(f"word{n}" for n in range(400))
    async with place(tmp_path, spec(chunking={"maxTokens": 200})) as here:
        ingestion = here.collections.ingestion("notes")
        documents = [Document(f"d{n}", f"{whole} {n}") for n in range(5)]
        operation = await ingestion.accept(documents)
        await ingestion.finished(operation.id, 60)
        before = await here.notes.count()
        await here.wants(spec(chunking={"maxTokens": 50}), 2)
        await here.job()
        done = await here.reached("Succeeded")
        assert (done.plan, done.points.total) == ("Rechunk", 5)
        assert await here.notes.count() > 2 * before


async def test_a_job_is_cancelled_while_it_copies_and_leaves_nothing(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(*range(20))
        await here.wants(spec("large"), 2)
        await here.job()
        await here.reached("Copying")
        await here.write(21)
        assert here.notes.changes.routing.write == ("notes-1", "notes-2")
        await here.job(cancel=True)
        assert (await here.reached("Cancelled")).reason == "Cancelled"
        assert list(here.notes.changes.routing.write) == ["notes-1"]
        assert await here.notes.store.describe("notes-2") is None
        assert await here.found(21) == 21


async def test_a_job_whose_resource_is_gone_is_cancelled(tmp_path: pathlib.Path) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(1)
        await here.wants(spec("large"), 2)
        await here.job()
        await here.reached("Copying")
        await here.reindexes.apply([])
        assert (await here.reached("Cancelled")).phase == "Cancelled"
        await here.reindexes.apply([])
        assert here.reindexes.reported() == ()


async def test_a_switch_waits_for_approval_and_a_pause_keeps_both_sides_written(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(20))
        await here.wants(spec("large"), 2)
        await here.job(cutover="Manual", rollbackSeconds=0)
        ready = await here.reached("ReadyToSwitch")
        await eventually_reason(here, "WaitingForApproval")
        assert ready.switched is False
        await here.job(cutover="Manual", rollbackSeconds=0, suspend=True)
        await here.reached("Paused")
        await here.write(30)
        await here.notes.changes.settled(("notes-2",), 30)
        (copy,) = await here.notes.store.retrieve("notes-2", [30], vectors=True)
        assert len(copy.dense or ()) == 16
        await here.job(cutover="Manual", rollbackSeconds=0, approve=True)
        await here.reached("Succeeded")
        assert await here.found(30) == 30


async def eventually_reason(here: Place, reason: str) -> None:
    async def is_so() -> bool:
        return here.report().reason == reason

    await eventually(is_so, 60)


async def test_poison_is_named_and_above_the_limit_nothing_is_switched(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(10))
        here.embedder.poison = "number 7"
        await here.wants(spec("large"), 2)
        await here.job()
        failed = await here.reached("Failed")
        assert failed.reason == "TooManyFailures"
        assert here.notes.model == "small"
        assert await here.notes.store.describe("notes-2") is None

        await here.job("lenient", verify={"maxFailed": 1}, rollbackSeconds=0)
        done = await here.reached("Succeeded", name="lenient")
        assert done.points.failed == 1
        assert here.notes.model == "large"
        assert [p.id for p in await here.notes.retrieve([7], vectors=False)] == [7], "it is kept"


async def test_a_foreign_writer_is_found_and_named(tmp_path: pathlib.Path) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(10))
        await here.wants(spec("large"), 2)
        await here.job(cutover="Manual")
        await here.reached("ReadyToSwitch")
        await here.job(cutover="Manual", cancel=True)
        await here.reached("Cancelled")

        here.works = False
        await here.job("next", cutover="Manual")
        await here.reached("Copying", name="next")
        foreign = Point(99, {"text": "mine"}, (1.0,) * 16)
        target = here.report("next").target
        assert target is not None
        await here.notes.store.copy(target.physical_collection or "", [foreign], 1)
        here.works = True
        failed = await here.reached("Failed", name="next")
        assert failed.reason == "VerificationFailed"
        assert "99" in failed.message


async def test_a_model_that_is_away_is_waited_for_and_writes_are_taken_meanwhile(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(*range(10))
        await here.wants(spec("large"), 2)
        await here.job(rollbackSeconds=0)
        await here.reached("Copying")
        here.embedder.away.add("large")
        await here.write(11, late=True)
        assert await here.found(11) == 11
        here.embedder.away.clear()
        here.works = True
        await here.reached("Succeeded")
        assert await here.found(11) == 11


async def test_one_job_per_collection_at_a_time_and_the_urgent_one_first(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(1)
        await here.wants(spec("large"), 2)
        await here.job("first")
        await here.reached("Copying", name="first")
        for name, priority in (("slow", "Batch"), ("urgent", "High")):
            given = {"collection": "notes", "priority": priority, "rollbackSeconds": 0}
            await here.reindexes.create(name, ReindexJobSpec.model_validate(given))
        assert (await here.reached("Queued", name="slow")).phase == "Queued"
        await eventually_busy(here, "urgent")
        await here.job("first", cancel=True)
        await here.reached("Copying", name="urgent")
        assert here.report("slow").phase == "Queued"
        here.works = True
        await here.reached("Succeeded", name="urgent")
        assert (await here.reached("Succeeded", name="slow")).reason == "AlreadyCurrent"


async def eventually_busy(here: Place, name: str) -> None:
    async def is_so() -> bool:
        return here.report(name).reason == "TargetBusy" and "first" in here.report(name).message

    await eventually(is_so, 60)


async def test_a_worker_whose_lease_was_taken_can_change_nothing(tmp_path: pathlib.Path) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(*range(5))
        await here.wants(spec("large"), 2)
        await here.job()
        await here.reached("Copying")
        driven = here.reindexes.find("job")
        old = await driven.lease(LeaseRequest(worker="old"))
        with pytest.raises(LeaseHeld, match="'old' drives"):
            await driven.lease(LeaseRequest(worker="new"))
        driven._until = 0.0  # as if it had been silent
        new = await driven.lease(LeaseRequest(worker="new"))
        assert new.token == old.token + 1
        for work in (
            driven.lease(LeaseRequest(worker="old", token=old.token)),
            driven.page(PageRequest(token=old.token, range=Range(index=0))),
            driven.fail(FailureRequest(token=old.token, message="no")),
        ):
            with pytest.raises(StaleLease):
                await work
        assert here.report().phase == "Copying"
        # One that goes, and says so, keeps nobody waiting.
        await driven.lease(LeaseRequest(worker="new", token=new.token, ends=True))
        assert (await driven.lease(LeaseRequest(worker="third"))).token == new.token + 1


@pytest.mark.parametrize(
    "phase", ["Copying", "CatchingUp", "Indexing", "Verifying", "ReadyToSwitch", "Soaking"]
)
async def test_the_next_process_goes_on_where_the_last_one_was(
    tmp_path: pathlib.Path, phase: str
) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = phase != "Copying"
        await here.write(*range(40))
        await here.wants(spec("large"), 2)
        await here.job(rollbackSeconds=600, cutover="Manual", approve=phase == "Soaking")
        await here.reached(phase, "ReadyToSwitch", "Soaking")
        await here.write(50)
    async with place(tmp_path, spec("large")) as here:
        await here.write(51)
        await here.job(rollbackSeconds=600, cutover="Manual", approve=True)
        await here.reached("Soaking")
        assert [await here.found(n) for n in (3, 50, 51)] == [3, 50, 51]
        await here.job(rollbackSeconds=600, cutover="Manual", approve=True, rollback=True)
        await here.reached("Cancelled")
        assert here.notes.model == "small"
        assert [await here.found(n) for n in (3, 50, 51)] == [3, 50, 51]


async def test_a_copy_that_is_slow_still_says_how_fast_it_is(tmp_path: pathlib.Path) -> None:
    async with place(tmp_path, spec()) as here:
        here.works = False
        await here.write(*range(40))
        await here.wants(spec("large"), 2)
        await here.job()
        await here.reached("Copying")
        assert (here.report().rate, here.report().eta_seconds) == (0, None), "nothing is copied yet"
        driven = here.reindexes.find("job")
        lease = await driven.lease(LeaseRequest(worker="slow"))
        page = await driven.page(PageRequest(token=lease.token, range=Range(index=0), limit=10))
        done = RangeProgress(range=Range(index=0), next=page.next, copied=page.copied)
        kept = CheckpointRequest(
            token=lease.token, configuration=lease.configuration, ranges=(done,)
        )
        await driven.keep(kept)
        told = here.report()
        assert told.points.copied == 10
        assert told.rate is not None
        assert told.rate >= 1
        assert told.eta_seconds is not None
        assert told.eta_seconds > 0
