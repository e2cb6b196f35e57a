"""The shards of a volume, with the verbs of Qdrant's REST API.

Plain calls, one after the other: the engine would let no two run at once anyway. Bodies are
Qdrant's JSON, already parsed.
"""

import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import qdrant_edge as edge

from ullage_runtime.retrieval.edge import layout as layouts
from ullage_runtime.retrieval.edge.carrying import CARRIED_AT_ONCE, Page
from ullage_runtime.retrieval.edge.filters import filter_of
from ullage_runtime.retrieval.edge.queries import (
    id_of,
    ids_of,
    point_of,
    query_of,
    record_json,
    scored_json,
    with_payload,
)
from ullage_runtime.retrieval.edge.refusals import AlreadyExists, NoRoom, NotFound, Refused
from ullage_runtime.retrieval.edge.volume import Entry, Volume
from ullage_runtime.retrieval.room import ROOM_TO_WRITE, check_room

Json = Mapping[str, Any]
Update = Callable[[edge.EdgeShard], None]
"""A change of a shard, which can be done again on a copy of it."""

T = TypeVar("T")

SEGMENTS_AT_REST: Final = 2
"""Segments of a shard that was merged: one with everything, and one to write to."""

_MODES: Final = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}


@dataclass(slots=True)
class Shard:
    """An open shard of a collection."""

    name: str
    entry: Entry
    engine: edge.EdgeShard
    changes: int = 0
    """Points written since the last optimisation."""
    changed_at: float = 0.0
    """When it was changed last, by the monotonic clock."""
    is_split: bool = False
    """Whether it may have segments that are worth merging."""
    is_wanted: bool = False
    """Whether somebody asked for an optimisation, however little was written."""
    journal: list[Update] | None = field(default=None)
    """Changes made while a copy is being optimised, to be made there too."""

    def update(self, change: Update, points: int) -> None:
        """Make a change, and note it where a copy will want it."""
        with _refusals():
            change(self.engine)
        self.changes += points
        self.changed_at = time.monotonic()
        if self.journal is not None:
            self.journal.append(change)


