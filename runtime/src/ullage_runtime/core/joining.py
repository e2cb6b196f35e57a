"""A generation's chunks as one."""

from collections.abc import Iterable

from ullage_runtime.core.domain import CallDelta, Chunk, FinishReason, TokenLogprobs, Usage


def joined(chunks: Iterable[Chunk]) -> Chunk:
    """Return all that some chunks of one generation told, as the one chunk that tells the same."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: dict[int, CallDelta] = {}
    logprobs: list[TokenLogprobs] = []
    usage: Usage | None = None
    finish: FinishReason | None = None
    for chunk in chunks:
        texts.append(chunk.text)
        thoughts.append(chunk.reasoning)
        for delta in chunk.calls:
            begun = calls.get(delta.index, CallDelta(delta.index))
            calls[delta.index] = CallDelta(
                delta.index, begun.name or delta.name, begun.arguments + delta.arguments
            )
        logprobs += chunk.logprobs
        usage = chunk.usage or usage
        finish = chunk.finish or finish
    return Chunk(
        text="".join(texts),
        usage=usage,
        finish=finish,
        logprobs=tuple(logprobs),
        reasoning="".join(thoughts),
        calls=tuple(calls.values()),
    )
