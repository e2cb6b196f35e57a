"""What loads are estimated to take, held against what real workers then take."""

from pathlib import Path

import pytest

from bench.estimates import SLACK, Case, Found, measured
from bench.latency import GUIDE
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.gguf_models import Shape, write_model
from tests.support.other_models import write_windowed
from ullage_runtime.core.domain import CacheType
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability
from ullage_runtime.engines.llamacpp.estimate import cache_bytes
from ullage_runtime.engines.llamacpp.header import read_header
from ullage_runtime.engines.llamacpp.library import row_bytes
from ullage_runtime.engines.llamacpp.model import CACHE_TYPES


def words(found: Found) -> str:
    return f"{found.foreseen} foreseen, {found.actual} taken: {found.to_wire()}"


@pytest.mark.parametrize(
    "case",
    [
        Case(GUIDE, 512),
        Case(GUIDE, 2048, CacheType.Q8_0),
        Case(GUIDE, 2048, CacheType.Q4_0, parallel=32),
    ],
    ids=str,
)
async def test_an_estimate_holds_and_the_formula_agrees_with_the_engine(case: Case) -> None:
    found = await measured(case)
    assert found.holds, words(found)
    header = read_header(str(case.file), row_bytes)
    formula = cache_bytes(header, case.context, CACHE_TYPES[case.cache])
    assert found.estimate.kv_cache == pytest.approx(formula, abs=1 << 14), "logged in MiB"


async def test_a_large_model_is_foreseen_within_a_few_percent(tmp_path: Path) -> None:
    shape = Shape(width=512, layers=24, heads=8, feed_forward=1408, context=4096)
    found = await measured(Case(write_model(tmp_path / "large.gguf", shape), 4096))
    assert found.case.file.stat().st_size >= 300_000_000
    assert found.holds, words(found)


async def test_layers_with_a_sliding_window_are_foreseen_with_the_whole_context(
    tmp_path: Path,
) -> None:
    shape = Shape(width=512, heads=2, layers=4, context=8192)
    case = Case(write_windowed(tmp_path / "windowed.gguf", shape, window=64), 8192)
    found = await measured(case)
    # Half of the layers would keep next to nothing, which is more than what estimates may be off.
    keys_and_values = 2 * shape.layers * shape.width * 2 * case.context
    assert keys_and_values > 3 * SLACK
    assert found.estimate.kv_cache == pytest.approx(keys_and_values, abs=1 << 15), "logged in MiB"
    header = read_header(str(case.file), row_bytes)
    assert cache_bytes(header, case.context, CACHE_TYPES[case.cache]) == keys_and_values
    assert found.holds, words(found)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
async def test_what_embeds_is_foreseen_too(tmp_path: Path, kind: str) -> None:
    if kind == "encoder":
        encoder = Encoder(width=384, layers=6, heads=12, feed_forward=1536, context=512)
        file = write_encoder(tmp_path / "m.gguf", encoder)
    else:
        shape = Shape(width=256, layers=4, context=512, extra_tokens=30_000)
        file = write_model(tmp_path / "m.gguf", shape)
    case = Case(file, 512, parallel=DEFAULT_TEXTS, purpose=Ability.EMBED)
    found = await measured(case)
    assert found.holds, words(found)
