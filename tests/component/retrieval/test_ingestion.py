"""Documents on their way in, on the real embedded store, with a model that can be made to wait."""

import asyncio
import pathlib
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.reindexed import Place, QuickEmbedder, place, spec
from ullage_runtime.core.errors import ServingError
from ullage_runtime.core.pooled import Role
from ullage_runtime.retrieval.embedding import Embedded
from ullage_runtime.retrieval.ingest.documents import Document, DocumentsFile, Operation, State
from ullage_runtime.retrieval.ingest.ingestion import AT_ONCE, READ_AHEAD, Ingestion

PATIENCE = 60.0
LONG = "\n\n".join(f"part {n} of a slow text that is cut into several" for n in range(6))


@dataclass
class Gated(QuickEmbedder):
    """Embeds slow texts only once it is told to."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def embed(self, model: str, texts: Sequence[str], role: Role, **given: Any) -> Embedded:
        if any("slow" in text for text in texts):
            self.reached.set()
            await self.gate.wait()
        return await super().embed(model, texts, role, **given)


@pytest.fixture
async def embedder() -> Gated:
    return Gated()


@pytest.fixture
async def here(tmp_path: pathlib.Path, embedder: Gated) -> AsyncIterator[Place]:
    wanted = spec(chunking={"splitter": "Text", "maxTokens": 16, "overlapTokens": 0})
    async with asyncio.timeout(PATIENCE), place(tmp_path, wanted, embedder) as made:
        yield made


def ingestion(here: Place) -> Ingestion:
    return here.collections.ingestion("notes")


async def done(here: Place, operation: Operation) -> Operation:
    found = await ingestion(here).finished(operation.id, PATIENCE)
    assert found is not None
    assert found.finished is not None
    return found


async def test_a_document_that_takes_long_holds_up_no_other(here: Place, embedder: Gated) -> None:
    taken = ingestion(here)
    slow = await taken.accept([Document("slow", LONG)])
    await embedder.reached.wait()
    many = [Document(f"quick/{n}", f"text {n}") for n in range(READ_AHEAD + AT_ONCE + 1)]
    assert (await done(here, await taken.accept(many))).done == len(many)
    # Neither is who deletes another one.
    await taken.delete("quick/0", wait=True)
    assert (await taken.operation(slow.id) or slow).pending == 1
    embedder.gate.set()
    whole = await done(here, slow)
    assert whole.chunks > 1
    assert await here.notes.count() == len(many) - 1 + whole.chunks


async def test_a_document_is_deleted_with_all_that_was_being_written_of_it(
    here: Place, embedder: Gated
) -> None:
    taken = ingestion(here)
    operation = await taken.accept([Document("slow", LONG)])
    await embedder.reached.wait()
    deleting = asyncio.create_task(taken.delete("slow", wait=True))
    await asyncio.sleep(0)
    embedder.gate.set()
    await deleting
    assert await here.notes.count() == 0
    assert (await done(here, operation)).superseded == 1


async def test_a_document_brought_again_while_it_is_written_leaves_none_of_its_former_chunks(
    here: Place, embedder: Gated
) -> None:
    taken = ingestion(here)
    first = await taken.accept([Document("one", LONG)])
    await embedder.reached.wait()
    second = await taken.accept([Document("one", "short")])
    embedder.gate.set()
    assert (await done(here, second)).chunks == 1
    assert (await done(here, first)).superseded == 1
    assert await here.notes.count() == 1
    kept = await taken.document("one")
    assert (kept.state, kept.chunks, kept.document.text) == (State.DONE, 1, "short")


async def test_what_is_written_of_a_document_that_came_to_no_end_goes_once_it_is_replaced(
    here: Place, embedder: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder.gate.set()
    taken = ingestion(here)
    tried = threading.Event()

    def no_room(*_: object) -> None:
        tried.set()
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(DocumentsFile, "note_done", no_room)
        await taken.accept([Document("one", LONG)])
        await asyncio.to_thread(tried.wait, PATIENCE)
        assert await here.notes.count() > 1
        # As it is after a crash, too: its chunks are there, and it is still to be done.
        second = await taken.accept([Document("one", "short")])
    assert (await done(here, second)).chunks == 1
    assert await here.notes.count() == 1


async def test_what_waits_for_its_model_is_tried_again_and_what_is_bad_fails_alone(
    here: Place, embedder: Gated
) -> None:
    taken = ingestion(here)
    embedder.away.add("small")
    given = [Document(f"{n}", f"text {n}") for n in range(AT_ONCE + 2)]
    bad = Document("bad", f"poison {embedder.poison}")
    operation = await taken.accept([bad, *given])
    assert (await taken.further(operation, 0.1)) == operation
    embedder.away.clear()
    found = await done(here, operation)
    assert (found.done, found.failed, found.errors) == (
        len(given),
        1,
        {"bad": "the text is poison"},
    )


async def test_who_waits_for_an_operation_is_told_when_its_collection_closes(
    here: Place, embedder: Gated
) -> None:
    taken = ingestion(here)
    operation = await taken.accept([Document("slow", LONG)])
    await embedder.reached.wait()
    waiting = asyncio.create_task(taken.further(operation, PATIENCE))
    await asyncio.sleep(0)
    await here.collections.apply([])
    assert await waiting is None
    with pytest.raises(ServingError):
        ingestion(here)
