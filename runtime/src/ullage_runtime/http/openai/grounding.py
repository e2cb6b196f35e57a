"""Answers from what is found: collections are searched, and the model is shown the findings.

The search comes before the model, with the user's last message and those before it, whatever the
model would have called: a small model need not know when to search. It is asked to name its
sources by their numbers, and what it names becomes citations. P. Lewis et al., "Retrieval-Augmented
Generation for Knowledge-Intensive NLP Tasks", 2020.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any, Final

from starlette.requests import Request

from ullage_runtime.core.domain import Message
from ullage_runtime.core.errors import InvalidRequest
from ullage_runtime.http.openai.file_filters import filter_of
from ullage_runtime.http.openai.tools import ToolDefinition
from ullage_runtime.http.retrieval.access import searcher_of, tenant_of
from ullage_runtime.http.retrieval.schema import MAX_QUERY, SearchBody
from ullage_runtime.http.services import Services
from ullage_runtime.retrieval.searching import Hit

DEFAULT_RESULTS: Final = 5
HISTORY: Final = 3
"""Earlier messages of the user that a search builds on."""

_MARK: Final = re.compile(r"\[(\d{1,2})\]")
_ASK: Final = (
    "Answer the question below from these sources. Name each source that you use by its number, "
    "such as [1]. If they do not answer it, say so."
)


@dataclass(frozen=True, slots=True)
class Source:
    """A finding that the model is shown."""

    collection: str
    hit: Hit

    @property
    def text(self) -> str:
        """What it says."""
        return str(self.hit.payload.get("text") or "")

    @property
    def file(self) -> str:
        """The document that it is of, or the point itself."""
        return str(self.hit.payload.get("document") or self.hit.id)

    def result(self) -> dict[str, Any]:
        """Return it as OpenAI's file search does."""
        rest = {k: v for k, v in self.hit.payload.items() if k != "text"}
        return {
            "file_id": self.file,
            "filename": self.file,
            "score": self.hit.score,
            "text": self.text,
            "attributes": {k: v for k, v in rest.items() if isinstance(v, str | int | float)},
        }


@dataclass(frozen=True, slots=True)
class Grounding:
    """What was looked for, and what the model is shown of it."""

    query: str
    sources: tuple[Source, ...]

    def citations(self, text: str) -> list[dict[str, Any]]:
        """Return a citation for each source that a text names."""
        numbers = dict.fromkeys(int(mark) for mark in _MARK.findall(text))
        return [
            {
                "type": "file_citation",
                "index": number - 1,
                "file_id": self.sources[number - 1].file,
                "filename": self.sources[number - 1].file,
            }
            for number in numbers
            if 1 <= number <= len(self.sources)
        ]

    def shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return a chat whose last question comes with the sources."""
        last = _last_question(messages)
        listed = "\n\n".join(
            f"[{number}] {source.file}: {source.text}"
            for number, source in enumerate(self.sources, 1)
        )
        question = messages[last]
        told = f"{_ASK}\n\n{listed or '(Nothing was found.)'}\n\nQuestion: {question.content}"
        return (*messages[:last], replace(question, content=told), *messages[last + 1 :])


async def grounding_of(
    services: Services,
    request: Request,
    tools: Sequence[ToolDefinition] | None,
    choice: object,
    messages: Sequence[Message],
) -> Grounding | None:
    """Search what a chat's tools say; None where they say nothing of it.

    Raises InvalidRequest, CollectionNotFound and whatever a search does.
    """
    searches = [tool for tool in tools or () if tool.type == "file_search"]
    if not searches or choice == "none":
        return None
    if len(searches) > 1:
        raise InvalidRequest(
            "tools may have one file_search; name several collections in its vector_store_ids",
            param="tools",
        )
    (tool,) = searches
    asked = [each.content for each in messages[: _last_question(messages) + 1] if _asks(each)]
    *before, query = (text[:MAX_QUERY] for text in asked)
    limit = tool.max_num_results or DEFAULT_RESULTS
    options = tool.ranking_options
    body = SearchBody(
        query=query,
        limit=limit,
        filter=None if tool.filters is None else filter_of(tool.filters),
        score_threshold=options.score_threshold if options else None,
    )
    found = []
    for name in dict.fromkeys(tool.vector_store_ids or ()):
        searcher = searcher_of(services, request, name)
        history = tuple(reversed(before[-HISTORY:]))
        search = replace(body.search(searcher.collection), history=history, lasting=False)
        findings = await searcher.search(search, tenant=tenant_of(request))
        found.append([Source(name, hit) for hit in findings.hits])
    # Scores of several collections cannot be compared: their findings take turns.
    turns = chain.from_iterable(zip_longest(*found))
    return Grounding(query, tuple(source for source in turns if source is not None)[:limit])


def _asks(message: Message) -> bool:
    return message.role == "user" and bool(message.content.strip())


def _last_question(messages: Sequence[Message]) -> int:
    """Return the place of the user's last message; raises InvalidRequest."""
    for place in reversed(range(len(messages))):
        if _asks(messages[place]):
            return place
    raise InvalidRequest("file_search needs a message of the user's to search for", param="tools")
