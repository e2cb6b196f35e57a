"""How soon a model that left memory answers again: `python -m bench warm`.

A model is asked, left alone until it has left, and asked again. Told are the seconds of the load
and those to the first token, with and without an engine process that is up before, and with the
file in the page cache or on the disk alone.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from tests.support.fake_models import until, wanted
from tests.support.runtimes import eventually
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.core.domain import GenerateRequest, Sampling
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.spare import SETTLE_SECONDS

CONTEXT: Final = 2048
PATIENCE: Final = 60.0


class Fetched:
    """A source whose files have been fetched and checked already."""

    async def fetch(
        self,
        uri: str,
        sha256: str | None,  # noqa: ARG002
        settings: RuntimeSettings,  # noqa: ARG002
        progress: Callable[[int, int | None], None],  # noqa: ARG002
        inspect: Inspect | None = None,  # noqa: ARG002
    ) -> CachedModel:
        """Return the file at a path."""
        return CachedModel(path=uri, sha256=uri, size=1)


async def measured(file: Path, rounds: int, *, spare: bool) -> list[dict[str, Any]]:
    """Return how long each return took, every other one from the disk."""
    desired = wanted(
        "model",
        str(file),
        residency=ResidencySettings(unload_seconds=1),
        engine=EngineSettings(context_length=CONTEXT),
    )
    found: list[dict[str, Any]] = []
    async with ModelPool(
        source=Fetched(),
        pod_name="bench",
        ordinal=0,
        version="0",
        devices=[HostMemory()],
        kind_of=engine_of if spare else None,
    ) as pool:
        document = PoolDesired(namespace="bench", pool="default", models=(desired,))
        await pool.apply(document.sealed(1))
        await until(pool, lambda m: m.reason is Reason.SERVING, "model")
        for number in range(2 * rounds):
            await until(pool, lambda m: m.reason is Reason.IDLE, "model")
            await settled(pool, spare=spare)
            cached = number % 2 == 0
            if not cached:
                drop(file)
            seconds = await first_token(pool)
            model = pool.report().model("model")
            if model is None or model.active is None:
                raise AssertionError("it has just answered")
            load = model.active.load_seconds
            found.append(
                {"spare": spare, "cached": cached, "load": load, "firstToken": round(seconds, 4)}
            )
    return found


async def settled(pool: ModelPool, *, spare: bool) -> None:
    """Wait until the spare process is up, which the ledger shows, or for as long as that takes."""
    if not spare:
        await asyncio.sleep(SETTLE_SECONDS)
        return
    await eventually(lambda: pool.report().devices[0].ledger_bytes > 0, PATIENCE)
    await asyncio.sleep(SETTLE_SECONDS)  # it is promised before it is up


def drop(file: Path) -> None:
    """Have the kernel forget a file's pages, which nobody maps."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


async def first_token(pool: ModelPool) -> float:
    """Ask, and return the seconds until the first token."""
    began = time.monotonic()
    request = GenerateRequest("r", prompt=(5, 6, 7), sampling=Sampling(max_tokens=1))
    async with pool.lease(pool.find("model"), tenant="") as lease:
        async for _ in lease.generate(request):
            return time.monotonic() - began
    raise AssertionError("no token came")


def main(
    model: Annotated[str, typer.Option(help="Which generated file.")] = "medium",
    rounds: Annotated[int, typer.Option(min=1, help="Returns of each kind.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare what a model's return to memory costs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    kept = Kept("warm", machine.described(), out)
    file = model_file(model)
    runs = [
        run for spare in (False, True) for run in asyncio.run(measured(file, rounds, spare=spare))
    ]
    kept.write({"file": file.name, "fileBytes": file.stat().st_size, "runs": runs})
    console.print(_table(runs))
    kept.tell(console)


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("PROCESS", "FILE", "LOAD", "FIRST TOKEN"):
        table.add_column(name, justify="left" if name in {"PROCESS", "FILE"} else "right")
    for spare in (False, True):
        for cached in (False, True):
            these = [run for run in runs if (run["spare"], run["cached"]) == (spare, cached)]
            load, token = (
                statistics.median(run[key] for run in these) for key in ("load", "firstToken")
            )
            table.add_row(
                "spare" if spare else "new",
                "page cache" if cached else "disk",
                f"{load:.3f} s",
                f"{token:.3f} s",
            )
    return table
