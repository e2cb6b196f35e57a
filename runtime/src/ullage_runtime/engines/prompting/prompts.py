"""From a request to a prompt's tokens: templates, special tokens and the context's limit."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

from ullage_runtime.core.domain import GenerateRequest
from ullage_runtime.core.errors import ContextLengthExceeded, InvalidRequest
from ullage_runtime.engines.lengths import excessive
from ullage_runtime.engines.prompting.chats import ChatStyle, Course
from ullage_runtime.engines.prompting.grammar import grammar_of
from ullage_runtime.engines.templates.renderer import Renderer
from ullage_runtime.engines.vocabulary import Spelling

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models whose vocabulary has ChatML's markers although their file has no template."""

_CHATML_MARKERS = ("<|im_start|>", "<|im_end|>")


class Prompted(Spelling, Protocol):
    """What prompts have to know of a model."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest prompt with its answer."""
        ...

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token, or 0 where nobody knows."""
        ...

    @property
    def chat_template(self) -> str | None:
        """Source of the template that comes with the model."""
        ...

    @property
    def bos(self) -> int | None:
        """The token that texts begin with, if there is one."""
        ...

    @property
    def eos(self) -> int | None:
        """The token that texts end with, if there is one."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether the model wants its prompts to begin with `bos`."""
        ...

    @property
    def adds_eos(self) -> bool:
        """Whether its tokenizer ends texts with `eos`."""
        ...

    @property
    def infill_markers(self) -> tuple[int, int, int] | None:
        """What stands before a gap's beginning, its end and its middle, for models that fill it."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given, and how its answer is to go."""

    tokens: list[int]
    course: Course
    marks: frozenset[int] = frozenset()
    """Control tokens whose text the answer needs."""