class Shards:
    """All collections of a volume."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.volume = Volume(folder)
        self._open: dict[str, Shard] = {}
        try:
            for name, entry in self.volume.table.collections.items():
                config = layouts.config_of(entry.layout)
                engine = edge.EdgeShard.load(str(self.volume.path_of(entry)), config)
                self._open[name] = Shard(name, entry, engine, is_split=is_split(engine))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write everything out and give the volume up."""
        for shard in self._open.values():
            shard.engine.close()
        self._open.clear()
        self.volume.close()

    def __iter__(self) -> Iterator[Shard]:
        return iter(list(self._open.values()))

    def shard(self, name: str) -> Shard:
        """Return the shard of a collection or of an alias; raises NotFound."""
        shard = self._open.get(self.volume.table.aliases.get(name, name))
        if shard is None:
            raise NotFound(f"Collection `{name}` doesn't exist!")
        return shard

    def names(self) -> list[str]:
        """Return the names of all collections."""
        return sorted(self._open)

    def has(self, name: str) -> bool:
        """Tell whether there is such a collection or alias."""
        return name in self._open or name in self.volume.table.aliases

    def create(self, name: str, body: Json) -> None:
        """Make a collection; raises AlreadyExists or Refused."""
        if self.has(name):
            raise AlreadyExists(f"Collection `{name}` already exists!")
        layout = {key: value for key, value in body.items() if value is not None}
        config = layouts.config_of(layout)
        entry = Entry(self.volume.new_folder(), layout)
        path = self.volume.path_of(entry)
        path.mkdir()
        with _refusals():
            engine = edge.EdgeShard.create(str(path), config)
        self.volume.commit(self.volume.table.with_collection(name, entry))
        self._open[name] = Shard(name, entry, engine)

    def alter(self, name: str, body: Json) -> None:
        """Change a collection's settings; index settings act on what is optimised next."""
        shard = self.shard(name)
        layout = layouts.merged(dict(shard.entry.layout), body)
        config = layouts.config_of(layout)
        entry = Entry(shard.entry.folder, layout)
        path = str(self.volume.path_of(entry))
        shard.engine.close()
        try:
            with _refusals():
                shard.engine = edge.EdgeShard.load(path, config)
        except BaseException:
            shard.engine = edge.EdgeShard.load(path, layouts.config_of(shard.entry.layout))
            raise
        self.volume.commit(self.volume.table.with_collection(shard.name, entry))
        shard.entry = entry
        shard.changes += 1

    def drop(self, name: str) -> bool:
        """Remove a collection and what it holds; False if there is none."""
        shard = self._open.pop(name, None)
        if shard is None:
            return False
        self.volume.commit(self.volume.table.without(name))
        shard.engine.close()
        self.volume.remove(shard.entry.folder)
        return True

    def replace(self, shard: Shard, folder: str, engine: edge.EdgeShard) -> None:
        """Let an optimised copy take a shard's place."""
        old, old_engine = shard.entry, shard.engine
        entry = Entry(folder, old.layout)
        self.volume.commit(self.volume.table.with_collection(shard.name, entry))
        shard.entry, shard.engine = entry, engine
        old_engine.close()
        self.volume.remove(old.folder)

    def aliases(self) -> dict[str, str]:
        """Return every alias with the collection it points to."""
        return dict(self.volume.table.aliases)

    def change_aliases(self, actions: Sequence[Json]) -> None:
        """Carry out all of some alias actions in one step, or none."""
        aliases = self.aliases()
        for action in actions:
            if made := action.get("create_alias"):
                name, target = made["alias_name"], made["collection_name"]
                if target not in self._open:
                    raise NotFound(f"Collection `{target}` doesn't exist!")
                if name in self._open:
                    raise Refused(f"alias {name!r} is the name of a collection")
                aliases[name] = target
            elif gone := action.get("delete_alias"):
                aliases.pop(gone["alias_name"], None)
            else:
                raise Refused("actions: known are create_alias and delete_alias")
        self.volume.commit(self.volume.table.with_aliases(aliases))

    def upsert(self, name: str, body: Json) -> None:
        """Write points: all, or those that the update filter and mode allow."""
        shard = self.shard(name)
        given = body.get("points") or ()
        if any(each.get("vector") for each in given):
            self._check_room()
        points = [point_of(each) for each in given]
        condition = filter_of(body.get("update_filter"))
        mode = _MODES[body.get("update_mode") or "upsert"]
        operation = edge.UpdateOperation.upsert_points(points, condition, mode)
        shard.update(lambda engine: engine.update(operation), len(points))

    def carry(self, name: str, page: Page) -> None:
        """Copy the next points of a page of another collection."""
        shard, source = self.shard(name), self.shard(page.source)
        self._check_room()
        with _refusals():
            operation = page.portion(source.engine)
        if operation is not None:
            shard.update(lambda engine: engine.update(operation), CARRIED_AT_ONCE)

    def _check_room(self) -> None:
        try:
            check_room(self.volume.folder, ROOM_TO_WRITE)
        except OSError as error:
            raise NoRoom(str(error)) from error

    def delete(self, name: str, body: Json) -> None:
        """Remove points by their ids or by a filter."""
        shard = self.shard(name)
        if body.get("points") is not None:
            ids = ids_of(body["points"])
            operation = edge.UpdateOperation.delete_points(ids)
        else:
            wanted = filter_of(body.get("filter"))
            if wanted is None:
                raise Refused("points or filter is needed")
            operation = edge.UpdateOperation.delete_points_by_filter(wanted)
        shard.update(lambda engine: engine.update(operation), 1)

    def index_field(self, name: str, body: Json) -> None:
        """Index a field of the payload."""
        schema = layouts.schema_of(body.get("field_schema"))
        operation = edge.UpdateOperation.create_field_index(body["field_name"], schema)
        self.shard(name).update(lambda engine: engine.update(operation), 0)

    def retrieve(self, name: str, body: Json) -> list[dict[str, Any]]:
        """Return those of some points that exist."""
        shard, ids = self.shard(name), ids_of(body["ids"])
        payload = with_payload(body, default=True)
        with _refusals():
            found = shard.engine.retrieve(ids, payload, body.get("with_vector") or False)
        return [record_json(each) for each in found]

    def scroll(self, name: str, body: Json) -> dict[str, Any]:
        """Return a page of points in the order of their ids, and where the next one begins."""
        offset = body.get("offset")
        request = edge.ScrollRequest(
            offset=None if offset is None else id_of(offset),
            limit=int(body.get("limit") or 10),
            filter=filter_of(body.get("filter")),
            with_payload=with_payload(body, default=True),
            with_vector=body.get("with_vector") or False,
        )
        with _refusals():
            points, following = self.shard(name).engine.scroll(request)
        following = following if isinstance(following, int | None) else str(following)
        return {"points": [record_json(p) for p in points], "next_page_offset": following}

    def count(self, name: str, body: Json) -> int:
        """Count points."""
        request = edge.CountRequest(
            exact=body.get("exact") is not False, filter=filter_of(body.get("filter"))
        )
        with _refusals():
            return self.shard(name).engine.count(request)

    def query(self, name: str, body: Json) -> list[dict[str, Any]]:
        """Find points."""
        request = query_of(body)
        with _refusals():
            return [scored_json(each) for each in self.shard(name).engine.query(request)]

    def query_batch(self, name: str, bodies: Sequence[Json]) -> list[list[dict[str, Any]]]:
        """Answer several queries."""
        request = edge.QueryBatchRequest([query_of(body) for body in bodies])
        with _refusals():
            answers = self.shard(name).engine.query_batch(request)
        return [[scored_json(each) for each in answer] for answer in answers]

    def describe(self, name: str) -> dict[str, Any]:
        """Return what Qdrant says of a collection."""
        shard = self.shard(name)
        layout, info = shard.entry.layout, shard.engine.info()
        optimizers = layout.get("optimizers_config") or {}
        return {
            "status": "yellow" if shard.is_wanted or shard.journal is not None else "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": info.indexed_vectors_count,
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": {
                "params": {
                    "vectors": layout.get("vectors") or {},
                    "sparse_vectors": layout.get("sparse_vectors") or {},
                },
                "hnsw_config": {**layouts.HNSW, **(layout.get("hnsw_config") or {})},
                "optimizer_config": {**layouts.OPTIMIZERS, **optimizers},
                "quantization_config": layout.get("quantization_config"),
                "metadata": layout.get("metadata"),
            },
            "payload_schema": {
                key: {"data_type": layouts.schema_name(each.data_type), "points": each.points}
                for key, each in info.payload_schema.items()
            },
        }


def is_split(engine: edge.EdgeShard) -> bool:
    """Tell whether there are segments that are worth merging."""
    return engine.info().segments_count > SEGMENTS_AT_REST


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the engine raises, which is a bare Exception, into a refusal with its words."""
    try:
        yield
    except Refused:
        raise
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise Refused(str(error)) from error
