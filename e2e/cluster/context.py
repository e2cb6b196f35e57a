"""What an image is made of, packed as a build context that is the same for the same content."""

from __future__ import annotations

import io
import platform
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster import llama_wheel
from e2e.cluster.binaries import say
from e2e.cluster.cache import content_key

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IMAGES", "Context", "ImageSource", "pack"]

REPOSITORY = Path(__file__).resolve().parents[2]
WORKSPACE = ("LICENSE", "pyproject.toml", "uv.lock")
MEMBERS = ("crds/pyproject.toml", "operator/pyproject.toml", "runtime/pyproject.toml")
# A wheel made on this machine loads in the image only if the image's C library is as new.
IMAGE_LIBC = (2, 36)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Which files of the repository one image is made of."""

    name: str
    folders: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    llama: bool = False

    @property
    def dockerfile(self) -> str:
        """The name of its Dockerfile."""
        return f"Dockerfile.{self.name}"


IMAGES = {
    "operator": ImageSource("operator", ("crds/src", "operator/src")),
    "runtime": ImageSource(
        "runtime",
        ("crds/src", "runtime/patches", "runtime/src", "runtime/vllm-cpu"),
        ("examples/models/*.gguf",),
        llama=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Context:
    """A packed build context, and the key of its content."""

    data: bytes
    key: str


def pack(source: ImageSource, repository: Path = REPOSITORY) -> Context:
    """Pack the files of one image; neither times nor owners of the checkout enter."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in sorted(_files(source, repository)):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            entry.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
    data = buffer.getvalue()
    return Context(data, content_key(data))


def _files(source: ImageSource, repository: Path) -> Iterator[tuple[str, Path]]:
    for name in (source.dockerfile, *WORKSPACE, *MEMBERS):
        yield name, repository / name
    for folder in source.folders:
        for path in (repository / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(repository)), path
    for pattern in source.patterns:
        for path in repository.glob(pattern):
            yield str(path.relative_to(repository)), path
    if source.llama:
        wheel = llama_wheel.kept(repository)
        if wheel is None:
            say("no wheel of llama.cpp is kept for this checkout: the image build compiles one")
        elif loads_in_image(*platform.libc_ver()):
            yield f"wheels/{wheel.name}", wheel


def loads_in_image(library: str, version: str) -> bool:
    """Return whether what is compiled against this C library loads in the images."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return library == "glibc" and match is not None and (int(match[1]), int(match[2])) <= IMAGE_LIBC
