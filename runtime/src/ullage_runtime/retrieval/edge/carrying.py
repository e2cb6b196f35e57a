"""Points copied from one shard to another of the same owner, without being put into words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import qdrant_edge as edge

from ullage_runtime.core.reindexing.joining import order
from ullage_runtime.retrieval.edge.filters import filter_of
from ullage_runtime.retrieval.edge.queries import id_json, id_of
from ullage_runtime.retrieval.stores.port import DELETED, VERSION, PointId, older

CARRIED_AT_ONCE: Final = 32
"""Points that are copied before others get their turn: some 4 ms."""


@dataclass(slots=True)
class Page:
    """A page of points on its way, and how far it is."""

    source: str
    offset: PointId | None
    last: PointId | None
    left: int
    before: int
    seen: int = 0
    copied: int = 0
    is_done: bool = False

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Return what a request asks for."""
        after, last = body.get("after"), body.get("last")
        return cls(
            source=str(body["source"]),
            offset=None if after is None else id_of(after),
            last=None if last is None else id_of(last),
            left=int(body["limit"]),
            before=int(body["before"]),
        )

    def told(self) -> dict[str, Any]:
        """Return what became of it."""
        return {"next_page_offset": self.offset, "seen": self.seen, "copied": self.copied}

    def portion(self, engine: edge.EdgeShard) -> edge.UpdateOperation | None:
        """Read the next points; return the operation that writes those that are to be copied."""
        records, following = engine.scroll(
            edge.ScrollRequest(
                offset=self.offset,
                limit=min(CARRIED_AT_ONCE, self.left),
                with_payload=True,
                with_vector=True,
            )
        )
        self.offset = None if following is None else id_json(following)
        inside = [each for each in records if self._is_inside(id_json(each.id))]
        if len(inside) < len(records) or not self._is_inside(self.offset):
            self.offset = None
        self.seen += len(inside)
        self.left -= len(inside)
        self.is_done = self.offset is None or self.left <= 0
        points = [point for each in inside if (point := self._point(each)) is not None]
        self.copied += len(points)
        if not points:
            return None
        condition = filter_of(older(self.before))
        return edge.UpdateOperation.upsert_points(points, condition, edge.UpdateMode.Upsert)

    def _is_inside(self, point: PointId | None) -> bool:
        return self.last is None or point is None or order(point) <= order(self.last)

    def _point(self, record: edge.Record) -> edge.Point | None:
        payload = record.payload or {}
        version = int(payload.get(VERSION) or 0)
        if payload.get(DELETED) or version >= self.before:
            return None
        # One that says its version, a foreign writer's too.
        return edge.Point(record.id, record.vector or {}, {**payload, VERSION: version})
