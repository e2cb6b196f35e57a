"""An unfinished file: it grows, is hashed as it grows, and is taken up again after a restart.

Bytes handed to the kernel outlive the process but not the machine, so the sidecar says how far the
file was synced and in which boot; in another boot only the synced bytes are trusted.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ullage_runtime.models.sources.responses import Validators
from ullage_runtime.models.sources.store import read_json, write_json

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this run of the machine from others; empty where there is no such thing."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class Partial:
    """One address's unfinished file. All methods block: call them in threads, one at a time."""

    def __init__(self, path: Path, uri: str, *, sync_bytes: int, boot: str | None = None) -> None:
        self.path = path
        self.uri = uri
        self.size = 0
        self.total: int | None = None
        self.validators = Validators()
        self.resumed = False
        """Whether bytes of an earlier attempt are in it."""
        self._sidecar = path.with_suffix(".json")
        self._sync_bytes = sync_bytes
        self._boot = boot_id() if boot is None else boot
        self._synced = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it has as many bytes as the server announced."""
        return self.total is not None and self.size == self.total

    @property
    def sha256(self) -> str:
        """The digest of the bytes so far."""
        return self._hash.hexdigest()

    def open(self, hash_bytes: int) -> Iterator[int]:
        """Take up what an earlier attempt left; yields the bytes taken up after each stretch."""
        usable = self._usable()
        self._file = self.path.open("r+b" if usable else "w+b", buffering=0)
        self._file.truncate(usable)
        while self.size < usable:
            data = self._file.read(min(hash_bytes, usable - self.size))
            if not data:
                raise OSError(f"{self.path} ends early")
            self._hash.update(data)
            self.size += len(data)
            yield self.size
        self._synced = min(self._synced, self.size)
        self.resumed = self.size > 0

    def _usable(self) -> int:
        """Read the sidecar; return how many bytes of the file can be relied on."""
        data = read_json(self._sidecar)
        if not data or data.get("uri") != self.uri or not self.path.exists():
            return 0
        size = self.path.stat().st_size
        self._synced = int(data.get("synced") or 0)
        if not self._boot or data.get("boot") != self._boot:
            size = min(size, self._synced)
        self.total = data.get("total")
        self.validators = Validators(data.get("etag"), data.get("last_modified"))
        if self.total is not None and size > self.total:
            self.total, self.validators = None, Validators()
            return 0
        return size

    def begin(self, total: int | None, validators: Validators) -> None:
        """Begin anew: forget all bytes, and note what the server says of the file."""
        file = self._opened()
        file.seek(0)
        file.truncate(0)
        self._forget()
        self.note(total, validators)

    def note(self, total: int | None, validators: Validators) -> None:
        """Write down which version of the file this is, so that a restart can go on with it."""
        self.total, self.validators = total, validators
        write_json(
            self._sidecar,
            {
                "uri": self.uri,
                "total": total,
                "etag": validators.etag,
                "last_modified": validators.last_modified,
                "synced": self._synced,
                "boot": self._boot,
            },
        )

    def _forget(self) -> None:
        self._hash = hashlib.sha256()
        self.size = self._synced = 0
        self.total, self.validators, self.resumed = None, Validators(), False

    def append(self, data: bytes) -> None:
        """Write bytes at the end, and sync now and then."""
        view = memoryview(data)
        while view:
            view = view[self._opened().write(view) :]
        self._hash.update(data)
        self.size += len(data)
        if self.size - self._synced >= self._sync_bytes:
            self.sync()

    def sync(self) -> None:
        """Bring all bytes to the disk."""
        os.fsync(self._opened().fileno())
        self._synced = self.size
        self.note(self.total, self.validators)

    def close(self) -> None:
        """Close the file and leave it for a later attempt."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close the file and remove it with all that is known of it."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)
        self._forget()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError(f"{self.path} is not open")
        return self._file
