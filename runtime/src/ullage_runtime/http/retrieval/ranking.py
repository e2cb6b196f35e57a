"""The pool's models as what looks at findings again."""

from collections.abc import Sequence

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.http.ranking.scoring import Scoring
from ullage_runtime.http.replacement import under_lease
from ullage_runtime.http.tasks import check_task
from ullage_runtime.models.ports import Models


class PoolRanker:
    """A `Ranker` over the models of this pod."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def rank(
        self, model: str, query: str, texts: Sequence[str], *, tenant: str
    ) -> tuple[float, ...]:
        """Return a score from 0 to 1 for each text; one that is too long loses its end."""
        found = self._models.find(model)
        check_task(found, "rank documents", Task.RERANK)
        scoring = Scoring(query, tuple(texts), tenant, truncate=True)
        scores = await under_lease(self._models, found, scoring.scored, tenant=tenant)
        return scores.values
