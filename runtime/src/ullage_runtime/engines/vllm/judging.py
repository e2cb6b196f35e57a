"""Judging: rerankers that say yes or no, by how likely vLLM holds either."""

import itertools
import math
from array import array
from collections.abc import Collection, Sequence
from typing import Any

from ullage_api.conditions import Reason
from ullage_runtime.core.errors import EngineFailed, LoadError
from ullage_runtime.core.pooled import Output, Said
from ullage_runtime.core.vectors import floats
from ullage_runtime.engines.pooled.asking import answer_tokens, asking_texts
from ullage_runtime.engines.pooled.texts import PooledTexts
from ullage_runtime.engines.prompting.prompts import Prompts
from ullage_runtime.engines.vllm.library import Core
from ullage_runtime.engines.vllm.speller import Speller


def judging_texts(speller: Speller, prompts: Prompts) -> PooledTexts:
    """Return what makes a judge's prompts; raises LoadError for a template that asks nothing."""
    # One token is left for the answer.
    return asking_texts(speller, speller.plain(), prompts, speller.context_length - 1)


class Judging:
    """Scores of texts by the word that a model would say after each; owned by one thread."""

    outputs: tuple[Output, ...] = (Output.DENSE,)
    token_width = 0

    def __init__(self, core: Core, speller: Speller) -> None:
        """Prepare to judge; raises LoadError when the vocabulary has no such words."""
        self._core = core
        self._yes, self._no = answer_tokens(speller)
        self._parameters = _parameters(self._yes, self._no)
        self._numbers = itertools.count()

    def try_out(self, text: Sequence[int]) -> None:
        """Judge one text, so that what computing takes is known; raises LoadError."""
        (said,) = self.compute([text], self.outputs)
        if not math.isfinite(floats(said.values)[0]):
            raise LoadError(
                Reason.LOAD_FAILED,
                "the model loaded but cannot judge: what it computes is not finite",
                final=True,
            )

    def compute(
        self,
        texts: Sequence[Sequence[int]],
        outputs: Collection[Output],  # noqa: ARG002 - there is but one
    ) -> list[Said]:
        """Return each text's score; raises EngineFailed."""
        names = [f"judged-{number}" for number in itertools.islice(self._numbers, len(texts))]
        questions = [
            self._core.checked(name, list(text), self._parameters)
            for name, text in zip(names, texts, strict=True)
        ]
        for question in questions:
            self._core.add(question)
        found: dict[str, bytes] = {}
        while self._core.busy:
            for output in self._core.step():
                found[output.request_id] = self._score(output)
        if len(found) < len(names):
            raise EngineFailed("vLLM gave no result for a text", retry_after=1)
        return [Said(found[name]) for name in names]

    def close(self) -> None:
        """Do nothing: what it has is the model's."""

    def _score(self, output: Any) -> bytes:
        said = output.outputs[0]
        if not said.logprobs:
            raise EngineFailed("vLLM could not judge a text", retry_after=1)
        row = said.logprobs[0]
        return array("f", [row[self._yes].logprob - row[self._no].logprob]).tobytes()


def _parameters(yes: int, no: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        logprob_token_ids=[yes, no],
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # A text may be of any tenant: how long it takes must not tell what others asked.
        skip_reading_prefix_cache=True,
    )
