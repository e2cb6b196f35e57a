"""How the next token is chosen: llama.cpp's samplers, cheapest first, and grammars beside them."""

import ctypes
import math
import secrets
import struct
import time
from dataclasses import dataclass
from typing import Any, Final

from ullage_runtime.core.domain import Sampling
from ullage_runtime.core.errors import InvalidOutput, InvalidRequest
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.candidates import Candidates, likeliest, single
from ullage_runtime.engines.llamacpp.model import Model

MAX_LOGPROBS: Final = 20
SORTED_AT_MOST: Final = 1024
"""Tokens that are sorted when a request names no `top_k`: sorting 150,000 costs fifty times it."""

GRAMMAR_SECONDS: Final = 0.5
"""How long a grammar may think about one token, while everybody else waits.

What an ambiguous one keeps in mind can double with each token; it is ended before that matters.
"""

_POSSIBLE: Final = 1e-30
"""Share of the likeliest token's probability that every token has which a grammar leaves."""

_FLOAT: Final = struct.Struct("f")
_SEED_MASK: Final = 0xFFFFFFFF
_RANDOM_SEED: Final = 0xFFFFFFFF
"""llama.cpp reads this value as: take a random seed."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, and what was asked for of its likelihood."""

    token: int
    logprob: float = 0.0
    likeliest: tuple[tuple[int, float], ...] = ()
    """Tokens and the logarithms of their probabilities, likeliest first."""


class Sampler:
    """What one generation samples with; `close` frees it.

    Penalties and biases touch only the logits they are for, in place, before everything else. A
    grammar is asked about the one token that was sampled freely; only when it refuses that one is
    the whole vocabulary put through it, which costs as much as a small model's step.

    A grammar may wait: until `constrain` is called, the model writes what it likes.
    """

    def __init__(
        self,
        sampling: Sampling,
        model: Model,
        prompt: list[int],
        gbnf: str | None = None,
        *,
        waits: bool = False,
    ) -> None:
        _check(sampling, model)
        self._sampling = sampling
        self._tokenized = model.tokenized
        self._piece = model.piece
        self.waits = waits and gbnf is not None
        """Whether there is a grammar that does not apply yet."""
        self._vocabulary_size = model.vocabulary_size
        self._is_end = model.is_end
        self._counts: dict[int, int] = {}
        self._sampled = 0
        self._barred = model.end_tokens if sampling.ignores_end else ()
        self._barred_at_first = (
            (*model.end_tokens, *sampling.stop_tokens) if sampling.min_tokens else ()
        )
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._edits = _edits(sampling)
        self._grammar: Any = None
        self._possible: Any = None
        self._chain: Any = None
        if gbnf is not None:
            self._grammar = _parsed(gbnf, model, sampling.formatted_by)
            self._possible = llama_cpp.llama_sampler_init_min_p(_POSSIBLE, 1)
        self._chain = _chain(sampling)

    def sample(self, context: Any, row: int, candidates: Candidates) -> Sampled:
        """Return the next token after a row of the last decode call; raises ServingError."""
        wanted = self._sampling.logprobs
        logits = llama_cpp.llama_get_logits_ith(context, row)
        # What is no number spreads to all of them, and samplers take some token all the same.
        if math.isnan(logits[0]):
            raise InvalidOutput("what the model computed is not finite: its file may be broken")
        told: tuple[float, list[tuple[int, float]]] | None = None
        before = b""
        if wanted is not None:
            told = likeliest(candidates.filled(logits), wanted)
            if self._edits:
                before = ctypes.string_at(logits, _FLOAT.size * self._vocabulary_size)
        if self._edits:
            self._edit(logits)
        token = candidates.sampled(self._chain, context, row)
        if self._grammar is not None and not self.waits:
            began = time.monotonic()
            token = self._allowed(token, logits, candidates)
            if time.monotonic() - began > GRAMMAR_SECONDS:
                raise InvalidRequest(
                    "the grammar is too ambiguous: a token of it takes too long to check",
                    param=self._sampling.formatted_by,
                )
        self._note(token)
        if told is None:
            return Sampled(token)
        total, first = told
        logit = _FLOAT.unpack_from(before, _FLOAT.size * token)[0] if before else logits[token]
        return Sampled(token, logit - total, tuple((t, value - total) for t, value in first))

    def likelihood(self, context: Any, row: int, token: int, candidates: Candidates) -> Sampled:
        """Return how likely a known token was after a row of the last decode call."""
        logits = llama_cpp.llama_get_logits_ith(context, row)
        wanted = self._sampling.logprobs or 0
        total, first = likeliest(candidates.filled(logits), wanted)
        return Sampled(token, logits[token] - total, tuple((t, v - total) for t, v in first))

    def constrain(self, text: str) -> bool:
        """Let the grammar apply from here on, and tell whether it does.

        The text is what has been written already of what the grammar describes; a grammar that
        does not take it never applies.
        """
        self.waits = False
        tokens = self._tokenized(text, add_special=False) if text else []
        written = b"".join(self._piece(token, special=True) for token in tokens)
        if written == text.encode() and all(map(self._accepted, tokens)):
            return True
        llama_cpp.llama_sampler_free(self._grammar)
        self._grammar = None
        return False

    def _accepted(self, token: int) -> bool:
        """Let the grammar have a token if it takes it; for another one llama.cpp would abort."""
        takes = self._takes(token)
        if takes:
            llama_cpp.llama_sampler_accept(self._grammar, token)
        return takes

    def _takes(self, token: int) -> bool:
        """Tell whether the grammar would take a token."""
        alone = single(token)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(alone))
        return math.isfinite(alone.data[0].logit)

    def close(self) -> None:
        """Free the samplers; idempotent."""
        for sampler in (self._chain, self._grammar, self._possible):
            if sampler is not None:
                llama_cpp.llama_sampler_free(sampler)
        self._chain = self._grammar = self._possible = None

    def _edit(self, logits: Any) -> None:
        """Apply penalties and biases to the logits they are for."""
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            for token in self._seen:
                value = logits[token]
                by = sampling.repetition_penalty
                logits[token] = value / by if value > 0 else value * by
        if sampling.presence_penalty or sampling.frequency_penalty:
            for token, count in self._counts.items():
                taken = sampling.presence_penalty + count * sampling.frequency_penalty
                logits[token] = logits[token] - taken
        for token, bias in sampling.logit_bias:
            logits[token] = logits[token] + bias
        early = self._sampled < sampling.min_tokens
        for token in self._barred_at_first if early else self._barred:
            logits[token] = -math.inf

    def _allowed(self, token: int, logits: Any, candidates: Candidates) -> int:
        """Return the token if the grammar allows it, or another one that it does allow."""
        if not self._takes(token):
            every = candidates.filled(logits)
            llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(every))
            # What it forbids goes altogether: the logarithm of nothing would spoil `typical_p`.
            llama_cpp.llama_sampler_apply(self._possible, ctypes.byref(every))
            llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(every))
            chosen = every.data[max(0, every.selected)]
            if not math.isfinite(chosen.logit):
                raise InvalidRequest(
                    "no token of this model's vocabulary goes on with the grammar",
                    param=self._sampling.formatted_by,
                )
            token = int(chosen.id)
        if not self._is_end(token):
            llama_cpp.llama_sampler_accept(self._grammar, token)
        return token

    def _note(self, token: int) -> None:
        self._sampled += 1
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1:
            self._seen.add(token)


