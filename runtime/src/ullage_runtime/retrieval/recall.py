"""How many of the nearest points searches really find: what was asked is asked again, exactly."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ullage_runtime.retrieval.stores.port import Branch, Found, Query, Store

DEPTH: Final = 10
"""Findings that are compared."""
KEPT: Final = 20
"""Questions that are kept, and answers whose mean is told."""
PROBE_SECONDS: Final = 5.0
_EXACT: Final = {"exact": True, "quantization": {"ignore": True}}


class RecallProbe:
    """The recall of a collection's index, by the questions that it was asked last."""

    def __init__(self) -> None:
        self._asked: deque[tuple[str, tuple[float, ...]]] = deque(maxlen=KEPT)
        self._shares: deque[float] = deque(maxlen=KEPT)

    @property
    def percent(self) -> int | None:
        """Share of the nearest points that were found; None before the first probe."""
        if not self._shares:
            return None
        return math.floor(100 * sum(self._shares) / len(self._shares) + 0.5)

    def note(self, physical: str, vector: tuple[float, ...]) -> None:
        """Remember a question, and of what it was asked: other vectors do not fit it."""
        self._asked.append((physical, vector))

    async def look(self, store: Store, physical: str, params: Mapping[str, Any]) -> None:
        """Ask the oldest question twice, by the index and exactly, if there is one."""
        while self._asked and self._asked[0][0] != physical:
            self._asked.popleft()
            self._shares.clear()
        if not self._asked:
            return
        branch = Branch(self._asked.popleft()[1], DEPTH)
        queries = [Query((branch,), DEPTH, params=each) for each in (params, _EXACT)]
        found, nearest = await store.query(physical, queries, seconds=PROBE_SECONDS)
        if nearest:
            self._shares.append(share(found, nearest))


def share(found: Sequence[Found], nearest: Sequence[Found]) -> float:
    """Return which share of the nearest points was found; of equally near ones any will do."""
    ids, last = {each.id for each in nearest}, nearest[-1].score
    hits = sum(f.id in ids or math.isclose(f.score, last, rel_tol=1e-5) for f in found)
    return min(hits, len(nearest)) / len(nearest)
