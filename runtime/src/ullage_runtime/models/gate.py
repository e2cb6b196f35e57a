"""The gate: what a loaded model must do before it may answer anybody."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.rollout import Expectation, ValidationPrompt
from ullage_runtime.core.domain import Chunk, GenerateRequest, Loaded, Message, Sampling
from ullage_runtime.core.errors import EngineFailed, InvalidTemplate, LoadError, ServingError
from ullage_runtime.core.pooled import Ability, EmbedRequest, RerankRequest
from ullage_runtime.core.vectors import dimensions
from ullage_runtime.engines.base import Engine
from ullage_runtime.models.likeness import Likeness, check_likeness

GATE_SECONDS: Final = 300.0
ANSWER_TOKENS: Final = 64
"""Longest answer to a prompt of the spec's validation."""
SHOWN: Final = 200
"""How many characters of an answer a message shows."""

_ID: Final = "gate"
_TEXT: Final = "Hello"
_VERBS: Final = {Ability.GENERATE: "generate", Ability.EMBED: "embed", Ability.RERANK: "rank"}


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model must show besides that it works at all."""

    task: Task = Task.COMPLETION
    validation: tuple[ValidationPrompt, ...] = ()
    replaces: bool = False
    """Whether something answers that it is to replace, and that it must not do worse than."""
    likeness: Likeness | None = None
    """What its vectors must be like, if there were any before."""


async def pass_gate(
    engine: Engine, loaded: Loaded, adapters: Sequence[str] = (), trial: Trial | None = None
) -> None:
    """Have the engine do once whatever it is able to do, then what the spec asks of it.

    Raises LoadError when it cannot.
    """
    trial = trial or Trial()
    for ability in loaded.abilities:
        for adapter in ("", *adapters):
            await _pass(engine, loaded, ability, adapter)
    if trial.likeness is not None:
        await check_likeness(engine, loaded, trial.likeness)
    if trial.replaces and trial.task is Task.CHAT and loaded.has_chat_template:
        await _render(engine)
    for number, prompt in enumerate(trial.validation):
        await _validate(engine, loaded, trial.task, number, prompt)


async def _pass(engine: Engine, loaded: Loaded, ability: Ability, adapter: str) -> None:
    verb = _VERBS[ability]
    what = f"the model with adapter {adapter!r}" if adapter else "the model"
    try:
        async with asyncio.timeout(GATE_SECONDS):
            problem = await _problem(engine, loaded, ability, adapter)
    except TimeoutError as error:
        raise LoadError(
            Reason.LOAD_FAILED,
            f"{what} loaded but did not {verb} within {GATE_SECONDS:.0f} s",
            final=False,
        ) from error
    except ServingError as error:
        passing = isinstance(error, EngineFailed)
        raise LoadError(
            Reason.LOAD_FAILED,
            f"{what} loaded but cannot {verb}: {error.message}",
            final=not passing,
        ) from error
    if problem is not None:
        raise LoadError(Reason.LOAD_FAILED, f"{what} loaded but {problem}", final=False)


async def _problem(engine: Engine, loaded: Loaded, ability: Ability, adapter: str) -> str | None:
    """Return what is wrong with what the engine did; it has seen to finite numbers itself."""
    match ability:
        case Ability.GENERATE:
            sampling = Sampling(temperature=0, max_tokens=1)
            asked = GenerateRequest(_ID, prompt=_TEXT, sampling=sampling, adapter=adapter)
            finished, _ = await _generated(engine, asked)
            return None if finished else "generated nothing"
        case Ability.EMBED:
            embedded = await engine.embed(EmbedRequest(_ID, (_TEXT,), outputs=loaded.outputs))
            found = [dimensions(vector) for vector in embedded.values]
            return None if found == [loaded.dimensions] else f"gave vectors of {found} dimensions"
        case Ability.RERANK:
            ranked = await engine.rerank(RerankRequest(_ID, _TEXT, (_TEXT,)))
            found = [dimensions(score) for score in ranked.values]
            return None if found == [1] else f"gave {found} scores for a document"


async def _render(engine: Engine) -> None:
    """Have a chat rendered by the model's own template."""
    asked = GenerateRequest(
        _ID,
        messages=(Message("user", _TEXT),),
        sampling=Sampling(temperature=0, max_tokens=1),
    )
    try:
        async with asyncio.timeout(GATE_SECONDS):
            await _generated(engine, asked)
    except InvalidTemplate as error:
        raise LoadError(
            Reason.INVALID_MODEL,
            f"the model loaded but its chat template is broken: {error.message}",
            final=True,
        ) from error
    except (ServingError, TimeoutError) as error:
        raise LoadError(
            Reason.LOAD_FAILED, f"the model loaded but cannot answer a chat: {error}", final=False
        ) from error


async def _validate(
    engine: Engine, loaded: Loaded, task: Task, number: int, prompt: ValidationPrompt
) -> None:
    """Ask one question of the spec; raises LoadError with what came and what should have."""
    where = f"rollout.validation[{number}], {_quoted(prompt.prompt)},"
    seconds = prompt.max_seconds or GATE_SECONDS
    try:
        async with asyncio.timeout(seconds):
            text = await _said(engine, loaded, task, prompt.prompt)
    except TimeoutError as error:
        raise _invalid(f"{where} was not answered within {seconds:.0f} s") from error
    except ServingError as error:
        if isinstance(error, EngineFailed):
            raise LoadError(
                Reason.LOAD_FAILED, f"{where} ended the engine: {error.message}", final=False
            ) from error
        raise _invalid(f"{where} cannot be answered: {error.message}") from error
    if prompt.expect is not None and (wanted := _missed(prompt.expect, text)):
        raise _invalid(f"{where} was answered {_quoted(text)}; expected was {wanted}")


async def _said(engine: Engine, loaded: Loaded, task: Task, prompt: str) -> str:
    if Ability.EMBED in loaded.abilities:
        await engine.embed(EmbedRequest(_ID, (prompt,)))
        return ""
    if Ability.RERANK in loaded.abilities:
        await engine.rerank(RerankRequest(_ID, prompt, (prompt,)))
        return ""
    sampling = Sampling(temperature=0, max_tokens=ANSWER_TOKENS)
    asked = GenerateRequest(_ID, prompt=prompt, sampling=sampling)
    if task is Task.CHAT:
        asked = GenerateRequest(_ID, messages=(Message("user", prompt),), sampling=sampling)
    _, text = await _generated(engine, asked)
    return text


def _missed(expect: Expectation, text: str) -> str | None:
    """Return what an answer should have been like, or None if it is."""
    if expect.contains is not None and expect.contains not in text:
        return f"one that contains {_quoted(expect.contains)}"
    if expect.equals is not None and expect.equals.strip() != text.strip():
        return f"{_quoted(expect.equals)}"
    return None


def _invalid(message: str) -> LoadError:
    return LoadError(Reason.VALIDATION_FAILED, message, final=True)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


async def _generated(engine: Engine, request: GenerateRequest) -> tuple[bool, str]:
    """Return whether a generation came to its end, and its text."""
    stream = cast("AsyncGenerator[Chunk, None]", engine.generate(request))
    finished, parts = False, []
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            finished = chunk.finish is not None
            parts.append(chunk.text)
    return finished, "".join(parts)