def effective_seed(seed: int | None) -> int:
    """Return a seed in llama.cpp's range: the wanted one, or a random one for None."""
    value = secrets.randbits(32) if seed is None else seed & _SEED_MASK
    return 0 if value == _RANDOM_SEED else value


def _chain(sampling: Sampling) -> Any:
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    add = llama_cpp.llama_sampler_chain_add
    if sampling.temperature <= 0:
        add(chain, llama_cpp.llama_sampler_init_greedy())
        return chain
    sorts = sampling.top_p < 1 or sampling.typical_p < 1
    top_k = sampling.top_k or (SORTED_AT_MOST if sorts else 0)
    if top_k > 0:
        add(chain, llama_cpp.llama_sampler_init_top_k(top_k))
    if sampling.typical_p < 1:
        add(chain, llama_cpp.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1:
        add(chain, llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        add(chain, llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    add(chain, llama_cpp.llama_sampler_init_temp(sampling.temperature))
    add(chain, llama_cpp.llama_sampler_init_dist(effective_seed(sampling.seed)))
    return chain


def _parsed(gbnf: str, model: Model, param: str) -> Any:
    """Return a grammar's sampler; raises InvalidRequest for one that llama.cpp cannot parse."""
    grammar = llama_cpp.llama_sampler_init_grammar(model.vocabulary, gbnf.encode(), b"root")
    if not grammar:
        raise InvalidRequest(
            "the grammar cannot be parsed; it must be GBNF with a rule named root, "
            "without left recursion",
            param=param,
        )
    return grammar


def _edits(sampling: Sampling) -> bool:
    return bool(
        sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.logit_bias
        or sampling.ignores_end
        or sampling.min_tokens
    )


def _check(sampling: Sampling, model: Model) -> None:
    """Raise InvalidRequest for options that would break the arithmetic or leave the vocabulary."""
    size = model.vocabulary_size
    biased = tuple(token for token, _ in sampling.logit_bias)
    for param, tokens in (("logit_bias", biased), ("stop_token_ids", sampling.stop_tokens)):
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidRequest(
                f"token {wrong} is not in the model's vocabulary of {size}", param=param
            )
    if not sampling.repetition_penalty > 0:
        raise InvalidRequest("repetition_penalty must be above 0", param="repetition_penalty")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= MAX_LOGPROBS:
        raise InvalidRequest(
            f"top_logprobs must be between 0 and {MAX_LOGPROBS}", param="top_logprobs"
        )
