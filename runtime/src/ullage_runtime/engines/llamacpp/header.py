"""A GGUF file's header, read far enough to say what is wrong with a file before it is loaded.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. This is for good messages, not
for safety: whatever passes here is still only ever loaded in a worker process.
"""

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_TENSORS: Final = 1 << 20
MAX_ENTRIES: Final = 1 << 16
MAX_STRINGS: Final = 1 << 21
"""Strings in all arrays: a vocabulary and its merges have a third of it at most."""
MAX_PARTS: Final = 1024
"""Files of one model; each takes a file that is open."""
MAX_LIST: Final = 1024
"""Elements of the longest list that is kept: more layers has no model."""
MAX_TEXT: Final = 1024
"""Bytes that are kept of a string."""
DEFAULT_ALIGNMENT: Final = 32

_LEAST: Final = len(MAGIC) + 20
"""Bytes of the shortest header."""
_LENGTH: Final = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}

_CLASSIFIERS: Final = frozenset({"cls.weight", "cls.output.weight"})

RowBytes = Callable[[int, int], int | None]
"""Takes a ggml type and a row's elements; returns the row's bytes, None for an unknown type."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says that we use."""

    tensors: int
    tensor_bytes: int
    strings: dict[str, str]
    integers: dict[str, int]
    lists: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Short lists of integers, such as what each layer has."""
    has_classifier: bool = False
    """Whether it has a head that scores a text as a whole, as cross-encoders have."""

    @property
    def parts(self) -> int:
        """How many files the model is in."""
        return self.integers.get("split.count", 1)

    @property
    def architecture(self) -> str:
        """The model's architecture, as llama.cpp calls it."""
        return self.strings.get("general.architecture", "")

    def of_architecture(self, key: str, default: int = 0) -> int:
        """Return an integer of the model's architecture, such as `block_count`."""
        return self.integers.get(f"{self.architecture}.{key}", default)

    def of_layers(self, key: str, default: int = 0) -> tuple[int, ...]:
        """Return an integer of each layer, which the file may state once for all of them."""
        same = (self.of_architecture(key, default),) * self.of_architecture("block_count")
        return self.lists.get(f"{self.architecture}.{key}", same)


def read_header(path: str, row_bytes: RowBytes) -> Header:
    """Return a file's header; raises LoadError(InvalidModel) that says what is wrong and where."""
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            if size < _LEAST:
                _invalid(f"the file is truncated: {size} bytes are less than a GGUF header")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, size).header(row_bytes)
    except OSError as error:
        raise LoadError(
            Reason.INVALID_MODEL, f"the model file cannot be read: {error.strerror}", final=False
        ) from error


def header_is_whole(path: str) -> bool:
    """Tell whether a file that is still being written holds its whole header; raises LoadError."""
    size = Path(path).stat().st_size
    if size < _LEAST:
        return False
    with (
        Path(path).open("rb") as file,
        mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data,
    ):
        try:
            _Reader(data, size).header(lambda _type, _elements: None)
        except _CutShortError:
            return False
    return True


class _CutShortError(LoadError):
    """The file ends before its header does, or before its tensors."""


def _invalid(message: str) -> NoReturn:
    raise LoadError(Reason.INVALID_MODEL, message, final=True)


def _cut_short(message: str) -> NoReturn:
    raise _CutShortError(Reason.INVALID_MODEL, message, final=True)


