"""Archives of an image: their files beneath one folder, unpacked into the cache by content.

Only regular files are taken, under their own names, each into its blob; nothing is written where
an archive's names could lead. A later layer's file replaces an earlier one's, and a whiteout
removes it, as in any image.
"""

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import zstandard

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.models.sources.failures import too_large
from ullage_runtime.models.sources.store import Store
from ullage_runtime.models.sources.trees import TreeFile

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 4 << 20
_MAX_MEMBERS: Final = 100_000


class Unpacking:
    """The files of some archives, one layer after the other. All of it blocks."""

    def __init__(
        self, store: Store, folder: str, *, max_bytes: int, make_room: Callable[[int], None]
    ) -> None:
        self.files: dict[str, TreeFile] = {}
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._make_room = make_room

    def add(self, archive: Path, what: str) -> None:
        """Unpack one archive; raises LoadError for one that is damaged or holds too much."""
        try:
            with _plain(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
                for count, member in enumerate(members):
                    if count > _MAX_MEMBERS:
                        raise invalid_model(f"{what} has more than {_MAX_MEMBERS} entries")
                    self._take(members, member, what)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as e:
            raise invalid_model(f"{what} is no archive that can be read: {e}") from e

    def _take(self, members: tarfile.TarFile, member: tarfile.TarInfo, what: str) -> None:
        path = os.path.normpath(member.name.lstrip("/")).removeprefix("./")
        if not path.startswith(self._folder):
            return
        name = path.removeprefix(self._folder)
        folder, _, last = name.rpartition("/")
        if last == _OPAQUE:
            self._drop(folder)
        elif last.startswith(_WHITEOUT):
            self._drop(f"{folder}/{last.removeprefix(_WHITEOUT)}".lstrip("/"))
        elif member.isfile():
            content = members.extractfile(member)
            if content is not None:
                self._check_size(name, member.size, what)
                self.files[name] = self._stored(name, content, member.size)

    def _drop(self, name: str) -> None:
        for known in [k for k in self.files if k == name or k.startswith(f"{name}/") or not name]:
            del self.files[known]

    def _check_size(self, name: str, size: int, what: str) -> None:
        others = sum(file.size for key, file in self.files.items() if key != name)
        if others + size > self._max_bytes:
            raise too_large(f"{what}, unpacked,", others + size, self._max_bytes)

    def _stored(self, name: str, content: IO[bytes], size: int) -> TreeFile:
        self._make_room(size)
        descriptor, path = tempfile.mkstemp(dir=self._store.root / "partial", prefix="unpacked.")
        digest = hashlib.sha256()
        try:
            with os.fdopen(descriptor, "wb") as file:
                while data := content.read(_CHUNK):
                    digest.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._store.adopt(Path(path), digest.hexdigest())
        finally:
            Path(path).unlink(missing_ok=True)
        return TreeFile(name, digest.hexdigest(), size)


def _plain(archive: Path) -> IO[bytes]:
    """Return an archive's bytes, uncompressed as they are read."""
    file = archive.open("rb")
    head = file.read(len(_ZSTD))
    file.seek(0)
    if head == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(file, closefd=True)
    if head.startswith(_GZIP):
        file.close()
        return gzip.open(archive, "rb")  # type: ignore[return-value]  # it reads like one
    return file