class Prompts:
    """Makes prompts for one model, on any thread but the engine's; templates one at a time."""

    def __init__(self, model: Prompted) -> None:
        self._model = model
        self._rendering = threading.Lock()

    def prompt(self, request: GenerateRequest) -> Prompt:
        """Return a request's prompt; raises InvalidRequest or ContextLengthExceeded."""
        if request.messages is None:
            return Prompt(self.tokens(request), Course(gbnf=grammar_of(request.sampling)))
        text = self.rendered(request)
        course = self._style.course(request, text)
        return Prompt(self._checked(self._tokenized(text)), course, self._style.marks)

    def tokens(self, request: GenerateRequest) -> list[int]:
        """Return the tokens of a request's prompt; raises what `prompt` raises."""
        if request.messages is None:
            return self._checked(self._tokens(request))
        return self._checked(self._tokenized(self.rendered(request)))

    def _tokens(self, request: GenerateRequest) -> list[int]:
        if request.suffix is not None:
            return self._infill(request.prompt or "", request.suffix)
        if isinstance(request.prompt, str):
            return self._tokenized(request.prompt)
        return self._checked_ids(request.prompt or ())

    def _checked(self, tokens: list[int]) -> list[int]:
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="prompt")
        if len(tokens) >= self._model.context_length:
            raise self._too_long(len(tokens))
        return tokens

    def text(self, request: GenerateRequest) -> str:
        """Return the text of a request's prompt, as an answer would show it."""
        if isinstance(request.prompt, str):
            return request.prompt
        return b"".join(map(self._model.piece, request.prompt or ())).decode(errors="replace")

    def added(self, request: GenerateRequest, tokens: Sequence[int]) -> int:
        """Return how many tokens stand before those of the request's own text: a BOS, or none."""
        model, prompt = self._model, request.prompt
        begins = isinstance(prompt, str) and not prompt.startswith(self._special_text(model.bos))
        return int(begins and model.bos is not None and tokens[0] == model.bos)

    def _infill(self, prompt: str | tuple[int, ...], suffix: str) -> list[int]:
        """Return the prompt for a model that was trained to fill a gap, the gap's end last."""
        model = self._model
        markers = model.infill_markers
        if markers is None:
            raise InvalidRequest(
                "this model has no tokens for filling in the middle, so it cannot take a suffix; "
                "leave it out",
                param="suffix",
            )
        before, after, middle = markers
        self._check_count(suffix)
        if isinstance(prompt, str):
            self._check_count(prompt)
            left = model.tokenized(prompt, add_special=False)
        else:
            left = self._checked_ids(prompt)
        right = model.tokenized(suffix, add_special=False)
        begin = [model.bos] if model.adds_bos and model.bos is not None else []
        return [*begin, before, *left, after, *right, middle]

    def text_tokens(self, text: str) -> list[int]:
        """Return the tokens of a prompt that is rendered already."""
        return self._tokenized(text)

    def start(self) -> None:
        """Get what rendering needs, before the first request needs it."""
        if self.has_template():
            self._renderer.start()

    def close(self) -> None:
        """End what `start` began; any thread may call it, and it is idempotent."""
        if "_renderer" in self.__dict__:
            self._renderer.close()

    def rendered(self, request: GenerateRequest) -> str:
        """Return the text of a chat; raises InvalidRequest or InvalidTemplate."""
        self._check_length(*(message.content for message in request.messages or ()))
        variables = self._style.variables(request)
        with self._rendering:
            return self._renderer.render(variables)

    @cached_property
    def _style(self) -> ChatStyle:
        def tokens_of(text: str) -> list[int]:
            return self._model.tokenized(text, add_special=False)

        return ChatStyle(self._template_source or "", tokens_of)

    def _check_length(self, *texts: str) -> None:
        """Refuse what cannot fit before more is done with it: megabytes hold up who waits."""
        longest = self._model.longest_token
        least = sum(len(text.encode()) for text in texts) // longest if longest else 0
        if least >= self._model.context_length:
            raise self._too_long(least, "at least ")

    def _check_count(self, text: str) -> None:
        """Refuse, likewise, what turns out not to fit before it is tokenized as a whole."""
        self._check_length(text)
        least = excessive(self._model, text, self._model.context_length)
        if least is not None:
            raise self._too_long(least, "at least ")

    def _too_long(self, tokens: int, about: str = "") -> ContextLengthExceeded:
        limit = self._model.context_length
        return ContextLengthExceeded(
            f"the prompt has {about}{tokens} tokens; this model's context is {limit} tokens, "
            "of which at least one must be left for the answer",
            details={"prompt_tokens": tokens, "context_length": limit},
        )

    def has_template(self) -> bool:
        """Tell whether chats can be rendered."""
        return self._template_source is not None

    @cached_property
    def _template_source(self) -> str | None:
        if self._model.chat_template:
            return self._model.chat_template
        known = all(len(self._model.tokenized(m, add_special=False)) == 1 for m in _CHATML_MARKERS)
        return CHATML if known else None

    @cached_property
    def _renderer(self) -> Renderer:
        if self._template_source is None:
            raise InvalidRequest(
                "this model has no chat template, so it cannot answer chats; "
                "use /v1/completions with a prompt",
                param="messages",
            )
        bos, eos = self._special_text(self._model.bos), self._special_text(self._model.eos)
        return Renderer(self._template_source, {"bos_token": bos, "eos_token": eos})

    def _special_text(self, token: int | None) -> str:
        return (
            "" if token is None else self._model.piece(token, special=True).decode(errors="replace")
        )

    def _tokenized(self, text: str) -> list[int]:
        """Return a text's tokens, with one BOS at most and without the EOS some tokenizers add."""
        model = self._model
        self._check_count(text)
        bos = self._special_text(model.bos)
        begun = bool(bos) and text.startswith(bos)
        tokens = model.tokenized(text, add_special=not begun)
        if not begun and model.adds_eos and tokens[-1:] == [model.eos]:
            del tokens[-1]
        return tokens

    def _checked_ids(self, prompt: tuple[int, ...]) -> list[int]:
        size = self._model.vocabulary_size
        wrong = next((token for token in prompt if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"token {wrong} is not in the model's vocabulary of {size}", param="prompt"
            )
        return list(prompt)
