"""The header of an ONNX file: what it wants, gives and weighs, without its weights.

An ONNX file is one protobuf message, `ModelProto` (https://github.com/onnx/onnx/blob/main/onnx/
onnx.proto). Parsing it whole would take its weights into memory before anybody granted it, so the
message is walked over, and what weighs is skipped. Of a damaged file nothing is believed: each
length is held against what there is, and the walk has an end.
"""

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Final

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.precision import PrecisionType

MAX_FIELDS: Final = 2_000_000
"""Fields of all messages that are looked at; a large encoder has 50,000."""
MAX_NESTING: Final = 16
"""Graphs within graphs, as loops and branches have them."""
SHOWN: Final = 80
"""Characters of a name that a message quotes: files have a say in them."""

_MAX_VARINT_BYTES: Final = 10


class _Kind(IntEnum):
    """How a field's bytes are laid out."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


class _Graph(IntEnum):
    """Fields of `GraphProto`."""

    NODE = 1
    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12


# Fields of the other messages.
_MODEL_GRAPH: Final = 7
_MODEL_FUNCTION: Final = 25
_FUNCTION_NODE: Final = 7
_NODE_ATTRIBUTE: Final = 5
_ATTRIBUTE_NAME: Final = 1
_ATTRIBUTE_INTEGER: Final = 3
_ATTRIBUTE_TENSORS: Final = frozenset({5, 10})
_ATTRIBUTE_GRAPHS: Final = frozenset({6, 11})
_VALUE_NAME: Final = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_TENSOR_TYPE: Final = 2
_TENSOR_EXTERNAL: Final = 13
_TENSOR_DATA: Final = frozenset({4, 5, 6, 7, 9, 10, 11})
"""`float_data` to `uint64_data`: the numbers themselves, in whatever form."""
_KEPT_IN: Final = {
    PrecisionType.INT8: frozenset({2, 3}),
    PrecisionType.F16: frozenset({10}),
    PrecisionType.F32: frozenset({1}),
}
"""Precisions with the types of `TensorProto.DataType` that their matrices have."""
_FEW_BITS: Final = frozenset({21, 22, 23})
"""Likewise: 4 bits."""
_BITS: Final = b"bits"
"""The attribute by which onnxruntime's own operators say how many bits bytes are made of."""
_WHOLE_BYTE: Final = 8
_SHARE: Final = 100
"""Matrices are one part in so many of all weights at least: vocabularies are often left in 32 bits,
and a small encoder of many languages is little else."""


@dataclass(frozen=True, slots=True)
class External:
    """Numbers of a tensor that lie in another file."""

    location: str
    offset: int
    length: int | None
    """None: all that follows."""
    type: int = 0
    """What the numbers are, as a `TensorProto.DataType`."""


@dataclass(slots=True)
class Header:
    """What is known of an ONNX file before it is loaded."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    inner_bytes: int = 0
    """Bytes of the tensors in the file itself."""
    externals: list[External] = field(default_factory=list)
    outer_bytes: int = 0
    """Bytes of the tensors in other files."""
    bytes_of_type: Counter[int] = field(default_factory=Counter)
    """Bytes of the tensors by `TensorProto.DataType`."""
    has_few_bits: bool = False
    """Whether an operator takes bytes apart into numbers of fewer bits."""

    @property
    def precision(self) -> PrecisionType:
        """What the matrices are kept in; Auto when it is none of those that have a name."""
        if self.has_few_bits or any(self.bytes_of_type[each] for each in _FEW_BITS):
            return PrecisionType.AUTO
        for precision, types in _KEPT_IN.items():
            if _SHARE * sum(self.bytes_of_type[each] for each in types) >= self.weight_bytes > 0:
                return precision
        return PrecisionType.AUTO

    @property
    def half_bytes(self) -> int:
        """Bytes of the tensors in 16 bits."""
        return sum(self.bytes_of_type[each] for each in _KEPT_IN[PrecisionType.F16])

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.inner_bytes + self.outer_bytes


def read_header(path: Path) -> Header:
    """Return a file's header; raises LoadError(InvalidModel) for what is no whole ONNX model.

    That its external data is there, beside it, and long enough is checked too.
    """
    header = Header()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data, header).model()
        for external in header.externals:
            size = _checked(path, external)
            header.outer_bytes += size
            header.bytes_of_type[external.type] += size
    except _DamagedError as error:
        raise invalid_model(f"{path.name} is no whole ONNX file: {error}") from error
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise invalid_model(f"{path.name} cannot be read: {error}") from error
    if not header.inputs or not header.outputs:
        raise invalid_model(f"{path.name} is no ONNX model: it has no inputs or no outputs")
    return header


def _checked(path: Path, external: External) -> int:
    """Return the bytes of numbers in another file; raises LoadError unless they are there."""
    shown = repr(external.location[:SHOWN])
    location = PurePosixPath(external.location)
    if location.is_absolute() or ".." in location.parts or "\\" in external.location:
        raise invalid_model(f"{path.name} wants data from {shown}, which does not lie beside it")
    beside = path.parent / location
    if "\0" in external.location or not beside.is_file():
        raise invalid_model(
            f"{path.name} has its weights in {shown}, which is not there; an ONNX file brings "
            f"what is named {path.name}_data or {path.name}.data"
        )
    there = beside.stat().st_size - external.offset
    wanted = there if external.length is None else external.length
    if min(there, wanted, external.offset) < 0 or wanted > there:
        raise invalid_model(f"{path.name} wants more of {shown} than there is")
    return wanted


class _DamagedError(Exception):
    """What cannot be a protobuf message."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that is a message, a text or other bytes, and where these are."""

    number: int
    start: int
    end: int