class _Reader:
    """Reads values one after the other and never past the end."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 0
        self._strings = 0

    def header(self, row_bytes: RowBytes) -> Header:
        magic = self._take(4)
        if magic != MAGIC:
            _invalid(f"not a GGUF file: it begins with {magic.hex(' ')!r} instead of '47 47 55 46'")
        version = self._number("<I")
        if version not in VERSIONS:
            _invalid(f"GGUF version {version} is not supported; versions 2 and 3 are")
        tensors = self._count("tensors", MAX_TENSORS)
        pairs = self._count("metadata entries", MAX_ENTRIES)
        strings: dict[str, str] = {}
        integers: dict[str, int] = {}
        lists: dict[str, tuple[int, ...]] = {}
        for _ in range(pairs):
            key, kind = self._text(), self._number("<I")
            if kind == _ARRAY:
                self._array(key, lists)
            else:
                self._value(key, kind, strings, integers)
        parts = integers.get("split.count", 1)
        if not 0 < parts <= MAX_PARTS:
            _invalid(f"it would be one of {parts} parts; the header is corrupt")
        if not tensors and parts == 1:
            _invalid("the file has no tensors")
        extent, total, names = self._extent(tensors, integers, row_bytes)
        if extent > self._size:
            _cut_short(
                f"the file is truncated: its {tensors} tensors end at byte {extent}, "
                f"the file has {self._size}"
            )
        return Header(
            tensors=tensors,
            tensor_bytes=total,
            strings=strings,
            integers=integers,
            lists=lists,
            has_classifier=not _CLASSIFIERS.isdisjoint(names),
        )

    def _extent(
        self, tensors: int, integers: dict[str, int], row_bytes: RowBytes
    ) -> tuple[int, int, set[str]]:
        """Return the byte at which the last tensor ends, all tensors' bytes, and their names."""
        last, total, names = 0, 0, set()
        for _ in range(tensors):
            names.add(self._text())
            dimensions = self._number("<I")
            if dimensions > 4:  # noqa: PLR2004 - GGML_MAX_DIMS
                _invalid(f"a tensor of {dimensions} dimensions; the header is corrupt")
            shape = [self._number("<Q") for _ in range(dimensions)]
            ggml_type, offset = self._number("<I"), self._number("<Q")
            row = row_bytes(ggml_type, shape[0] if shape else 1)
            if row is None:
                continue  # a newer type: the engine knows best
            size = row
            for length in shape[1:]:
                size *= length
            total += size
            last = max(last, offset + size)
        alignment = max(1, integers.get("general.alignment", DEFAULT_ALIGNMENT))
        data = -(-self._at // alignment) * alignment
        return data + last, total, names

    def _value(
        self, key: str, kind: int, strings: dict[str, str], integers: dict[str, int]
    ) -> None:
        if kind == _STRING:
            strings[key] = self._text()
        elif kind in _INTEGERS:
            integers[key] = self._number(_INTEGERS[kind])
        elif kind in _SIZES:
            self._take(_SIZES[kind])
        else:
            _invalid(
                f"metadata entry {key[:64]!r} is of unknown type {kind}; the header is corrupt"
            )

    def _array(self, key: str, lists: dict[str, tuple[int, ...]]) -> None:
        kind, length = self._number("<I"), self._number("<Q")
        if kind in _INTEGERS and length <= MAX_LIST:
            lists[key] = tuple(self._number(_INTEGERS[kind]) for _ in range(length))
        elif kind in _SIZES:
            self._skip(length * _SIZES[kind])
        elif kind == _STRING:
            self._skip_strings(length)
        else:
            _invalid(f"an array of {length} elements of type {kind}; the header is corrupt")

    def _skip_strings(self, count: int) -> None:
        self._strings += count
        if self._strings > MAX_STRINGS:
            _invalid(f"arrays of more than {MAX_STRINGS} strings; the header is corrupt")
        at = self._at
        for _ in range(count):
            if self._size - at < _LENGTH.size:
                self._end(_LENGTH.size, at)
            at += _LENGTH.size + _LENGTH.unpack_from(self._data, at)[0]
        self._skip(at - self._at)

    def _count(self, what: str, most: int) -> int:
        count = self._number("<Q")
        if count > most:
            _invalid(f"{count} {what} are more than the {most} allowed; the header is corrupt")
        return count

    def _number(self, format_: str) -> int:
        value: int = struct.unpack(format_, self._take(struct.calcsize(format_)))[0]
        return value

    def _text(self) -> str:
        """Return a string, of a long one the beginning: messages quote it, memory holds it."""
        length = self._number("<Q")
        start = self._at
        self._skip(length)
        return self._data[start : start + min(length, MAX_TEXT)].decode(errors="replace")

    def _take(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._data[start : self._at]

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            self._end(count, self._at)
        self._at += count

    def _end(self, count: int, at: int) -> NoReturn:
        _cut_short(
            f"the file is truncated or corrupt: its header wants {count} bytes at byte {at}, the "
            f"file has {self._size}"
        )
