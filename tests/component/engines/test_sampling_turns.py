"""Samplers of many answers, which take turns with one row's memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_models import FIRST_BYTE, write_model
from ullage_runtime.core.domain import EngineSpec, Sampling
from ullage_runtime.core.scheduling.port import Decoded, Run
from ullage_runtime.engines.llamacpp.candidates import Candidates
from ullage_runtime.engines.llamacpp.context import LlamaContext
from ullage_runtime.engines.llamacpp.library import Library
from ullage_runtime.engines.llamacpp.model import Model
from ullage_runtime.engines.llamacpp.sampling import Sampler

WAYS = (
    Sampling(temperature=0),
    Sampling(temperature=2, seed=1),
    Sampling(temperature=2, seed=2),
    Sampling(temperature=2, seed=2, top_p=0.7, top_k=9),
)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    """A tiny model, with a row of logits in its context."""
    file = write_model(tmp_path / "tiny.gguf")
    library = Library(lambda *_: None)
    model = Model(library, EngineSpec(path=str(file), context_length=64, threads=1, gpu_layers=0))
    context = LlamaContext(model)
    run = Run(slot=0, position=0, tokens=[FIRST_BYTE + ord("H")], wants_logits=True)
    assert context.decode([run]) is Decoded.DONE
    yield model
    context.close()
    model.close()


def test_who_samples_between_its_turns_is_nothing_to_a_sampler(model: Model) -> None:
    def samplers() -> list[Sampler]:
        return [Sampler(way, model, [FIRST_BYTE]) for way in WAYS]

    candidates = Candidates(model.vocabulary_size)
    alone, among = samplers(), samplers()
    one_by_one = [
        [each.sample(model.context, 0, candidates).token for _ in range(30)] for each in alone
    ]
    in_turns: list[list[int]] = [[] for _ in WAYS]
    for _ in range(30):
        for tokens, each in zip(in_turns, among, strict=True):
            tokens.append(each.sample(model.context, 0, candidates).token)
    assert in_turns == one_by_one
    assert len({tuple(tokens) for tokens in in_turns}) == len(WAYS), "and each has its own way"
    for each in alone + among:
        each.close()
    candidates.close()