class _Walk:
    """Walks over one file's message."""

    def __init__(self, data: mmap.mmap, header: Header) -> None:
        self._data = data
        self._header = header
        self._seen = 0

    def model(self) -> None:
        """Read the whole of it."""
        for found in self._fields(0, len(self._data)):
            if found.number == _MODEL_GRAPH:
                self._graph(found, 0)
            elif found.number == _MODEL_FUNCTION:
                for node in self._fields(found.start, found.end):
                    if node.number == _FUNCTION_NODE:
                        self._node(node, 0)

    def _graph(self, graph: _Field, depth: int) -> None:
        if depth > MAX_NESTING:
            raise _DamagedError(f"graphs are nested more than {MAX_NESTING} deep")
        for found in self._fields(graph.start, graph.end):
            match found.number:
                case _Graph.NODE:
                    self._node(found, depth)
                case _Graph.INITIALIZER:
                    self._tensor(found)
                case _Graph.INPUT if depth == 0:
                    self._header.inputs.append(self._name(found))
                case _Graph.OUTPUT if depth == 0:
                    self._header.outputs.append(self._name(found))

    def _node(self, node: _Field, depth: int) -> None:
        for attribute in self._fields(node.start, node.end):
            if attribute.number != _NODE_ATTRIBUTE:
                continue
            numbers: dict[int, int] = {}
            name = b""
            for found in self._fields(attribute.start, attribute.end, numbers):
                if found.number == _ATTRIBUTE_NAME:
                    name = self._data[found.start : min(found.end, found.start + SHOWN)]
                elif found.number in _ATTRIBUTE_TENSORS:
                    self._tensor(found)
                elif found.number in _ATTRIBUTE_GRAPHS:
                    self._graph(found, depth + 1)
            if name == _BITS:
                self._header.has_few_bits |= numbers.get(_ATTRIBUTE_INTEGER, 0) < _WHOLE_BYTE

    def _tensor(self, tensor: _Field) -> None:
        entries: dict[str, str] = {}
        numbers: dict[int, int] = {}
        size = 0
        for found in self._fields(tensor.start, tensor.end, numbers):
            if found.number in _TENSOR_DATA:
                size += found.end - found.start
            elif found.number == _TENSOR_EXTERNAL:
                pair = self._texts(found)
                entries[pair.get(_ENTRY_KEY, "")] = pair.get(_ENTRY_VALUE, "")
        kind = numbers.get(_TENSOR_TYPE, 0)
        self._header.inner_bytes += size
        self._header.bytes_of_type[kind] += size
        if entries:
            self._header.externals.append(_external(entries, kind))

    def _name(self, value: _Field) -> str:
        return self._texts(value).get(_VALUE_NAME, "")

    def _texts(self, message: _Field) -> dict[int, str]:
        """Return a message's fields that are bytes, as text."""
        return {
            found.number: self._data[found.start : found.end].decode(errors="replace")
            for found in self._fields(message.start, message.end)
        }

    def _fields(self, at: int, end: int, numbers: dict[int, int] | None = None) -> Iterator[_Field]:
        """Yield the fields between two places, without numbers, which go into a table if wanted."""
        while at < end:
            self._seen += 1
            if self._seen > MAX_FIELDS:
                raise _DamagedError(f"it has more than {MAX_FIELDS} fields")
            key, at = self._varint(at, end)
            number, kind = key >> 3, key & 7
            if kind == _Kind.VARINT:
                value, at = self._varint(at, end)
                if numbers is not None:
                    numbers[number] = value
                continue
            start, after = self._extent(kind, at, end)
            if after > end or not number:
                raise _DamagedError(f"it ends in the midst of a field at byte {at}")
            if kind == _Kind.BYTES:
                yield _Field(number, start, after)
            at = after

    def _extent(self, kind: int, at: int, end: int) -> tuple[int, int]:
        """Return where a field's bytes begin and end."""
        match kind:
            case _Kind.FIXED64:
                return at, at + 8
            case _Kind.FIXED32:
                return at, at + 4
            case _Kind.BYTES:
                length, start = self._varint(at, end)
                return start, start + length
            case _:
                raise _DamagedError(f"there is no field at byte {at}")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for place in range(_MAX_VARINT_BYTES):
            if at + place >= end:
                break
            byte = self._data[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
                return value, at + place + 1
        raise _DamagedError(f"there is no number at byte {at}")


def _external(entries: dict[str, str], kind: int) -> External:
    """Return where a tensor's numbers are; numbers that are none are wrong ones."""
    offset, length = entries.get("offset", "0"), entries.get("length")
    return External(
        location=entries.get("location", ""),
        offset=_number(offset),
        length=None if length is None else _number(length),
        type=kind,
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - 63 bits
        raise _DamagedError(f"{text[:SHOWN]!r} is no offset or length")
    return int(text)
