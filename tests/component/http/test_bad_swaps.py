"""Targets that cannot take over, of each kind there is, with real files: what answers goes on."""

import pathlib
import signal
import time
from collections.abc import Callable

import pytest

from tests.support.encoder_models import write_encoder
from tests.support.swaps import (
    Listeners,
    document,
    lacking,
    pool_with,
    serving,
    settled,
    until,
    write_pair,
)
from tests.support.workers import workers
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.rollout import SwapStep, Transition
from ullage_api.wire.pool_desired import DesiredRevision, PoolDesired
from ullage_runtime.core.last_words import MOST_CHARACTERS
from ullage_runtime.core.swap import Mark
from ullage_runtime.models.journal import FileJournal
from ullage_runtime.models.sources import ModelCache

MEMORY = 1 << 30
CLIENTS = 8


def corrupt(path: pathlib.Path) -> None:
    """Write a model that lost its end on the way."""
    path.write_bytes((path.parent / "beta.gguf").read_bytes()[:-1000])


def a_page(path: pathlib.Path) -> None:
    """Write what a server sends instead of a file."""
    path.write_text("<!doctype html><title>404</title>")


def of_another_task(path: pathlib.Path) -> None:
    """Write a model that embeds and does not generate."""
    write_encoder(path)


def too_large(path: pathlib.Path) -> None:
    """Write a model whose settings ask for more than there is."""
    path.write_bytes((path.parent / "beta.gguf").read_bytes())


def target(folder: pathlib.Path, context: int, sequence: int) -> PoolDesired:
    """Return the document that wants the bad one."""
    wanted = document(folder, "bad", sequence)
    (model,) = wanted.models
    engine = EngineSettings(context_length=context, threads=1)
    revision = model.target.model_copy(update={"engine": engine})
    changed = model.model_copy(update={"target": revision})
    return wanted.model_copy(update={"models": (changed,)}).sealed(sequence)


@pytest.mark.parametrize(
    ("write", "context", "reason", "says"),
    [
        (corrupt, 2048, Reason.INVALID_MODEL, "the file has"),
        (lacking, 2048, Reason.INVALID_MODEL, "tensor 'output_norm.weight' not found"),
        (a_page, 2048, Reason.INVALID_MODEL, "it begins with"),
        (of_another_task, 2048, Reason.INVALID_MODEL, ""),
        (too_large, 1 << 22, Reason.WILL_NEVER_FIT, ""),
    ],
)
async def test_what_answers_goes_on_under_traffic_and_the_next_spec_is_tried(
    tmp_path: pathlib.Path,
    write: Callable[[pathlib.Path], None],
    context: int,
    reason: Reason,
    says: str,
) -> None:
    write_pair(tmp_path)
    write(tmp_path / "bad.gguf")
    pool = pool_with(total=MEMORY)
    async with serving(tmp_path, pool) as runtime:
        await pool.apply(document(tmp_path, "alpha", 1))
        first = await settled(pool, "alpha")
        async with Listeners(runtime.url, count=CLIENTS) as listeners:
            await pool.apply(target(tmp_path, context, 2))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            await listeners.heard(CLIENTS)
        assert (blocked.reason, blocked.final) == (reason, True)
        assert blocked.message
        assert says in blocked.message
        assert str(tmp_path) not in blocked.message
        assert blocked.active is not None
        assert first.active is not None
        assert blocked.active.revision == first.active.revision
        assert listeners.failed == listeners.mixed == []
        assert set(listeners.texts) == {"alpha"}
        await pool.apply(document(tmp_path, "beta", 3))
        await settled(pool, "beta")


class Deadly(FileJournal):
    """A journal that has the newest worker killed when a target is about to be checked."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(path, time.time)
        self.armed = False

    async def note(self, model: str, mark: Mark, want: DesiredRevision, detail: str = "") -> None:
        await super().note(model, mark, want, detail)
        if self.armed and mark is SwapStep.CHECKING:
            workers()[-1].send_signal(signal.SIGKILL)


async def test_a_target_whose_worker_is_killed_is_told_with_its_last_words(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python itself then has much to say on a process's standard error, more than is told.
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    write_pair(tmp_path)
    too_large(tmp_path / "bad.gguf")
    journal = Deadly(tmp_path / "state" / "swaps.sqlite")
    pool = pool_with(journal)
    async with serving(tmp_path, pool) as runtime:
        await pool.apply(document(tmp_path, "alpha", 1))
        first = await settled(pool, "alpha")
        journal.armed = True
        async with Listeners(runtime.url, count=CLIENTS) as listeners:
            await pool.apply(target(tmp_path, 1024, 2))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            await listeners.heard(CLIENTS)
        assert (blocked.reason, blocked.final) == (Reason.LOAD_FAILED, False)
        said, _, words = blocked.message.partition("; its last words: ")
        assert "was ended by SIGKILL" in said
        assert words.startswith("import time: ")
        assert MOST_CHARACTERS / 2 < len(words) <= MOST_CHARACTERS
        assert blocked.active is not None
        assert first.active is not None
        assert blocked.active.revision == first.active.revision
        assert listeners.failed == listeners.mixed == []
        journal.armed = False
        await until(pool, lambda m: m.transition is Transition.UP_TO_DATE)


async def test_a_target_that_is_not_there_is_waited_for_while_what_answers_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    write_pair(tmp_path)
    (tmp_path / "beta.gguf").rename(tmp_path / "to_come")
    pool = pool_with(source=ModelCache(tmp_path / "cache"))
    async with serving(tmp_path, pool) as runtime:
        await pool.apply(by_address(document(tmp_path, "alpha", 1)))
        first = await settled(pool, "alpha")
        async with Listeners(runtime.url, count=CLIENTS) as listeners:
            await pool.apply(by_address(document(tmp_path, "beta", 2)))
            blocked = await until(pool, lambda m: m.transition is Transition.BLOCKED_BY_FAILED_LOAD)
            await listeners.heard(CLIENTS)
            assert (blocked.reason, blocked.final) == (Reason.SOURCE_UNAVAILABLE, False)
            assert "beta.gguf" in blocked.message
            assert blocked.active is not None
            assert first.active is not None
            assert blocked.active.revision == first.active.revision
            assert set(listeners.texts) == {"alpha"}
            (tmp_path / "to_come").rename(tmp_path / "beta.gguf")
            await settled(pool, "beta")
        assert listeners.failed == listeners.mixed == []


def by_address(wanted: PoolDesired) -> PoolDesired:
    """Return a document whose model's file has an address, as a real source wants it."""
    (model,) = wanted.models
    revision = model.target.model_copy(update={"uri": f"file:{model.target.uri}"})
    changed = model.model_copy(update={"target": revision})
    return wanted.model_copy(update={"models": (changed,)}).sealed(wanted.sequence)
