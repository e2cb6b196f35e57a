"""What retrieval is measured on: clustered vectors with words and a shelf, and questions."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

DIMENSIONS: Final = 384
CENTRES: Final = 1000
SHELVES: Final = 10
WORDS: Final = 20_000
TEXT: Final = 30
QUESTION: Final = 6
SPREAD: Final = 0.6
KINDS: Final = ("dense", "filtered", "sparse", "hybrid")


class Corpus:
    """Points and questions, the same for a seed."""

    def __init__(self, seed: int = 7) -> None:
        self._chance = np.random.default_rng(seed)
        self._centres = self._chance.normal(size=(CENTRES, DIMENSIONS)).astype(np.float32)

    def vectors(self, count: int) -> np.ndarray:
        """Return vectors of length 1, near one of the centres."""
        chosen = self._centres[self._chance.integers(CENTRES, size=count)]
        noise = self._chance.normal(scale=SPREAD, size=(count, DIMENSIONS)).astype(np.float32)
        found: np.ndarray = chosen + noise
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        return found

    def texts(self, count: int, length: int = TEXT) -> list[str]:
        """Return texts whose words are as common as Zipf says."""
        ranks = np.minimum(self._chance.zipf(1.3, size=(count, length)), WORDS)
        return [" ".join(f"word{rank}" for rank in row) for row in ranks]

    def questions(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Return bodies of searches of a kind."""
        vectors, texts = self.vectors(count).tolist(), self.texts(count, QUESTION)
        shelves = self._chance.integers(SHELVES, size=count).tolist()
        return [
            _body(kind, vector, text, shelf)
            for vector, text, shelf in zip(vectors, texts, shelves, strict=True)
        ]

    def batches(self, count: int, size: int = 256) -> Iterator[tuple[int, np.ndarray, list[str]]]:
        """Yield points in batches, each with the number of its first."""
        for first in range(0, count, size):
            some = min(size, count - first)
            yield first, self.vectors(some), self.texts(some)


def _body(kind: str, vector: list[float], text: str, shelf: int) -> dict[str, Any]:
    match kind:
        case "sparse":
            return {"query": text, "mode": "Sparse"}
        case "hybrid":
            return {"query": text, "vector": vector, "mode": "Hybrid"}
        case "filtered":
            where = {"must": [{"key": "shelf", "match": {"value": shelf}}]}
            return {"vector": vector, "mode": "Dense", "filter": where}
        case _:
            return {"vector": vector, "mode": "Dense"}
