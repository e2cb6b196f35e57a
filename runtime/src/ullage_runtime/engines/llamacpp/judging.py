"""Judging: rerankers that say yes or no, by how likely they hold either."""

import math
from array import array
from collections.abc import Sequence
from typing import Final

from ullage_runtime.core.errors import EngineFailed
from ullage_runtime.core.vectors import floats
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.pooled_context import PooledContext
from ullage_runtime.engines.llamacpp.vocabulary import tokenized
from ullage_runtime.engines.pooled.asking import answer_tokens, asking_texts
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.prompting.prompts import Prompts

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
    return asking_texts(
        model, _PlainText(model), prompts, model.longest_text, model.rerank_template
    )


class Judging(PooledContext):
    """Scores of texts by the word that a model would say after each."""

    _wants_all = False

    def __init__(self, model: Model) -> None:
        """Prepare to judge; raises LoadError when the vocabulary has no such words."""
        self._yes, self._no = answer_tokens(model)
        super().__init__(model, width=1)

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
