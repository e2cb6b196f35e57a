"""`python -m bench.gpu`: load, leave, swap and come back on a real GPU, and say what holds.

Results are a JSON file and a page beside it. Without a GPU, or a build that can use one, it says
what is missing and ends with status 3.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench import machine
from bench.console import console
from bench.gpu import verdicts
from bench.gpu.machine import boards, found_devices, missing, smi
from bench.gpu.verdicts import Board, Verdict
from bench.model_file import model_file
from bench.page_cache import drop
from bench.results import RESULTS, Kept
from tests.support.fake_models import answer, until, wanted
from tests.support.model_files import LocalFiles
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.memory import ResidencySettings
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel, PoolDesired
from ullage_runtime.core.errors import ServingError
from ullage_runtime.governor.devices import Device
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.governor.nvml import THROTTLING
from ullage_runtime.models.pool import ModelPool

NOT_HERE: Final = 3
SWAP_REQUESTS: Final = 50
LEAVE_SECONDS: Final = 5


class Run:
    """One pass through the list."""

    def __init__(self, pool: ModelPool, gpu: Device, folder: Path, file: Path) -> None:
        self._pool = pool
        self._gpu = gpu
        self._folder = folder
        self._file = file
        self._sequence = 0

    async def verdicts(self) -> list[Verdict]:
        """Return the whole list's."""
        found = [self._devices()]
        before = await self._used()
        first, second = (self._copy(name) for name in ("first.gguf", "second.gguf"))
        model = await self._served(first)
        cold = _load_seconds(model)
        found.append(verdicts.ledger("load", before, await self._used(), self._ledger()))
        found.append(await self._swapped(second))
        found.append(verdicts.ledger("after a swap", before, await self._used(), self._ledger()))
        await self._left(second)
        found.append(verdicts.returned("eviction", before, await self._used()))
        await answer(self._pool)
        back = await until(self._pool, lambda m: m.reason is Reason.SERVING)
        warm = None if back.active is None else back.active.promote_seconds
        found.append(verdicts.promotion(cold, warm))
        reading = await self._gpu.read()
        known = [word for _, word in THROTTLING]
        found.append(verdicts.throttling(reading.throttling, known))
        await self._apply(_model(second, suspended=True))
        await until(self._pool, lambda m: m.residency is Residency.DISK)
        found.append(verdicts.returned("suspension", before, await self._used()))
        return found

    def _devices(self) -> Verdict:
        ours = [Board(device.name, device.total()) for device in found_devices()]
        return verdicts.devices(ours, boards(smi("name", "memory.total")))

    async def _served(self, file: Path) -> ReportedModel:
        drop(file)
        await self._apply(_model(file))
        await until(self._pool, lambda m: m.reason is Reason.SERVING)
        await answer(self._pool)
        await self._pool.sample()
        return await until(self._pool, lambda m: m.active is not None)

    async def _swapped(self, file: Path) -> Verdict:
        async def asked() -> bool:
            try:
                await answer(self._pool)
            except ServingError as error:
                console.print(f"[red]a request failed:[/] {error}")
                return False
            return True

        requests = [asyncio.create_task(asked()) for _ in range(SWAP_REQUESTS)]
        await self._apply(_model(file))
        await until(self._pool, lambda m: m.active is not None and m.active.uri == str(file))
        answers = await asyncio.gather(*requests)
        return verdicts.swap(len(answers), answers.count(False))

    async def _left(self, file: Path) -> None:
        await self._apply(_model(file, idle_seconds=LEAVE_SECONDS))
        await until(self._pool, lambda m: m.reason is Reason.WARM)

    async def _apply(self, model: DesiredModel) -> None:
        self._sequence += 1
        document = PoolDesired(namespace="bench", pool="default", models=(model,))
        await self._pool.apply(document.sealed(self._sequence))

    async def _used(self) -> int:
        return (await self._gpu.read()).used

    def _ledger(self) -> int:
        return self._pool.report().devices[0].ledger_bytes

    def _copy(self, name: str) -> Path:
        """Return a copy of the file of another digest: what follows the tensors is not read."""
        path = self._folder / name
        shutil.copyfile(self._file, path)
        with path.open("ab") as file:
            file.write(name.encode())
        return path


def _model(file: Path, *, suspended: bool = False, idle_seconds: int | None = None) -> DesiredModel:
    return wanted(
        uri=str(file),
        suspended=suspended,
        engine=EngineSettings(context_length=4096, gpu_layers=-1),
        residency=ResidencySettings(idle_seconds=idle_seconds),
    )


def _load_seconds(model: ReportedModel) -> float:
    if model.active is None or model.active.load_seconds is None:
        raise SystemExit("the model that was to be loaded is not")
    return model.active.load_seconds


async def run(file: Path) -> list[Verdict]:
    """Return the list's verdicts for a model file."""
    devices = found_devices()
    with tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder:
        async with ModelPool(
            source=LocalFiles(),
            pod_name="bench",
            ordinal=0,
            version="bench",
            devices=[*devices, HostMemory()],
        ) as pool:
            return await Run(pool, devices[0], Path(folder), file).verdicts()


def main(
    file: Annotated[Path | None, typer.Option(help="A GGUF file; by default 0.4 GB.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Run the list on this machine's first GPU."""
    wanting = missing()
    if wanting:
        for line in wanting:
            console.print(f"[red]cannot run:[/] {line}")
        raise typer.Exit(NOT_HERE)
    head: dict[str, Any] = {
        "gpu": "; ".join(board.name for board in boards(smi("name", "memory.total")))
    }
    kept = Kept("gpu", machine.described(), out)
    found = asyncio.run(run(file or model_file("medium")))
    kept.write({**head, "verdicts": [each.to_wire() for each in found]})
    page = kept.file.with_suffix(".md")
    page.write_text(verdicts.markdown(head, found))
    console.print(page.read_text())
    kept.tell(console)
    if any(each.holds is False for each in found):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
