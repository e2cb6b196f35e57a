"""The screen of `ullage top`."""

import time
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.events import Resize
from textual.widgets import DataTable, Footer, Static

from ullage_runtime.cli.console import CliError
from ullage_runtime.cli.top.feed import StatusFeed
from ullage_runtime.cli.top.picture import Picture
from ullage_runtime.cli.top.rendering import (
    decision_line,
    devices_table,
    level_text,
    model_cells,
    model_columns,
    reason_style,
)

REFRESH_SECONDS = 1.0


class TopApp(App[CliError | None]):
    """Devices, models and recent decisions of one pod, as they change."""

    CSS = """
    Screen { background: $background; }
    Static { padding: 0 1; }
    #head { height: 1; background: $panel; }
    #devices { height: auto; max-height: 12; padding: 1 1; }
    #models { height: 1fr; min-height: 4; }
    #detail { height: auto; max-height: 3; color: $text-muted; }
    #title { height: 1; text-style: bold; }
    #decisions { height: 1fr; min-height: 3; }
    """
    BINDINGS: ClassVar = [Binding("q", "quit", "Quit")]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, url: str, api_key: str | None) -> None:
        super().__init__()
        self._feed = StatusFeed(url, api_key, self._note_lost)
        self._picture = Picture()
        self._lost = "connecting"
        self._again_at = 0.0
        self._shown: list[str] = []

    def compose(self) -> ComposeResult:
        """Yield the parts of the screen, from top to bottom."""
        yield Static(id="head")
        yield Static(id="devices")
        yield DataTable[Text](id="models", cursor_type="row", zebra_stripes=False)
        yield Static(id="detail")
        yield Static("DECISIONS", id="title")
        yield Static(id="decisions")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow the pod."""
        self.run_worker(self._follow(), exit_on_error=False)
        self.set_interval(REFRESH_SECONDS, self._tick)
        self._draw()

    async def _follow(self) -> None:
        try:
            async for message in self._feed.messages():
                self._lost = ""
                self._picture.take(message, time.time())
                self._draw()
        except CliError as error:
            self.exit(error)

    def _note_lost(self, why: str, pause: float) -> None:
        self._lost, self._again_at = why, time.monotonic() + pause
        self._draw()

    def _tick(self) -> None:
        self._picture.count(time.time())
        self._draw()

    def on_resize(self, _: Resize) -> None:
        """Use the room there is."""
        self._draw()

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        """Say more of the chosen model."""
        self._draw_detail()

    def _draw(self) -> None:
        if not self.query("#decisions"):
            return  # the screen is not there yet, or no longer
        self.query_one("#head", Static).update(self._head())
        width = self.size.width
        self.query_one("#devices", Static).update(devices_table(self._picture, width - 2))
        self._draw_models(width)
        self._draw_detail()
        decisions = self.query_one("#decisions", Static)
        now, height = time.time(), max(1, decisions.size.height)
        shown = list(self._picture.decisions)[:height]
        lines = [decision_line(self._picture, d, now, width - 2) for d in shown]
        nothing = Text("no model has left memory or was refused it", style="dim")
        decisions.update(Text("\n").join(lines) if lines else nothing)

    def _head(self) -> Text:
        picture = self._picture
        head = Text.assemble(("ullage top  ", "bold"), picture.pod or self._feed.url)
        if picture.pod:
            head.append("  memory ", style="dim")
            head.append_text(level_text(picture.level))
        if self._lost:
            left = max(0.0, self._again_at - time.monotonic())
            again = f"; again in {left:.0f} s" if left else ""
            head.append(f"  ● {self._lost}{again}", style="bold yellow")
        else:
            head.append("  ● live", style="green")
        return head

    def _draw_models(self, width: int) -> None:
        table: DataTable[Text] = self.query_one("#models", DataTable)
        columns = list(model_columns(width))
        rows = list(self._picture.rows())
        shown = [*columns, "", *(str(row["id"]) for row in rows)]
        if shown != self._shown:
            self._shown = shown
            chosen = self._chosen()
            table.clear(columns=True)
            for column in columns:
                right = column in {"MEMORY", "RUN", "WAIT", "TOK/S"}
                table.add_column(Text(column, justify="right" if right else "left"), key=column)
            for row in rows:
                table.add_row(*model_cells(self._picture, row, width), key=str(row["id"]))
            if chosen is not None and chosen in self._picture.models:
                table.move_cursor(row=table.get_row_index(chosen))
            return
        for row in rows:
            cells = model_cells(self._picture, row, width)
            for column, cell in zip(columns, cells, strict=True):
                table.update_cell(str(row["id"]), column, cell, update_width=True)

    def _chosen(self) -> str | None:
        table: DataTable[Text] = self.query_one("#models", DataTable)
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def _draw_detail(self) -> None:
        chosen = self._chosen()
        model = self._picture.models.get(chosen or "")
        text = Text()
        if model is not None and model["message"]:
            text = Text.assemble((f"{model['id']}: ", reason_style(model)), model["message"])
        self.query_one("#detail", Static).update(text)
