"""Scoring: queries and documents under a lease, by a cross-encoder or by embeddings' cosine."""

import uuid
from dataclasses import dataclass

from ullage_runtime.core.pooled import Ability, EmbedRequest, RerankRequest, Role
from ullage_runtime.core.vectors import dot, floats, sigmoid
from ullage_runtime.http.together import together
from ullage_runtime.models.ports import Lease


@dataclass(frozen=True, slots=True)
class Scores:
    """One score for each document, in their order."""

    values: tuple[float, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is to be scored, and how."""

    query: str
    documents: tuple[str, ...]
    tenant: str
    truncate: bool = False
    raw: bool = False
    max_document_tokens: int | None = None

    async def scored(self, lease: Lease) -> Scores:
        """Return the scores; an Embedding model ranks by the cosine of its vectors."""
        if Ability.EMBED in lease.loaded.abilities:
            return await self._by_cosine(lease)
        work = RerankRequest(
            request_id=uuid.uuid4().hex,
            query=self.query,
            documents=self.documents,
            truncate=self.truncate,
            max_document_tokens=self.max_document_tokens,
            tenant=self.tenant,
        )
        answer = await lease.rerank(work)
        scores = (floats(score)[0] for score in answer.values)
        return Scores(tuple(s if self.raw else sigmoid(s) for s in scores), answer.tokens)

    async def _by_cosine(self, lease: Lease) -> Scores:
        query, documents = await together(
            [
                lease.embed(self._embedding((self.query,)), Role.QUERY),
                lease.embed(self._embedding(self.documents), Role.DOCUMENT),
            ]
        )
        (wanted,) = query.values
        cosines = tuple(dot(wanted, vector) for vector in documents.values)
        return Scores(cosines, query.tokens + documents.tokens)

    def _embedding(self, texts: tuple[str, ...]) -> EmbedRequest:
        return EmbedRequest(uuid.uuid4().hex, texts, truncate=self.truncate, tenant=self.tenant)


async def all_scored(scorings: list[Scoring], lease: Lease) -> Scores:
    """Return the scores of several queries' documents, one after the other in one list."""
    found = await together(each.scored(lease) for each in scorings)
    values = tuple(value for scores in found for value in scores.values)
    return Scores(values, sum(scores.tokens for scores in found))
