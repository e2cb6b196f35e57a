"""`ullage doctor`: what this machine has, and what would fit."""

from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ullage_runtime.cli.console import CliError, err, out
from ullage_runtime.cli.hardware import Hardware, Memory, look_around
from ullage_runtime.cli.listing import JsonOption, print_json, table, versions
from ullage_runtime.cli.loading import effective_settings
from ullage_runtime.core.sizes import human_bytes

CONTEXT: Final = 8192
OVERHEAD: Final = 400 << 20
"""Compute buffers and the engine's process, roughly, in bytes."""
BITS: Final = {"Q4_K_M": 4.85, "Q8_0": 8.5}
"""Bits per weight that quantised files really take."""


@dataclass(frozen=True, slots=True)
class TypicalModel:
    """A common size of model."""

    name: str
    weights: float
    """Billions."""
    cache_per_token: int
    """Bytes of KV cache at f16."""

    def bytes(self, quantisation: str) -> int:
        """Return what it takes with that quantisation and 8k tokens of context, in bytes."""
        weights = self.weights * 1e9 * BITS[quantisation] / 8
        return int(weights) + self.cache_per_token * CONTEXT + OVERHEAD


TYPICAL: Final = (
    TypicalModel("1B", 1.24, 32 << 10),
    TypicalModel("3B", 3.21, 112 << 10),
    TypicalModel("7-8B", 8.03, 128 << 10),
    TypicalModel("13-14B", 14.8, 192 << 10),
    TypicalModel("70B", 70.6, 320 << 10),
)


def verdict(needed: int, device: Memory) -> str:
    """Return whether that many bytes fit: yes, only once memory is free, or no."""
    if needed > device.budget:
        return "no"
    return "yes" if needed <= device.available else "not now"


def doctor(*, as_json: JsonOption = False) -> None:
    """Show processor, memory, devices and disk, and which sizes of models would fit."""
    settings = effective_settings({}, quiet=True).values
    with err.status("[dim]looking around[/]"):
        found = look_around(settings.model_cache_dir)
    if as_json:
        print_json({**found.to_wire(), "versions": versions(), "fits": _fits(found)})
    else:
        out.print(_shown(found))
    if not found.engine.works:
        raise CliError(
            f"llama.cpp cannot be used here: {found.engine.problem}",
            "reinstall llama-cpp-python for this machine",
        )


def _fits(found: Hardware) -> list[dict[str, object]]:
    return [
        {
            "model": model.name,
            "quantisation": quantisation,
            "contextLength": CONTEXT,
            "bytes": model.bytes(quantisation),
            "fits": {d.id: verdict(model.bytes(quantisation), d) for d in found.devices},
        }
        for model in TYPICAL
        for quantisation in BITS
    ]


def _shown(found: Hardware) -> RenderableType:
    facts = Table.grid(padding=(0, 3, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(found):
        facts.add_row(name, value)
    return Group(facts, Text(), _fit_table(found))


def _facts(found: Hardware) -> list[tuple[str, RenderableType]]:
    quota = f", {found.quota} usable" if found.quota != found.cores else ""
    available = human_bytes(found.memory_available)
    limit = f"limited to {human_bytes(found.memory_limit)}" if found.memory_limit else "no limit"
    engine = found.engine
    backend: RenderableType = (
        Text(f"llama.cpp, CPU backend {engine.variant}" + (f", {engine.gpu}" if engine.gpu else ""))
        if engine.works
        else Text(f"llama.cpp cannot be loaded: {engine.problem}", style="red")
    )
    gpus = [d for d in found.devices if d.is_gpu]
    return [
        ("Processor", f"{found.processor} ({found.cores} cores{quota})"),
        ("Instructions", " ".join(found.instructions) or "unknown"),
        ("Engine", backend),
        ("Memory", f"{human_bytes(found.memory_total)}, {available} available, {limit}"),
        (
            "GPU",
            "\n".join(
                f"{d.name}: {human_bytes(d.total)}, {human_bytes(d.available)} available"
                for d in gpus
            )
            or "none",
        ),
        ("Cache", f"{found.cache_dir} ({human_bytes(found.disk_free)} free)"),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions().items())),
    ]


def _fit_table(found: Hardware) -> RenderableType:
    heads = [f"ON {'GPU' if d.is_gpu else 'CPU'} ({d.id})" for d in found.devices]
    rows = table("WOULD IT FIT?", "QUANTISATION", "NEEDS", *heads)
    for model in TYPICAL:
        for index, quantisation in enumerate(BITS):
            needed = model.bytes(quantisation)
            rows.add_row(
                Text("" if index else model.name, style="bold"),
                quantisation,
                human_bytes(needed),
                *(_verdict_text(verdict(needed, device)) for device in found.devices),
            )
    budgets = ", ".join(f"{human_bytes(d.budget)} on {d.id}" for d in found.devices)
    note = f"with {CONTEXT:,} tokens of context; models may take {budgets}"
    return Group(rows, Text(note, style="dim"))


def _verdict_text(said: str) -> Text:
    style, mark = {"yes": ("green", "✓ "), "no": ("red", "✗ ")}.get(said, ("yellow", "! "))
    return Text(mark + said, style=style)
