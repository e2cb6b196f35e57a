"""How soon a model that left memory answers again: `python -m bench warm`.

A model is asked, left alone until it has left, and asked again. Told are the seconds of the load
and those to the first token, with and without an engine process that is up before, and with the
file on the disk alone, in the page cache, or as the warm tier keeps it while the page cache has
nothing of it; there also of a long prompt, which is new or was used before the model left.
"""

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.model_file import model_file
from bench.page_cache import drop
from bench.results import RESULTS, Kept
from tests.support.fake_models import until, wanted
from tests.support.runtimes import eventually
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.profile import RuntimeSettings
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.core.domain import GenerateRequest, Sampling
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.pool import ModelPool
from ullage_runtime.models.ports import CachedModel, Inspect
from ullage_runtime.models.spare import SETTLE_SECONDS

CONTEXT: Final = 2048
PATIENCE: Final = 60.0
PROMPT_TOKENS: Final = 384


class Fetched:
    """A source whose files have been fetched and checked already."""

    async def fetch(
        self,
        uri: str,
        sha256: str | None,  # noqa: ARG002
        settings: RuntimeSettings,  # noqa: ARG002
        progress: Callable[[int, int | None], None],  # noqa: ARG002
        inspect: Inspect | None = None,  # noqa: ARG002
        precision: PrecisionType = PrecisionType.AUTO,  # noqa: ARG002
    ) -> CachedModel:
        """Return the file at a path."""
        return CachedModel(path=uri, sha256=uri, size=await asyncio.to_thread(os.path.getsize, uri))


@dataclass(frozen=True, slots=True)
class Kind:
    """One way for a model to come back."""

    process: str
    """`new`, or `spare`: one that is up before."""
    file: str
    """Where the model's file is: on the `disk` alone, in the `page cache`, or as a `copy`."""
    prompt: str = "short"
    """`short`, or a long one: `new`, or of which the prefix was `saved`."""

    @property
    def spare(self) -> bool:
        """Whether a process is up before."""
        return self.process == "spare"

    @property
    def is_warm(self) -> bool:
        """Whether it comes back from the warm tier."""
        return self.file == "copy"


KINDS: Final = (
    Kind("new", "disk"),
    Kind("new", "page cache"),
    Kind("spare", "disk"),
    Kind("spare", "page cache"),
    Kind("spare", "copy"),
    Kind("spare", "copy", "new"),
    Kind("spare", "copy", "saved"),
)


async def measured(file: Path, rounds: int, kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """Return how long each return took, of kinds that differ in nothing but file and prompt."""
    spare, is_warm = kinds[0].spare, kinds[0].is_warm
    leaves = ResidencySettings(idle_seconds=1) if is_warm else ResidencySettings(unload_seconds=1)
    desired = wanted(
        "model", str(file), residency=leaves, engine=EngineSettings(context_length=CONTEXT)
    )
    gone = Reason.WARM if is_warm else Reason.IDLE
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
        if is_warm:
            await first_token(pool, prompt_of("saved", 0))
        for number, kind in enumerate(tuple(kinds) * rounds):
            await until(pool, lambda m: m.reason is gone, "model")
            await settled(pool, spare=spare)
            if kind.file != "page cache":
                drop(file)
            seconds = await first_token(pool, prompt_of(kind.prompt, number))
            model = pool.report().model("model")
            if model is None or model.active is None:
                raise AssertionError("it has just answered")
            load = model.active.promote_seconds if is_warm else model.active.load_seconds
            found.append({**asdict(kind), "load": load, "firstToken": round(seconds, 4)})
    return found


def prompt_of(kind: str, number: int) -> tuple[int, ...]:
    """Return a prompt's tokens: `saved` ones are always the same, `new` ones never."""
    if kind == "short":
        return 5, 6, 7
    tokens = random.Random(0 if kind == "saved" else 1 + number)
    return tuple(tokens.randrange(5, 250) for _ in range(PROMPT_TOKENS))


async def settled(pool: ModelPool, *, spare: bool) -> None:
    """Wait until the spare process is up, which the ledger shows, or for as long as that takes."""

    def is_there() -> bool:
        (device,) = pool.report().devices
        return device.ledger_bytes > device.warm_bytes

    if not spare:
        await asyncio.sleep(SETTLE_SECONDS)
        return
    await eventually(is_there, PATIENCE)
    await asyncio.sleep(SETTLE_SECONDS)  # it is promised before it is up


async def first_token(pool: ModelPool, prompt: tuple[int, ...]) -> float:
    """Ask, and return the seconds until the first token."""
    began = time.monotonic()
    request = GenerateRequest("r", prompt=prompt, sampling=Sampling(max_tokens=1))
    async with pool.lease(pool.find("model"), tenant="") as lease:
        async for chunk in lease.generate(request):
            if chunk.tells:
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
    alike = groupby(KINDS, key=lambda kind: (kind.spare, kind.is_warm))
    runs = [run for _, kinds in alike for run in asyncio.run(measured(file, rounds, tuple(kinds)))]
    kept.write({"file": file.name, "fileBytes": file.stat().st_size, "runs": runs})
    console.print(_table(runs))
    kept.tell(console)


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("PROCESS", "FILE", "PROMPT", "LOAD", "FIRST TOKEN", "COLD ÷ THIS"):
        table.add_column(name, justify="left" if name in {"PROCESS", "FILE", "PROMPT"} else "right")
    cold = _median(runs, KINDS[0], "load")
    for kind in KINDS:
        load = _median(runs, kind, "load")
        token = _median(runs, kind, "firstToken")
        cells = (f"{load:.3f} s", f"{token:.3f} s", f"{cold / load:.1f}")
        table.add_row(kind.process, kind.file, kind.prompt, *cells)
    return table


def _median(runs: list[dict[str, Any]], kind: Kind, what: str) -> float:
    these = [run for run in runs if {name: run[name] for name in asdict(kind)} == asdict(kind)]
    return statistics.median(float(run[what]) for run in these)
