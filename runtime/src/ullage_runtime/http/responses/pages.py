"""One page of a list of items, as OpenAI's cursors cut it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.responses.store import Item


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    """Id of the item that the page follows, in that order."""

    def of(self, items: Sequence[Item]) -> dict[str, Any]:
        """Return the page as a list object; raises InvalidRequest when `after` is not in it."""
        ordered = list(items if self.order == "asc" else reversed(items))
        start = 0
        if self.after is not None:
            ids = [item["id"] for item in ordered]
            if self.after not in ids:
                raise InvalidRequest(f"after: no item {self.after[:80]!r} in this list", "after")
            start = ids.index(self.after) + 1
        part = ordered[start : start + self.limit]
        return {
            "object": "list",
            "data": part,
            "first_id": part[0]["id"] if part else None,
            "last_id": part[-1]["id"] if part else None,
            "has_more": start + self.limit < len(ordered),
        }
