"""Targets that cannot take over, of each kind there is, with real files: what answers goes on."""

import pathlib
from collections.abc import Callable

import pytest

from tests.support.encoder_models import write_encoder
from tests.support.swaps import Listeners, document, pool_with, serving, settled, until, write_pair
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.rollout import Transition
from ullage_api.wire.pool_desired import PoolDesired

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
    ("write", "context", "reason"),
    [
        (corrupt, 2048, Reason.INVALID_MODEL),
        (a_page, 2048, Reason.INVALID_MODEL),
        (of_another_task, 2048, Reason.INVALID_MODEL),
        (too_large, 1 << 22, Reason.WILL_NEVER_FIT),
    ],
)
async def test_what_answers_goes_on_under_traffic_and_the_next_spec_is_tried(
    tmp_path: pathlib.Path,
    write: Callable[[pathlib.Path], None],
    context: int,
    reason: Reason,
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
        assert blocked.active is not None
        assert first.active is not None
        assert blocked.active.revision == first.active.revision
        assert listeners.failed == listeners.mixed == []
        assert set(listeners.texts) == {"alpha"}
        await pool.apply(document(tmp_path, "beta", 3))
        await settled(pool, "beta")
