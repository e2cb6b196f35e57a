"""Whether each token of a tiny model's answer is what its own prefix gives, scored alone."""

from dataclasses import replace

from tests.support.gguf_models import BOS, FIRST_BYTE
from tests.support.workers import chunks_of, completion
from ullage_runtime.core.domain import Chunk
from ullage_runtime.engines.worker.engine import WorkerEngine

TOLERANCE = 0.05
"""How far, in log probability, a greedy token may be below the likeliest when scored alone.

Kernels for several rows add in another order than those for one; a near tie can fall either way.
"""


def ids_of(text: str) -> tuple[int, ...]:
    """Return a prompt's tokens; this kind of tokenizer writes a space as a character of its own."""
    return (
        BOS,
        *(FIRST_BYTE + byte for byte in text.replace(" ", "\N{LOWER ONE EIGHTH BLOCK}").encode()),
    )


def written(chunks: list[Chunk]) -> list[int]:
    """Return the tokens of an answer that tells its log probabilities."""
    return [FIRST_BYTE + told.chosen.text[0] for c in chunks for told in c.logprobs]


async def behind_the_likeliest(
    engine: WorkerEngine, prompt: tuple[int, ...], token: int, adapter: str = ""
) -> float:
    """Return how far a token is from the likeliest one when its own prefix is scored alone."""
    asked = completion(prompt, max_tokens=1, logprobs=20)
    alone = replace(asked, tenant=str(hash(prompt)), adapter=adapter)
    told = (await chunks_of(engine, alone))[-1].logprobs[0]
    by_token = {likely.text[0]: likely.logprob for likely in told.likeliest}
    return told.likeliest[0].logprob - by_token.get(token - FIRST_BYTE, float("-inf"))


async def check_alone(
    engine: WorkerEngine,
    prompt: tuple[int, ...],
    answer: list[int],
    every: int = 4,
    adapter: str = "",
) -> None:
    for at in range(0, len(answer), every):
        before = (*prompt, *answer[:at])
        assert await behind_the_likeliest(engine, before, answer[at], adapter) <= TOLERANCE
