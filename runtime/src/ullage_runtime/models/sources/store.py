"""The cache's folders: files by digest, what is known of addresses, and unfinished files.

    blobs/sha256/<digest>     complete, verified files, read-only
    trees/<digest>/           models of several files, as links to blobs; see `trees`
    index/uris/<key>.json     which digest an address had, and the server's validators
    index/files/<key>.json    digests of files by path, inode, size and time
    partial/<key>.part        an unfinished file; <key>.json beside it says of what
    locks/<key>.lock          held while an address is fetched
    used/<digest>             held by whoever uses a blob or tree; see `keeping`

Every file appears by a rename, so a reader never sees half of one and several pods may share the
volume. Nothing here is locked: `locks` is for those who write. All of it blocks: call it in
threads.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_FOLDERS = (
    "blobs/sha256",
    "trees",
    "index/uris",
    "index/files",
    "index/trees",
    "partial",
    "locks",
    "used",
)
_READ_ONLY = 0o444
_READABLE = 0o644


@dataclass(frozen=True, slots=True)
class UriEntry:
    """What is known of an address since it was last fetched."""

    uri: str
    sha256: str
    size: int
    etag: str | None = None
    last_modified: str | None = None
    commit: str | None = None
    """The hub's commit that the revision stood for."""
    checked_at: float = 0.0
    """When the source last confirmed it, in seconds since the epoch."""


class Store:
    """Paths and atomic writes beneath one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Create the folders."""
        for folder in _FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        """Return where the file of a digest is, or would be."""
        return self.root / "blobs" / "sha256" / sha256

    def part(self, uri: str, name: str = "") -> Path:
        """Return where an address's unfinished file is, or one of its files."""
        ending = f"-{key_of(name)[:16]}" if name else ""
        return self.root / "partial" / f"{key_of(uri)}{ending}.part"

    def part_bytes(self, uri: str) -> int:
        """Return the bytes of an address's unfinished files."""
        total = 0
        for path in (self.root / "partial").glob(f"{key_of(uri)}*.part"):
            with contextlib.suppress(FileNotFoundError):  # finished meanwhile
                total += path.stat().st_size
        return total

    def lock(self, uri: str) -> Path:
        """Return the lock file of an address."""
        return self.root / "locks" / f"{key_of(uri)}.lock"

    def free_bytes(self) -> int:
        """Return the free space of the cache's volume."""
        return shutil.disk_usage(self.root).free

    def known(self, uri: str) -> UriEntry | None:
        """Return what is known of an address, or None."""
        data = read_json(self._uri_index(uri))
        try:
            entry = UriEntry(**data) if data else None
        except TypeError:  # written by another version
            return None
        return entry if entry and entry.uri == uri else None

    def remember(self, entry: UriEntry) -> None:
        """Keep what is known of an address."""
        write_json(self._uri_index(entry.uri), asdict(entry))

    def adopt(self, path: Path, sha256: str) -> Path:
        """Make a finished, synced file the one of its digest, and return where it is."""
        target = self.blob(sha256)
        path.chmod(_READ_ONLY)
        path.replace(target)
        sync_folder(target.parent)
        return target

    def _uri_index(self, uri: str) -> Path:
        return self.root / "index" / "uris" / f"{key_of(uri)}.json"


def key_of(text: str) -> str:
    """Return a file name for any text."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from a file; None when there is none, or none that can be read."""
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object so that it is there whole or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_READABLE)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
