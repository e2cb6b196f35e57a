"""Asking a model that generates whether a document meets the requirements of a query.

It is asked as Qwen3-Reranker is (Zhang et al., "Qwen3 Embedding", 2025), with its own chat
template. A score is the logarithm of the odds of yes, so its sigmoid is how likely the answer is
yes, of the two.
"""

from typing import Final, Protocol

from ullage_runtime.core.domain import GenerateRequest, Message
from ullage_runtime.core.errors import ServingError, invalid_model
from ullage_runtime.engines.pooled.texts import Frame, PooledTexts, Vocabulary
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


class Asked(Vocabulary, Protocol):
    """What has to be known of a model that is asked."""

    @property
    def chat_template(self) -> str | None:
        """Source of the template that comes with the model."""
        ...


def asking_texts(
    model: Asked, plain: Vocabulary, prompts: Prompts, longest: int, template: str | None = None
) -> PooledTexts:
    """Return what makes the prompts; raises LoadError for a template that asks nothing.

    `plain` is the vocabulary in which markers are text: who asks cannot end their own turn.
    `template` is the file's own text for it; without one it is the chat template around the usual
    words. `longest` is in tokens.
    """
    frame = _frame(model, plain, prompts, template or _rendered(model, prompts))
    return PooledTexts(plain, longest, frame)


def answer_tokens(model: Vocabulary) -> tuple[int, int]:
    """Return the tokens of yes and of no; raises LoadError when these words are no tokens."""
    answers = [model.tokenized(answer, add_special=False) for answer in ANSWERS]
    if any(len(tokens) != 1 for tokens in answers):
        raise invalid_model(
            f"the model's vocabulary has no single tokens for {' and '.join(ANSWERS)}, so it "
            "cannot rank by what it would answer"
        )
    (yes,), (no,) = answers
    return yes, no


def _frame(model: Asked, plain: Vocabulary, prompts: Prompts, text: str) -> Frame:
    """Return what stands around a query and a document in a text that asks."""
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
    marked = between != plain.tokenized(gap, add_special=False)
    return Frame(
        opening=tuple(prompts.text_tokens(opening)),
        between=tuple(between) if marked else (),
        closing=tuple(model.tokenized(tail, add_special=False)),
        query=f"{head[len(opening) :]}{{}}{'' if marked else gap}",
        document=f"{middle[len(gap) :]}{{}}",
    )


def _rendered(model: Asked, prompts: Prompts) -> str:
    turns = (Message("system", SYSTEM), Message("user", USER))
    thinks = _THINKING in (model.chat_template or "")
    options = {_THINKING: False} if thinks else {}
    try:
        return prompts.rendered(GenerateRequest("", messages=turns, template_options=options))
    except ServingError as error:
        raise invalid_model(
            f"the model cannot be asked with its chat template: {error.message}"
        ) from error
