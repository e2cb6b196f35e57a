"""How well loads are foreseen: `python -m bench estimates`.

Each shape is estimated, loaded, and worked hard enough that it takes all it will: a batch as large
as they come, and as many sequences as it may have. Estimate and reality are then compared, both
above a worker that has loaded nothing.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from bench import machine
from bench.console import console
from bench.latency import GUIDE
from bench.model_file import model_file
from bench.results import RESULTS, Kept
from tests.support.encoder_models import Encoder, write_encoder
from ullage_runtime.core.domain import CacheType, EngineSpec, Footprint, GenerateRequest, Sampling
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability, EmbedRequest
from ullage_runtime.core.tokens import TokenizeRequest
from ullage_runtime.engines.worker.engine import WorkerEngine

LARGE: Final = 300_000_000
"""Bytes from which a model must be foreseen within a share of its size."""
SHARE: Final = 0.03
SLACK: Final = 16 << 20
"""Bytes that a smaller one may be off."""
BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and how it is loaded."""

    file: Path
    context: int
    cache: CacheType = CacheType.F16
    parallel: int = 8
    purpose: Ability = Ability.GENERATE

    @property
    def spec(self) -> EngineSpec:
        """What the engine is asked for."""
        return EngineSpec(
            path=str(self.file),
            context_length=self.context,
            kv_cache_type=self.cache,
            parallel=self.parallel,
            purpose=self.purpose,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What was foreseen and what came, in bytes."""

    case: Case
    estimate: Footprint
    empty: int
    """What a worker takes that has loaded nothing."""
    resident: int

    @property
    def foreseen(self) -> int:
        """The estimate above an empty worker."""
        return self.estimate.total - self.empty

    @property
    def actual(self) -> int:
        """What the loaded worker takes above an empty one."""
        return self.resident - self.empty

    @property
    def error(self) -> float:
        """By which share of the actual size the estimate is too high, or too low if negative."""
        return self.foreseen / self.actual - 1

    @property
    def holds(self) -> bool:
        """Whether the estimate is good enough."""
        if self.case.file.stat().st_size >= LARGE:
            return abs(self.error) <= SHARE
        return abs(self.foreseen - self.actual) <= SLACK

    def to_wire(self) -> dict[str, Any]:
        """Return it for the results."""
        case, estimate = self.case, self.estimate
        return {
            "file": case.file.name,
            "fileBytes": case.file.stat().st_size,
            "contextLength": case.context,
            "kvCacheType": case.cache.value,
            "parallel": case.parallel,
            "purpose": case.purpose.value,
            "weights": estimate.weights,
            "kvCache": estimate.kv_cache,
            "compute": estimate.compute,
            "process": estimate.overhead,
            "empty": self.empty,
            "foreseen": self.foreseen,
            "actual": self.actual,
            "error": round(self.error, 4),
            "holds": self.holds,
        }


async def measured(case: Case) -> Found:
    """Estimate, load and work a case; raises LoadError or ServingError."""
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        empty = (await engine.stats()).resident_bytes
        estimate = await engine.estimate(case.spec)
    finally:
        await engine.unload()
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        await engine.load(case.spec)
        await _work(engine, case)
        resident = (await engine.stats()).resident_bytes
    finally:
        await engine.unload()
    return Found(case, estimate, empty, resident)


async def _work(engine: WorkerEngine, case: Case) -> None:
    text = "red " * max(BATCH, case.context)
    told = await engine.tokenize(TokenizeRequest("work", text))
    tokens = told.ids[: case.context - 8]
    if case.purpose is not Ability.GENERATE:
        await engine.embed(
            EmbedRequest("work", (tokens, *(tokens[:8] for _ in range(DEFAULT_TEXTS))))
        )
        return
    await _generated(engine, tokens[: BATCH + BATCH // 2], 2)
    share = min(BATCH, (case.context - 8) // case.parallel - 8)
    await asyncio.gather(*(_generated(engine, tokens[:share], 4) for _ in range(case.parallel)))


async def _generated(engine: WorkerEngine, prompt: Sequence[int], count: int) -> None:
    sampling = Sampling(temperature=0, max_tokens=count, ignores_end=True)
    request = GenerateRequest("work", prompt=tuple(prompt), sampling=sampling)
    async for _ in engine.generate(request):
        pass


def cases(folder: Path) -> list[Case]:
    """Return what is measured: small and large files, all kinds of contexts and caches."""
    encoder = Encoder(width=384, layers=12, heads=12, feed_forward=1536, context=2048)
    file = write_encoder(folder / "encoder.gguf", encoder)
    tiny, medium = model_file("tiny"), model_file("medium")
    q8, q4, embed = CacheType.Q8_0, CacheType.Q4_0, Ability.EMBED
    return [
        Case(GUIDE, 512),
        Case(GUIDE, 2048),
        Case(GUIDE, 2048, q8),
        Case(tiny, 8192),
        Case(tiny, 8192, q4, 32),
        Case(file, 512, parallel=DEFAULT_TEXTS, purpose=embed),
        Case(file, 2048, parallel=DEFAULT_TEXTS, purpose=embed),
        Case(medium, 512, parallel=1),
        Case(medium, 2048),
        Case(medium, 4096, parallel=32),
        Case(medium, 8192),
        Case(medium, 8192, q8),
        Case(medium, 8192, q4),
        Case(medium, 512, parallel=DEFAULT_TEXTS, purpose=embed),
        Case(medium, 2048, parallel=DEFAULT_TEXTS, purpose=embed),
    ]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare what loads are estimated to take with what they take."""
    kept = Kept("estimates", machine.described(), out)
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder:
        for case in cases(Path(folder)):
            found.append(asyncio.run(measured(case)))
            console.print(f"[dim]{len(found)}[/] {case.file.name}: {100 * found[-1].error:+.1f} %")
        kept.write({"cases": [each.to_wire() for each in found]})
        console.print(_table(found))
    kept.tell(console)


def _table(found: list[Found]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("FILE", "FOR", "CONTEXT", "CACHE", "PARALLEL", "FORESEEN", "ACTUAL", "OFF", ""):
        table.add_column(name, justify="left" if name in {"FILE", "FOR"} else "right")
    for each in found:
        case = each.case
        table.add_row(
            case.file.name,
            case.purpose.value,
            str(case.context),
            case.cache.value,
            str(case.parallel),
            f"{each.foreseen / (1 << 20):.1f} MiB",
            f"{each.actual / (1 << 20):.1f} MiB",
            f"{100 * each.error:+.1f} %",
            "" if each.holds else "too far",
        )
    return table
