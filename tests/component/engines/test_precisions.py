"""Builds of one ONNX model in several precisions: the one that is asked for, and what it takes."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.encoder_models import Encoder, embedded
from tests.support.gguf_models import write_model
from tests.support.onnx_models import write_builds, write_onnx
from ullage_runtime.core.domain import EngineSpec
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.pooled import DEFAULT_TEXTS, Ability, EmbedRequest
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.engines.onnx.header import read_header
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.worker.engine import WorkerEngine

ENCODER = Encoder(width=128, feed_forward=256)
TEXTS = ("the fox jumped.", "how un memory water?", "red blue fire " * 12)
BUILDS = {
    PrecisionType.F32: ("model.onnx", 0.99999),
    PrecisionType.F16: ("model_fp16.onnx", 0.999),
    PrecisionType.INT8: ("model_quantized.onnx", 0.99),
}


def spec_of(path: Path, precision: PrecisionType) -> EngineSpec:
    return EngineSpec(
        str(path), purpose=Ability.EMBED, threads=1, parallel=DEFAULT_TEXTS, precision=precision
    )


@pytest.mark.parametrize("precision", list(BUILDS))
async def test_every_build_embeds_the_same_texts_within_its_precision(
    tmp_path: Path, precision: PrecisionType
) -> None:
    name, least = BUILDS[precision]
    path = write_builds(tmp_path, ENCODER) / "onnx" / name
    assert read_header(path).precision is precision
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        await engine.load(spec_of(path, precision))
        answer = await engine.embed(EmbedRequest("r", TEXTS))
    finally:
        await engine.unload()
    for text, values in zip(TEXTS, answer.values, strict=True):
        assert np.frombuffer(values, dtype=np.float32) @ embedded(ENCODER, text) > least


@pytest.mark.parametrize("precision", list(BUILDS))
async def test_a_file_whose_weights_are_others_is_refused(
    tmp_path: Path, precision: PrecisionType
) -> None:
    other = next(each for each in BUILDS if each is not precision)
    build = write_builds(tmp_path, ENCODER) / "onnx" / BUILDS[precision][0]
    unnamed = build.rename(tmp_path / "onnx" / "any.onnx")
    engine = await WorkerEngine.start("ONNXRuntime")
    try:
        for attempt in (engine.estimate, engine.load):
            with pytest.raises(LoadError, match=f"asks for {other}; .*any.onnx are {precision}"):
                await attempt(spec_of(unnamed, other))
    finally:
        await engine.unload()


def test_weights_outside_count_and_fewer_bits_are_no_int8(tmp_path: Path) -> None:
    outside = write_onnx(tmp_path / "outside", ENCODER, external=True) / "model.onnx"
    assert read_header(outside).precision is PrecisionType.F32
    path = write_builds(tmp_path / "builds", ENCODER) / "onnx" / "model_quantized.onnx"
    model = onnx.load(str(path))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "bits":
                attribute.i = 4
    path.write_bytes(model.SerializeToString())
    assert read_header(path).precision is PrecisionType.AUTO


async def test_an_estimate_holds_for_every_build(tmp_path: Path) -> None:
    larger = replace(ENCODER, width=512, feed_forward=2048, heads=8, layers=6, context=512)
    folder = write_builds(tmp_path, larger) / "onnx"
    taken = {}
    for precision, (name, _) in BUILDS.items():
        engine = await WorkerEngine.start("ONNXRuntime")
        try:
            spec = spec_of(folder / name, precision)
            footprint = await engine.estimate(spec)
            await engine.load(spec)
            await engine.embed(EmbedRequest("r", ("red " * 510, *TEXTS)))
            taken[precision] = (await engine.stats()).resident_bytes
            assert 0.75 < taken[precision] / footprint.total < 1.1
        finally:
            await engine.unload()
    # A CPU keeps 16 bits and computes them in 32: smaller to fetch, and larger in memory.
    assert taken[PrecisionType.INT8] < taken[PrecisionType.F32] < taken[PrecisionType.F16]


async def test_a_gguf_file_has_no_builds(tmp_path: Path) -> None:
    path = await asyncio.to_thread(write_model, tmp_path / "tiny.gguf")
    engine = await WorkerEngine.start(engine_of(str(path)))
    try:
        spec = EngineSpec(str(path), precision=PrecisionType.INT8)
        for attempt in (engine.estimate, engine.load):
            with pytest.raises(LoadError, match="a GGUF file is what it was written in") as failed:
                await attempt(spec)
            assert failed.value.final
    finally:
        await engine.unload()
