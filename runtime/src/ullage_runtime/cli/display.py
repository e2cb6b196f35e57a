"""What a pod's report looks like on a terminal: a live table, or one line per change."""

from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ullage_api.conditions import Reason
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import PodReport, ReportedModel
from ullage_runtime.core.sizes import human_bytes

_UNDER_WAY = frozenset(
    {
        Reason.FETCHING,
        Reason.FETCHED,
        Reason.LOADING,
        Reason.PENDING,
        Reason.ROLLING_OUT,
        Reason.SERVING,
    }
)
_BUSY, _WORRYING, _BAD = "cyan", "yellow", "red"


@dataclass(frozen=True, slots=True)
class Look:
    """How a model's state is shown."""

    style: str
    mark: str
    text: str


_AT_REST: Final = {
    Reason.WARM: Look("green", "◐", "Warm"),
    Reason.IDLE: Look("green", "○", "Idle"),
    Reason.SUSPENDED: Look("dim", "○", "Suspended"),
}


def is_settled(model: ReportedModel) -> bool:
    """Whether a model is where it will stay for a while: served, suspended, or in trouble."""
    return look_of(model).style != _BUSY


def has_failed(model: ReportedModel) -> bool:
    """Whether a model is in trouble, for good or until something else changes."""
    return look_of(model).style in {_BAD, _WORRYING}


def look_of(model: ReportedModel) -> Look:
    """Return how to show a model's state."""
    if model.reason is Reason.SERVING and model.residency is Residency.RESIDENT:
        return Look("green", "●", "Resident")
    if model.reason in _AT_REST:
        return _AT_REST[model.reason]
    if model.reason in _UNDER_WAY:
        return Look(_BUSY, "◌", model.reason.value)
    if model.final:
        return Look(_BAD, "✗", model.reason.value)
    return Look(_WORRYING, "!", model.reason.value)


def models_table(report: PodReport) -> RenderableType:
    """Return the table of a pod's models, with what goes on and what is wrong beneath it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("MODEL", "STATE", "MEMORY", "CONTEXT", "ENGINE", "REVISION"):
        table.add_column(name, no_wrap=True)
    trouble: list[RenderableType] = []
    for model in report.models:
        table.add_row(*_row(model))
        if has_failed(model) and model.message:
            trouble.append(_trouble(model))
    return Group(table, *trouble)


def _row(model: ReportedModel) -> tuple[RenderableType, ...]:
    look = look_of(model)
    shown = model.active or model.target
    memory = shown.resident_bytes if shown else None
    context = shown.context_length if shown else None
    engine = " · ".join(p for p in (shown.engine, shown.device) if p) if shown else ""
    return (
        Text(model.name, style="bold"),
        _state(model, look),
        human_bytes(memory) if memory else "",
        f"{context:,}" if context else "",
        engine,
        Text((shown.revision or "") if shown else "", style="dim"),
    )


def _state(model: ReportedModel, look: Look) -> RenderableType:
    if look.style != _BUSY:
        return Text(f"{look.mark} {look.text}", style=look.style)
    total, done = model.fetch_total_bytes, model.fetched_bytes
    if model.reason is Reason.FETCHING and total and done is not None:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=total, completed=done, width=16),
            Text(f"{human_bytes(done)} of {human_bytes(total)}", style="cyan"),
        )
        return grid
    text = look.text
    if model.reason is Reason.FETCHING and done:
        text = f"{text} {human_bytes(done)}"
    return Spinner("dots", text=Text(text, style="cyan"))


def _trouble(model: ReportedModel) -> RenderableType:
    style = look_of(model).style
    return Text.from_markup(f"[{style}]{escape(model.name)}:[/] {escape(model.message)}")


class ChangeLines:
    """One line for each change of a model, where a live table makes no sense."""

    def __init__(self) -> None:
        self._said: dict[str, object] = {}

    def of(self, report: PodReport) -> list[str]:
        """Return the lines, as markup, for what has changed since the last call."""
        lines = []
        for model in report.models:
            now = (model.reason, model.residency, model.active and model.active.revision)
            if self._said.get(model.name) != now:
                self._said[model.name] = now
                look = look_of(model)
                text = f"[{look.style}]{look.mark} {look.text}[/]"
                message = f"  [dim]{escape(model.message)}[/]" if model.message else ""
                lines.append(f"{escape(model.name)}  {text}{message}")
        for name in set(self._said) - {m.name for m in report.models}:
            del self._said[name]
            lines.append(f"{escape(name)}  [dim]gone[/]")
        return lines
