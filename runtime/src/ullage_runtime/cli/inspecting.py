"""`ullage inspect`: what a model's file is, what it would take, and whether that fits here."""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.cli.console import CliError, err, out
from ullage_runtime.cli.doctor import verdict
from ullage_runtime.cli.hardware import Memory, devices
from ullage_runtime.cli.listing import JsonOption, print_json
from ullage_runtime.cli.loading import effective_settings
from ullage_runtime.core.domain import DEFAULT_PARALLEL, EngineSpec, Footprint, Loaded
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability
from ullage_runtime.core.sizes import human_bytes
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine

_FORMATS: Final = {"LlamaCpp": "GGUF", "ONNXRuntime": "ONNX", "VLLM": "safetensors"}
_USUAL: Final = {"LlamaCpp": Task.CHAT, "ONNXRuntime": Task.EMBEDDING, "VLLM": Task.CHAT}
_PURPOSES: Final = {Task.EMBEDDING: Ability.EMBED, Task.RERANK: Ability.RERANK}


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is known of a model on this machine."""

    path: str
    format: str
    engine: str
    task: Task
    file_bytes: int
    needs: Footprint
    fits: dict[str, str]
    """Whether it fits, by device: `yes`, `not now` or `no`."""
    loaded: Loaded | None = None
    """What the engine says of it, once it was loaded and tried."""
    resident_bytes: int | None = None
    """What it took then."""

    def to_wire(self) -> dict[str, Any]:
        """Return everything for scripts."""
        told = asdict(self)
        # One device is looked at here, and what is left adds up.
        del told["needs"]["among"]
        return {**told, "needed_bytes": self.needs.total}


def inspect(
    model: Annotated[Path, typer.Argument(help="A model's file, or the folder of several.")],
    *,
    task: Annotated[
        Task | None, typer.Option(help="What it is for. Default: Chat for GGUF, else Embedding.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(min=32, help="Tokens of context, as engine.contextLength.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Load it, try it, and fail unless it works and fits, for scripts."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a model is, what it would take here, and whether that fits."""
    if not model.exists():
        raise CliError(f"there is no file or folder {model}")
    effective_settings({}, quiet=True)
    path = str(model.resolve())
    try:
        engine = engine_of(path)
        wanted = task or _USUAL[engine]
        spec = _spec(path, wanted, context_length)
        with err.status("[dim]trying the model[/]" if check else "[dim]reading the model[/]"):
            found = asyncio.run(_inspected(spec, engine, wanted, check=check))
    except LoadError as error:
        raise CliError(f"{model}: {error.message}") from error
    if as_json:
        print_json(found.to_wire())
    else:
        out.print(_shown(found))
    if check and "yes" not in found.fits.values():
        raise CliError(f"{model} needs {human_bytes(found.needs.total)}, which does not fit here")


def _spec(path: str, task: Task, context_length: int | None) -> EngineSpec:
    purpose = _PURPOSES.get(task, Ability.GENERATE)
    parallel = DEFAULT_PARALLEL if purpose is Ability.GENERATE else DEFAULT_TEXTS
    return EngineSpec(path, context_length=context_length, parallel=parallel, purpose=purpose)


async def _inspected(spec: EngineSpec, name: str, task: Task, *, check: bool) -> Inspected:
    """Return what an engine's process says of a model; raises LoadError."""
    from ullage_runtime.models.gate import pass_gate

    engine = await WorkerEngine.start(name)
    loaded = resident = None
    try:
        needs = await engine.estimate(spec)
        fits = await asyncio.to_thread(_fits, needs)
        if check and "no" not in fits.values():
            loaded = await engine.load(spec)
            await pass_gate(engine, loaded)
            resident = (await engine.stats()).resident_bytes
    finally:
        await engine.unload()
    return Inspected(
        path=spec.path,
        format=_FORMATS[name],
        engine=name,
        task=task,
        file_bytes=_bytes_of(Path(spec.path)),
        needs=needs,
        fits=fits,
        loaded=loaded,
        resident_bytes=resident,
    )


def _fits(needs: Footprint) -> dict[str, str]:
    return {device.id: _verdict(needs, device) for device in devices()}


def _verdict(needs: Footprint, device: Memory) -> str:
    return verdict(needs.total, device)


def _bytes_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _shown(found: Inspected) -> RenderableType:
    facts = Table.grid(padding=(0, 3, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(found):
        facts.add_row(name, value)
    return Group(facts)


def _facts(found: Inspected) -> list[tuple[str, RenderableType]]:
    loaded = found.loaded
    facts: list[tuple[str, RenderableType]] = [
        ("Model", Text(found.path)),
        ("Format", f"{found.format}, {human_bytes(found.file_bytes)}, for {found.engine}"),
        ("Task", found.task.value),
        ("Needs", _needs(found.needs)),
        ("Fits", ", ".join(f"{said} on {device}" for device, said in found.fits.items())),
    ]
    if loaded is None or found.resident_bytes is None:
        return facts
    outputs = ", ".join(output.value for output in loaded.outputs)
    width = f", {loaded.dimensions} dimensions ({outputs})" if loaded.dimensions else ""
    return [
        *facts,
        (
            "Checked",
            Text(
                f"{loaded.architecture}, {loaded.context_length} tokens at once, vocabulary of "
                f"{loaded.vocabulary_size}{width}; loaded in {loaded.load_seconds:.1f} s, took "
                f"{human_bytes(found.resident_bytes)}"
            ),
        ),
    ]


def _needs(needs: Footprint) -> str:
    cache = f", key-value cache {human_bytes(needs.kv_cache)}" if needs.kv_cache else ""
    return (
        f"{human_bytes(needs.total)}: weights {human_bytes(needs.weights)}{cache}, computing "
        f"{human_bytes(needs.compute)}, process {human_bytes(needs.overhead)}"
    )
