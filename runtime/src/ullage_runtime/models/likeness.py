"""Likeness: whether a new embedding model's vectors lie where those lie that it takes over from.

Whoever keeps vectors compares later ones with them. Another model's, even of equal length, lie
elsewhere: every search would be answered, and wrongly.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ullage_api.conditions import Reason
from ullage_api.wire.pool_desired import DesiredRevision
from ullage_runtime.core.domain import Loaded
from ullage_runtime.core.errors import LoadError, ServingError
from ullage_runtime.core.pooled import Ability, EmbedRequest, Role
from ullage_runtime.core.vectors import dot, normalized
from ullage_runtime.engines.base import Engine
from ullage_runtime.models.lease import after, instruction_for
from ullage_runtime.models.live import Live

ALIKE: Final = 0.99
"""Least cosine of two vectors of one text that count as the same."""
COMPARE_SECONDS: Final = 300.0
PROBES: Final = (
    "Hello",
    "The water tank on the roof holds two thousand litres.",
    "How do I return an item that I bought last week?",
    "def mean(values):\n    return sum(values) / len(values)",
    "Der Vertrag verlängert sich um ein Jahr, wenn er nicht gekündigt wird.",
    "La réunion est reportée à jeudi, dix heures.",
    "第二季度的收入增长了百分之十二。",
    "42.7 kPa at 293 K, batch 0091-B",
)

_ID: Final = "likeness"


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a new embedding model must be like."""

    revision: str
    """The one that it takes over from."""
    dimensions: int
    collections: tuple[str, ...] = ()
    """Those that embed with it; without any, only the vectors' length matters."""
    probes: tuple[str, ...] = ()
    """Texts, after the new one's own instructions."""
    vectors: tuple[bytes, ...] = ()
    """What the old one made of them, after its own instructions."""


async def likeness_to(
    old: Live, want: DesiredRevision, collections: Sequence[str]
) -> Likeness | None:
    """Return what a revision must be like to take over; None where nothing was embedded.

    Raises LoadError when what answers cannot be asked.
    """
    revision, dimensions = old.generation.revision, old.loaded.dimensions
    if Ability.EMBED not in old.loaded.abilities:
        return None
    if not collections:
        return Likeness(revision, dimensions)
    return Likeness(
        revision,
        dimensions,
        tuple(collections),
        probes=_probes(want),
        vectors=await _vectors(old.engine, _probes(old.want)),
    )


async def check_likeness(engine: Engine, loaded: Loaded, wanted: Likeness) -> None:
    """Raise LoadError when a loaded model is not like the one that it takes over from."""
    if Ability.EMBED not in loaded.abilities:
        if wanted.collections:
            raise _refused(wanted, "it embeds no texts")
        return
    if loaded.dimensions != wanted.dimensions:
        raise _refused(
            wanted,
            f"its vectors have {loaded.dimensions} dimensions, and those of revision "
            f"{wanted.revision} have {wanted.dimensions}",
        )
    vectors = await _vectors(engine, wanted.probes) if wanted.probes else ()
    pairs = zip(wanted.vectors, vectors, strict=True)
    cosines = [dot(normalized(old), normalized(new)) for old, new in pairs]
    if cosines and min(cosines) < ALIKE:
        raise _refused(
            wanted,
            f"its vectors are not those of revision {wanted.revision}: of {len(cosines)} texts the "
            f"least alike have a cosine of {min(cosines):.3f}, and {ALIKE} is required",
        )


def _probes(want: DesiredRevision) -> tuple[str, ...]:
    instructions = want.engine.instructions
    return tuple(
        str(after(text, instruction_for(instructions, role))) for role in Role for text in PROBES
    )


async def _vectors(engine: Engine, texts: tuple[str, ...]) -> tuple[bytes, ...]:
    try:
        async with asyncio.timeout(COMPARE_SECONDS):
            return (await engine.embed(EmbedRequest(_ID, texts, truncate=True))).values
    except (ServingError, TimeoutError) as error:
        raise LoadError(
            Reason.LOAD_FAILED,
            f"the two revisions' vectors cannot be compared: {error}",
            final=False,
        ) from error


def _refused(wanted: Likeness, why: str) -> LoadError:
    if not wanted.collections:
        mend = "suspend the model to replace it all the same"
        return LoadError(Reason.VALIDATION_FAILED, f"{why}; {mend}", final=True)
    names = ", ".join(repr(name) for name in wanted.collections)
    return LoadError(
        Reason.EMBEDDING_IN_USE,
        f"{why}; these collections embed with it: {names}. Serve the new model under another name",
        final=True,
    )
