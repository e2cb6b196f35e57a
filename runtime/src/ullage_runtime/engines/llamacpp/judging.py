"""Judging: rerankers that say yes or no, by how likely they hold either.

They are asked as Qwen3-Reranker is (Zhang et al., "Qwen3 Embedding", 2025): whether a document
meets the requirements of a query. A score is the logarithm of the odds, so its sigmoid is how
likely the answer is yes, of the two.
"""

import math
from array import array
from collections.abc import Sequence
from typing import Final

from ullage_runtime.core.domain import GenerateRequest, Message
from ullage_runtime.core.errors import EngineFailed, ServingError, invalid_model
from ullage_runtime.core.vectors import floats
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.model import Model, tokenized
from ullage_runtime.engines.llamacpp.pooled_context import PooledContext
from ullage_runtime.engines.pooled.texts import Frame, PooledTexts
from ullage_runtime.engines.prompting.prompts import Prompts

SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
QUERY: Final = "{query}"
DOCUMENT: Final = "{document}"
USER: Final = (
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    f"<Query>: {QUERY}\n<Document>: {DOCUMENT}"
)
"""The words that such models are trained with."""
ANSWERS: Final = ("yes", "no")
_THINKING: Final = "enable_thinking"
_LEAST: Final = 1e-30
"""Shares below are none: their logarithm has to stay a number."""


class _PlainText:
    """A model's vocabulary without control tokens: who asks cannot end their own turn."""

    def __init__(self, model: Model) -> None:
        self.vocabulary_size = model.vocabulary_size
        self.longest_token = model.longest_token
        self._handle = model.vocabulary

    def tokenized(self, text: str, *, add_special: bool = True) -> list[int]:
        return tokenized(self._handle, text, add_special=add_special, markers=False)


def judging_texts(model: Model, prompts: Prompts) -> PooledTexts:
    """Return what makes a judge's prompts; raises LoadError for a template that asks nothing."""
    return PooledTexts(_PlainText(model), model.longest_text, _frame(model, prompts))


def _frame(model: Model, prompts: Prompts) -> Frame:
    """Return what stands around a query and a document.

    It is the file's own text for it, or else the model's chat template around the usual words.
    """
    text = model.rerank_template or _rendered(model, prompts)
    head, _, rest = text.partition(QUERY)
    middle, _, tail = rest.partition(DOCUMENT)
    if not rest or not middle or DOCUMENT not in rest:
        raise invalid_model(
            "the model's template leaves the query or the document out, so that it cannot be asked"
        )
    # A space belongs to the word behind it: vocabularies have them as one token.
    opening, gap = head.rstrip(" "), middle.rstrip(" ")
    between = model.tokenized(gap, add_special=False)
    # Words behind the query may share a token with its end; markers are none of its text.
    marked = between != tokenized(model.vocabulary, gap, add_special=False, markers=False)
    return Frame(
        opening=tuple(prompts.text_tokens(opening)),
        between=tuple(between) if marked else (),
        closing=tuple(model.tokenized(tail, add_special=False)),
        query=f"{head[len(opening) :]}{{}}{'' if marked else gap}",
        document=f"{middle[len(gap) :]}{{}}",
    )


def _rendered(model: Model, prompts: Prompts) -> str:
    turns = (Message("system", SYSTEM), Message("user", USER))
    thinks = _THINKING in (model.chat_template or "")
    options = {_THINKING: False} if thinks else {}
    try:
        return prompts.rendered(GenerateRequest("", messages=turns, template_options=options))
    except ServingError as error:
        raise invalid_model(
            f"the model cannot be asked with its chat template: {error.message}"
        ) from error


class Judging(PooledContext):
    """Scores of texts by the word that a model would say after each."""

    _wants_all = False

    def __init__(self, model: Model) -> None:
        """Prepare to judge; raises LoadError when the vocabulary has no such words."""
        answers = [model.tokenized(answer, add_special=False) for answer in ANSWERS]
        if any(len(tokens) != 1 for tokens in answers):
            raise invalid_model(
                f"the model's vocabulary has no single tokens for {' and '.join(ANSWERS)}, so it "
                "cannot rank by what it would answer"
            )
        super().__init__(model, width=1)
        self._yes, self._no = (tokens[0] for tokens in answers)

    def _numbers(self, sequence: int, texts: Sequence[Sequence[int]]) -> bytes:
        last = sum(map(len, texts[: sequence + 1])) - 1
        found = llama_cpp.llama_get_logits_ith(self._handle, last)
        if not found:
            raise EngineFailed("llama.cpp gave no result for a text", retry_after=1)
        return array("f", [found[self._yes] - found[self._no]]).tobytes()


class Odds(PooledContext):
    """Scores by a head for yes and for no, whose shares llama.cpp gives."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, width=2)

    def _numbers(self, sequence: int, texts: Sequence[Sequence[int]]) -> bytes:
        yes, no = floats(super()._numbers(sequence, texts))
        odds = math.log(max(yes, _LEAST)) - math.log(max(no, _LEAST))
        return array("f", [odds]).tobytes()
