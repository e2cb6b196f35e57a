"""Inspection: what a model will take, known from its header before the rest of it is fetched.

The header is put before as many zeros as the file will have bytes: an estimate computes nothing
with the weights, so it is as exact as that of the whole file. The zeros take no room on the disk.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.llamacpp.header import MAGIC, header_is_whole
from ullage_runtime.models.artifacts import Artifacts
from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.surroundings import Surroundings

MAX_HEADER: Final = 64 << 20
"""Bytes of the longest header that is waited for; vocabularies take a sixth of it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inspection:
    """Looks whether a revision can ever fit; an `Inspect`."""

    around: Surroundings = field(compare=False, repr=False)
    model: str
    want: DesiredRevision

    async def __call__(self, beginning: Path, total: int) -> bool:
        """Return whether there is no more to see; raises LoadError for what cannot be loaded."""
        with _copied(beginning) as copy:
            have = await asyncio.to_thread(_fill, copy, beginning)
            if not await asyncio.to_thread(_is_gguf, copy):
                return True
            if not await asyncio.to_thread(header_is_whole, str(copy)):
                return have == MAX_HEADER
            os.truncate(copy, total)
            await self._check(copy, total)
        return True

    async def _check(self, path: Path, size: int) -> None:
        artifacts = Artifacts(self.want, CachedModel(path=str(path), sha256="", size=size))
        try:
            footprint = await self.around.loader.foreseen(artifacts)
        except LoadError as error:
            if error.final:
                raise
            _log.warning("model.not_inspected", model=self.model, why=error.message)
            return
        self.around.room.check(self.model, footprint)


@contextmanager
def _copied(beginning: Path) -> Iterator[Path]:
    """Make an empty file beside another one, for as long as the block lasts."""
    with tempfile.NamedTemporaryFile(dir=beginning.parent, prefix=".header-") as file:
        yield Path(file.name)


def _fill(copy: Path, beginning: Path) -> int:
    """Copy as much as a header may have; return how much there was."""
    with beginning.open("rb") as source:
        return copy.write_bytes(source.read(MAX_HEADER))


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
