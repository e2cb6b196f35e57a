"""How good a ranking is, where each question has one right answer."""

import math
from collections.abc import Hashable, Sequence


def ndcg(ranking: Sequence[Hashable], answer: Hashable, depth: int = 10) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002)."""
    for rank, each in enumerate(ranking[:depth]):
        if each == answer:
            return 1 / math.log2(rank + 2)
    return 0.0


def recall(ranking: Sequence[Hashable], answer: Hashable, depth: int = 10) -> float:
    """1 where the answer is among the first, else 0."""
    return float(answer in ranking[:depth])


def reciprocal_rank(ranking: Sequence[Hashable], answer: Hashable) -> float:
    """One over the answer's rank; 0 where it is not found."""
    return next((1 / rank for rank, each in enumerate(ranking, 1) if each == answer), 0.0)
