"""A picture of a comparison, as SVG: each metric against concurrency, with the spread of runs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from bench.comparison import Cell

WIDTH, HEIGHT = 380, 260
LEFT, TOP, GAP = 64, 84, 84
INK, FAINT = "#22303c", "#d5dbe1"
SVG: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    'font-family="system-ui, sans-serif" font-size="13">'
)
COLOURS: Final = ("#0b6e99", "#c4622d", "#6b7a8f", "#3b8f5a")


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric's part of the picture."""

    metric: str
    title: str
    factor: float = 1.0


PANELS: Final = (
    Panel("tokensPerSecond", "Throughput, tokens/s"),
    Panel("firstTokenP95", "Time to first token p95, ms", 1000),
    Panel("interTokenP99", "Time to next token p99, ms", 1000),
)


def drawn(found: Sequence[Cell], title: str, note: str) -> str:
    """Return the SVG of all panels side by side."""
    servers = list(dict.fromkeys(cell.server for cell in found))
    colours = {server: COLOURS[i % len(COLOURS)] for i, server in enumerate(servers)}
    width = LEFT + len(PANELS) * (WIDTH + GAP)
    height = TOP + HEIGHT + 56
    parts = [
        SVG.format(width=width, height=height),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(LEFT, 26, title, size=17, weight="600"),
        _text(LEFT, 46, note, colour="#5b6b79"),
    ]
    for index, server in enumerate(servers):
        x = LEFT + index * 160
        parts.append(f'<circle cx="{x + 6}" cy="62" r="5" fill="{colours[server]}"/>')
        parts.append(_text(x + 18, 67, server))
    for index, panel in enumerate(PANELS):
        parts += _panel(panel, found, colours, LEFT + index * (WIDTH + GAP))
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where a panel's values lie."""

    left: float
    widths: tuple[int, ...]
    step: float
    ceiling: float

    @property
    def top(self) -> float:
        return TOP + 18

    def x_of(self, width: int) -> float:
        low, high = math.log2(self.widths[0]), math.log2(self.widths[-1])
        share = (math.log2(width) - low) / (high - low) if high > low else 0.5
        return self.left + 12 + share * (WIDTH - 24)

    def y_of(self, value: float) -> float:
        return self.top + HEIGHT * (1 - value / self.ceiling)


def _panel(panel: Panel, found: Sequence[Cell], colours: dict[str, str], left: float) -> list[str]:
    cells = [cell for cell in found if panel.metric in cell.metrics]
    widths = tuple(sorted({cell.concurrency for cell in cells})) or (1,)
    highest = panel.factor * max((c.metrics[panel.metric].high for c in cells), default=0.0)
    step = _step(highest or 1.0)
    axes = _Axes(left, widths, step, step * math.ceil((highest or 1.0) / step))
    parts = [_text(left, axes.top - 12, panel.title, weight="600"), *_grid(axes)]
    for server, colour in colours.items():
        own = sorted((c for c in cells if c.server == server), key=lambda c: c.concurrency)
        parts += _curve(panel, own, axes, colour)
    return parts


def _grid(axes: _Axes) -> Iterator[str]:
    for line in range(round(axes.ceiling / axes.step) + 1):
        y = axes.y_of(line * axes.step)
        yield f'<path d="M{axes.left} {y:.1f}H{axes.left + WIDTH}" stroke="{FAINT}"/>'
        yield _text(axes.left - 8, y + 4, f"{line * axes.step:g}", anchor="end")
    bottom = axes.top + HEIGHT
    for width in axes.widths:
        yield _text(axes.x_of(width), bottom + 20, str(width), anchor="middle")
    yield _text(axes.left + WIDTH / 2, bottom + 38, "requests at once", anchor="middle")


def _curve(panel: Panel, cells: Sequence[Cell], axes: _Axes, colour: str) -> Iterator[str]:
    points = []
    for cell in cells:
        middle, x = cell.metrics[panel.metric], axes.x_of(cell.concurrency)
        low, median, high = (
            axes.y_of(value * panel.factor) for value in (middle.low, middle.median, middle.high)
        )
        points.append(f"{x:.1f},{median:.1f}")
        yield (
            f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-width="4" '
            'stroke-opacity="0.3"/>'
        )
        yield f'<circle cx="{x:.1f}" cy="{median:.1f}" r="3.5" fill="{colour}"/>'
    yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _step(highest: float) -> float:
    """Return a round distance of grid lines, of which some five fit below a value."""
    rough = highest / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(power * round_one for round_one in (1, 2, 5, 10) if power * round_one >= rough)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: str = "400",
    colour: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
    )
