"""Model files with hostile headers: the same ones for the same seed."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf

WIDE = (0, 1, 7, 1 << 20, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
"""Counts, lengths, dimensions and offsets that nobody means well with."""
NARROW = (0, 1, 4, 5, 8, 9, 12, 13, 31, 39, 255, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
"""The same for types and numbers of 32 bits."""
ARRAY = 9


@dataclass(frozen=True, slots=True)
class Place:
    """Where a number of the header is."""

    at: int
    width: int


class Original:
    """A good file, with the places of every number in its header."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(str(path))
        self.size = path.stat().st_size
        self.header = path.read_bytes()[: reader.data_offset]
        self.counts = [Place(8, 8), Place(16, 8)]
        self.lengths: list[Place] = []
        self.types: list[Place] = []
        self.values: list[Place] = []
        self.dimensions: list[Place] = []
        self.arrays: list[Place] = []
        for field in reader.fields.values():
            if not field.name.startswith("GGUF."):
                self._note_entry(field)
        for tensor in reader.tensors:
            self._note_tensor(tensor.field)

    def _note_entry(self, field: gguf.ReaderField) -> None:
        at = list(_starts(field))
        self.lengths.append(Place(at[0], 8))
        self.types.append(Place(at[2], 4))
        kind = field.types[0]
        if kind is gguf.GGUFValueType.ARRAY:
            self.arrays.append(Place(at[3], 4))
            self.lengths.append(Place(at[4], 8))
            if field.types[1] is gguf.GGUFValueType.STRING:
                self.lengths += [Place(start, 8) for start in at[5:25:2]]
        elif kind is gguf.GGUFValueType.STRING:
            self.lengths.append(Place(at[3], 8))
        else:
            self.values.append(Place(at[3], int(field.parts[3].nbytes)))

    def _note_tensor(self, field: gguf.ReaderField) -> None:
        name, _, count, dimensions, kind, offset = _starts(field)
        self.lengths.append(Place(name, 8))
        self.types += [Place(count, 4), Place(kind, 4)]
        number = int(field.parts[3].size)
        self.dimensions += [Place(dimensions + 8 * n, 8) for n in range(number)]
        self.dimensions.append(Place(offset, 8))


def _starts(field: gguf.ReaderField) -> Iterator[int]:
    at = field.offset
    for part in field.parts:
        yield at
        at += int(part.nbytes)


Mutation = Callable[[random.Random, Original, bytearray], int]
"""Changes a header in place and returns the file's size."""


def _bits(chance: random.Random, original: Original, header: bytearray) -> int:
    for _ in range(chance.choice((1, 1, 2, 8))):
        header[_somewhere(chance, header)] ^= 1 << chance.randrange(8)
    return original.size


def _bytes(chance: random.Random, original: Original, header: bytearray) -> int:
    for _ in range(chance.randint(1, 6)):
        header[_somewhere(chance, header)] = chance.randrange(256)
    return original.size


def _somewhere(chance: random.Random, header: bytearray) -> int:
    """Return a place that is likely to be among the first entries, not in the vocabulary."""
    return chance.randrange(4, len(header) if chance.random() < 0.3 else min(1200, len(header)))


def _cut(chance: random.Random, original: Original, header: bytearray) -> int:
    return chance.randrange(original.size if chance.random() < 0.3 else len(header))


def _numbers(places: Callable[[Original], list[Place]]) -> Mutation:
    def mutation(chance: random.Random, original: Original, header: bytearray) -> int:
        for _ in range(chance.choice((1, 1, 1, 3))):
            place = chance.choice(places(original))
            number = chance.choice(WIDE if place.width == 8 else NARROW)
            content = struct.pack("<Q", number)[: place.width]
            header[place.at : place.at + place.width] = content
        return original.size

    return mutation


def _nested(chance: random.Random, original: Original, header: bytearray) -> int:
    """Make an array one of arrays, of arrays, as deep as its content is long."""
    place = chance.choice(original.arrays or original.types)
    level = struct.pack("<IQ", ARRAY, chance.choice((1, 2, 1 << 31)))
    header[place.at : place.at + 12 * 200] = (level * 200)[: len(header) - place.at]
    return original.size


def _swapped(chance: random.Random, original: Original, header: bytearray) -> int:
    """Put a stretch of the header in the place of another."""
    length = chance.randint(8, 200)
    source, target = (chance.randrange(24, len(header) - length) for _ in range(2))
    header[target : target + length] = header[source : source + length]
    return original.size


MUTATIONS: tuple[Mutation, ...] = (
    _bits,
    _bytes,
    _cut,
    _numbers(lambda o: o.counts),
    _numbers(lambda o: o.lengths),
    _numbers(lambda o: o.types),
    _numbers(lambda o: o.values),
    _numbers(lambda o: o.dimensions),
    _nested,
    _swapped,
)


def write_mutant(path: Path, original: Original, seed: int) -> Path:
    """Write the mutant of a seed; its tensors are zeros, which take no space on the disk."""
    chance = random.Random(seed)  # noqa: S311 - the same mutants every time
    header = bytearray(original.header)
    size = MUTATIONS[seed % len(MUTATIONS)](chance, original, header)
    with path.open("wb") as file:
        file.write(header[:size])
        file.truncate(size)
    return path
