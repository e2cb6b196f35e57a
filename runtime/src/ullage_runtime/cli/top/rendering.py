"""How devices, models and decisions look in a terminal of a given width."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ullage_runtime.cli.top.picture import Entry, Picture
from ullage_runtime.core.sizes import human_bytes

WIDE: Final = 110
"""Columns from which more is shown."""
BAR: Final = 24
DEVICES: Final = 10
"""Lines that devices may take: a machine may have eight GPUs, or dozens of slices."""

LEVELS: Final = {"Low": "green", "Moderate": "cyan", "High": "yellow", "Critical": "bold red"}
_STATES: Final = {"Resident": "green", "Warm": "yellow", "Loading": "cyan", "Unloading": "cyan"}


def level_text(level: str | None) -> Text:
    """Return a level in its colour."""
    return Text(level or "unread", style=LEVELS.get(level or "", "dim"))


def devices_table(picture: Picture, width: int) -> RenderableType:
    """Return a line for each device: a bar of what is used, the ledger, the budget.

    Of more than there are lines for, the last line says how many are not shown.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    devices = list(picture.devices.values())
    shown = devices if len(devices) <= DEVICES else devices[: DEVICES - 1]
    for device in shown:
        words: list[RenderableType] = [
            Text(device["id"], style="bold"),
            _bar(device, BAR if width >= WIDE else BAR // 2),
            Text(f"{_percent(device['used'], device['total'])} of {human_bytes(device['total'])}"),
            level_text(device["level"]),
            _pair("ledger", device["ledger"], device["budget"]),
        ]
        if width >= WIDE:
            words.append(Text(device["name"], style="dim"))
        words.append(_strain(device))
        table.add_row(*words)
    if len(shown) == len(devices):
        return table
    more = f"{len(devices) - len(shown)} more devices: see /memory/stats"
    return Group(table, Text(more, style="dim"))


def _bar(device: Entry, width: int) -> Text:
    """Return used memory as a bar, with a mark where the budget of models ends."""
    total = max(1, device["total"])
    used = min(width, round(width * device["used"] / total))
    mark = min(width - 1, round(width * device["budget"] / total))
    bar = Text("█" * used, style=LEVELS.get(device["level"] or "", "white"))
    bar.append("░" * (width - used), style="dim")
    if mark >= used:
        bar = bar[:mark] + Text("▏", style="bold") + bar[mark + 1 :]
    return bar


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"


def _pair(word: str, part: int, whole: int) -> Text:
    return Text.assemble((f"{word} ", "dim"), f"{human_bytes(part)} / {human_bytes(whole)}")


def _strain(device: Entry) -> Text:
    words = [word.replace("_", " ") for word in device["throttling"]]
    if device["stalled"]:
        words.append(f"stalled {device['stalled']:.0%}")
    return Text(", ".join(words), style="yellow")


def model_columns(width: int) -> Sequence[str]:
    """Return the columns that there is room for."""
    columns = ("MODEL", "STATE", "MEMORY", "RUN", "WAIT", "TOK/S")
    return (*columns, "REASON", "DEVICE", "REVISION") if width >= WIDE else (*columns, "REASON")


def model_cells(picture: Picture, model: Entry, width: int) -> list[Text]:
    """Return a model's cells, as many as there are columns."""
    rate = picture.tokens_per_second(model["id"])
    waiting = model["requests_waiting"]
    cells = [
        Text(_cut(model["id"], 40 if width >= WIDE else 20), style="bold"),
        Text(model["residency"], style=_STATES.get(model["residency"], "dim")),
        _memory(model),
        _number(model["requests_running"]),
        _number(waiting, "yellow" if waiting else ""),
        Text("" if rate is None else f"{rate:.0f}" if rate else "0", justify="right"),
        _reason(model),
    ]
    if width >= WIDE:
        cells.append(Text(model["device"] or ""))
        cells.append(Text(model["revision"] or "", style="dim"))
    return cells


def _memory(model: Entry) -> Text:
    if model["resident"]:
        return Text(human_bytes(model["resident"]), justify="right")
    if model["residency"] == "Warm":
        return Text(human_bytes(model["host"]), style="yellow", justify="right")
    if model["fetched"] and model["fetch_total"]:
        return Text(f"{_percent(model['fetched'], model['fetch_total'])} here", justify="right")
    expected = model["estimated"]
    return Text(f"~{human_bytes(expected)}" if expected else "", style="dim", justify="right")


def _number(count: int, style: str = "") -> Text:
    return Text(str(count), style=style if count else "dim", justify="right")


def _reason(model: Entry) -> Text:
    return Text(model["reason"], style=reason_style(model))


def reason_style(model: Entry) -> str:
    """Return the colour of a model's reason: red for what only a person can mend."""
    if model["final"]:
        return "red"
    good = {"Serving": "green", "Idle": "green", "Suspended": "dim", "Pending": "dim"}
    under_way = {"Fetching", "Fetched", "Loading"}
    return good.get(model["reason"], "cyan" if model["reason"] in under_way else "yellow")


def decision_line(picture: Picture, decision: Entry, now: float, width: int) -> Text:
    """Return one decision in a line: how long ago, who, why, for whom, how much."""
    is_refusal = decision["kind"] == "refusal"
    line = Text.assemble(
        (f"{age(picture.age(decision, now)):>8}  ", "dim"),
        (_cut(decision["model"], 24), "bold"),
        (" got no memory " if is_refusal else " left ", "red" if is_refusal else "yellow"),
        (f"{decision['rule']} {human_bytes(decision['bytes'])}", ""),
    )
    if decision["for"]:
        line.append(f" for {_cut(decision['for'], 24)}")
    if width >= WIDE:
        line.append(f"  {decision['message']}", style="dim")
    line.truncate(max(20, width), overflow="ellipsis")
    return line


def age(seconds: float) -> str:
    """Return how long ago something was, in two or three words."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
