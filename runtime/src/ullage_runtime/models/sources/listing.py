"""What a source says before anything is downloaded: the port that every kind of source has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.access import Access
from ullage_runtime.models.sources.web import Web


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be asked for over HTTP, in whole or in ranges, and what is known of it."""

    name: str
    url: str
    access: Access = field(default_factory=Access)
    headers: tuple[tuple[str, str], ...] = ()
    sha256: str | None = None
    size: int | None = None
    etag: str | None = None
    """What tells this version of the file from others, if the source said so beforehand."""
    hints: Mapping[int, str] = field(default_factory=dict)
    """What to do about an answer of this status."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of an address that a model needs."""

    files: tuple[RemoteFile, ...]
    main: str | None
    """The file that an engine opens; None for a folder."""
    version: str | None = None
    """What names this very content, such as a commit; None where only the file itself can tell."""
    commit: str | None = None
    unpacked: str | None = None
    """Set for files that are archives: the folder in them that holds the model's files."""

    @property
    def is_single(self) -> bool:
        """Whether the model is one file."""
        only = [file.name for file in self.files] == [self.main]
        return only and self.unpacked is None and not str(self.main).endswith(".onnx")


class RemoteSource(Protocol):
    """One address of a kind of source."""

    @property
    def label(self) -> str:
        """The address for messages, without secrets."""
        ...

    @property
    def main(self) -> str | None:
        """The file that the address names, within what it lists; None if it names a folder."""
        ...

    @property
    def is_pinned(self) -> bool:
        """Whether what the address names can never change."""
        ...

    async def listing(self, web: Web, precision: PrecisionType) -> Listing:
        """Ask the source what there is of a model's build in a precision; raises LoadError."""
        ...
