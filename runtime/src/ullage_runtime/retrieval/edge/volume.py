"""The folder that shards are kept in: who owns it, and the table that says what it holds.

The table is one small file, replaced in one step: a collection exists, and an alias points
somewhere, exactly when the file says so. Folders that it does not name are leftovers of a process
that died between two steps, and are removed when the next one opens the volume.
"""

import fcntl
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from ullage_runtime.retrieval.edge.refusals import VolumeError, VolumeInUse

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One collection of the table."""

    folder: str
    layout: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """All collections and aliases."""

    collections: Mapping[str, Entry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def with_collection(self, name: str, entry: Entry) -> Self:
        """Return the table with a collection added or changed."""
        return type(self)({**self.collections, name: entry}, self.aliases)

    def without(self, name: str) -> Self:
        """Return the table without a collection and the aliases that point to it."""
        collections = {k: v for k, v in self.collections.items() if k != name}
        return type(self)(collections, {k: v for k, v in self.aliases.items() if v != name})

    def with_aliases(self, aliases: Mapping[str, str]) -> Self:
        """Return the table with other aliases."""
        return type(self)(self.collections, dict(aliases))


class Volume:
    """A folder, owned by this process until it ends; raises VolumeError where it cannot be."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._table_path = folder / "table.json"
        self._shards = folder / "shards"
        self._lock = _owned(folder)
        try:
            self.table = self._read()
            self._shards.mkdir(exist_ok=True)
            self._remove_leftovers()
        except BaseException:
            os.close(self._lock)
            raise

    def path_of(self, entry: Entry) -> pathlib.Path:
        """Return the folder of a collection's shard."""
        return self._shards / entry.folder

    def new_folder(self) -> str:
        """Return the name of a folder that does not exist yet."""
        return uuid.uuid4().hex

    def commit(self, table: Table) -> None:
        """Make a table the one that holds, for good."""
        text = json.dumps(
            {
                "format": FORMAT,
                "collections": {
                    name: {"folder": entry.folder, "layout": entry.layout}
                    for name, entry in table.collections.items()
                },
                "aliases": table.aliases,
            }
        )
        partial = self._table_path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._table_path)
        _sync_folder(self.folder)
        self.table = table

    def remove(self, folder: str) -> None:
        """Remove a shard's folder that the table no longer names."""
        shutil.rmtree(self._shards / folder, ignore_errors=True)

    def close(self) -> None:
        """Give the folder up."""
        os.close(self._lock)

    def _read(self) -> Table:
        try:
            data = json.loads(self._table_path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise VolumeError(
                    f"{self._table_path} has format {data['format']}; this release reads {FORMAT}"
                )
            entries = {
                name: Entry(each["folder"], each["layout"])
                for name, each in data["collections"].items()
            }
            return Table(entries, data["aliases"])
        except FileNotFoundError:
            if self._shards.is_dir() and any(self._shards.iterdir()):
                raise VolumeError(
                    f"{self.folder} has shards but no table.json; restore the file, or empty the "
                    "folder"
                ) from None
            return Table()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VolumeError(f"{self._table_path} cannot be read: {error}") from error

    def _remove_leftovers(self) -> None:
        known = {entry.folder for entry in self.table.collections.values()}
        for path in self._shards.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)


def _owned(folder: pathlib.Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VolumeError(f"{folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 100, 0).decode(errors="replace").strip()
        os.close(lock)
        raise VolumeInUse(
            f"{folder} is owned by another process ({owner or 'unknown'}); one process at a time "
            "can hold these shards: end it, or name another folder"
        ) from None
    except OSError as error:
        os.close(lock)
        raise VolumeError(f"{folder} cannot be locked: {error.strerror}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"pid {os.getpid()}".encode(), 0)
    return lock


def _sync_folder(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
