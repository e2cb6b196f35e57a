"""MiniLM, converted by us, beside the original: a real model and real texts."""

import pathlib

import numpy as np
import pytest
import torch
import transformers

from tests.conversion.conftest import Converted
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability, EmbedRequest
from ullage_runtime.engines.worker.engine import WorkerEngine

pytestmark = pytest.mark.timeout(900)  # PyTorch, a thousand times

REPOSITORY = pathlib.Path(__file__).parents[2]
TEXTS = 1000
LONGEST = 256


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Return lines of our own documentation, the same each time."""
    files = sorted([*REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("*/adr/*.md")])
    lines = (line.strip() for file in files for line in file.read_text().splitlines())
    return list(dict.fromkeys(line for line in lines if 10 < len(line) < 1500))[:TEXTS]


@pytest.fixture(scope="module")
def wanted(minilm: pathlib.Path, texts: list[str]) -> np.ndarray:
    """Return what sentence-transformers makes of them: the mean of the tokens, of length 1."""
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    rows = []
    for text in texts:
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=LONGEST)
        with torch.inference_mode():
            mean = model(**given).last_hidden_state[0].mean(dim=0)
        rows.append(torch.nn.functional.normalize(mean, dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.999), ("int8", 0.99)])
async def test_a_thousand_texts_have_the_vectors_of_the_original(
    converted: Converted,
    texts: list[str],
    wanted: np.ndarray,
    precision: str,
    least: float,
) -> None:
    conversion = converted(precision)
    assert conversion.report["comparison"]["least_cosine"] > least
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        spec = EngineSpec(str(conversion.folder), purpose=Ability.EMBED, parallel=DEFAULT_TEXTS)
        loaded = await engine.load(spec)
        answer = await engine.embed(EmbedRequest("r", tuple(texts), truncate=True))
    finally:
        await engine.unload()
    assert (len(texts), loaded.context_length, loaded.dimensions) == (TEXTS, LONGEST, 384)
    found = np.stack([np.frombuffer(values, dtype=np.float32) for values in answer.values])
    assert (found * wanted).sum(axis=1).min() > least
