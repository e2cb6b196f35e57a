"""What a benchmark found, kept with the machine it ran on."""

import datetime as dt
import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console

RESULTS: Final = Path(__file__).parent / "results"


class Kept:
    """The file of one benchmark's results; made before it begins, so that it names the time."""

    def __init__(self, what: str, facts: dict[str, Any], out: Path = RESULTS) -> None:
        now = dt.datetime.now(tz=dt.UTC)
        self._head = {"what": what, "when": now.isoformat(timespec="seconds"), "machine": facts}
        self.file = out / f"{what}-{now:%Y%m%dT%H%M%SZ}.json"

    def write(self, found: dict[str, Any]) -> None:
        """Write what was found; called again, it replaces what was written before."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps({**self._head, **found}, indent=1) + "\n")

    def tell(self, console: Console) -> None:
        """Say where it is."""
        console.print(f"kept in {self.file}")
