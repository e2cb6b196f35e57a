"""vLLM under the governor: starts that fail, and room that is made across engines."""

import math
import pathlib
from typing import Any

import httpx
import pytest

from tests.support.encoder_models import Encoder
from tests.support.gguf_models import Shape, write_model
from tests.support.llama_folders import spoil, write_llama
from tests.support.onnx_models import write_onnx
from tests.support.runtimes import eventually, served
from tests.support.vllm_runtime import START, document, model, reported, serving
from tests.support.workers import workers
from ullage_api.conditions import Reason
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.model_status import Residency
from ullage_runtime.engines.procfs import proportional_set_size
from ullage_runtime.models.found import found_models

pytestmark = pytest.mark.timeout(4 * START)

COMPLETIONS = "/v1/completions"
SHAPE = Shape(width=256, layers=2, heads=4)
TOKEN_BYTES = 2 * SHAPE.layers * SHAPE.width * 2
"""Of keys and values in 16 bits."""


async def test_a_start_that_fails_is_told_with_its_last_words_while_others_serve(
    tmp_path: pathlib.Path,
) -> None:
    write_model(tmp_path / "good.gguf")
    for name in ("lacking", "nan"):
        write_llama(tmp_path / name)
    spoil(tmp_path / "lacking", "model.norm.weight", None)
    spoil(tmp_path / "nan", "model.norm.weight", math.nan)
    desired = document(
        tmp_path, model("good", "good.gguf"), model("lacking", "lacking"), model("nan", "nan")
    )
    async with served(tmp_path / "run", None) as (runtime, client):
        client.timeout = START
        await runtime.models.apply(desired)
        failures = {Reason.INVALID_MODEL, Reason.LOAD_FAILED}

        def settled() -> bool:
            found = [reported(runtime, name) for name in ("lacking", "nan")]
            return all(m.message and m.reason in failures for m in found)

        await eventually(settled, 2 * START)
        lacking, nan = reported(runtime, "lacking"), reported(runtime, "nan")
        assert lacking.reason is Reason.INVALID_MODEL
        assert "model.norm.weight" in (lacking.message or "")
        assert "not finite" in (nan.message or "")
        answer = await client.post(COMPLETIONS, json={"model": "good", "prompt": "x"})
        assert answer.status_code == 200
        refused = await client.post(COMPLETIONS, json={"model": "nan", "prompt": "x"})
        assert refused.status_code == 503


async def test_models_of_three_engines_make_room_for_each_other(tmp_path: pathlib.Path) -> None:
    write_llama(tmp_path / "llama")
    write_model(tmp_path / "tiny.gguf", SHAPE)
    write_onnx(tmp_path / "embed")
    write_onnx(tmp_path / "rank", Encoder(has_head=True))
    safetensors = model("llama", "llama")
    async with serving(tmp_path / "run", document(tmp_path, safetensors)) as (runtime, client):
        (device, *_) = runtime.models.report().devices
        active = reported(runtime, "llama").active
        assert active is not None
        assert active.estimated_bytes is not None
        percent = math.ceil(100 * active.estimated_bytes / device.total_bytes) + 1
        budget = device.total_bytes * percent // 100
        # Half of what both would need is not there.
        room = budget - active.estimated_bytes
        context = (room + (256 << 20)) // TOKEN_BYTES
        all_four = document(
            tmp_path,
            safetensors,
            model("tiny", "tiny.gguf", context_length=context),
            model("embed", "embed", Task.EMBEDDING, context_length=128),
            model("rank", "rank", Task.RERANK, context_length=128),
            sequence=2,
            memory_max_percent=percent,
        )
        await runtime.models.apply(all_four)
        for name, victim in (("tiny", "llama"), ("embed", None), ("rank", None), ("llama", "tiny")):
            await asked(client, name)
            if victim is not None:
                evicted = reported(runtime, victim).last_eviction
                assert evicted is not None
                assert evicted.beneficiary == name
            assert runtime.models.report().devices[0].ledger_bytes <= budget
            if victim == "llama":
                # vLLM maps no file, and its workers on CPUs do not sleep: it is here or it is not.
                assert reported(runtime, victim).residency is Residency.DISK
                assert reported(runtime, victim).host_bytes == 0
        listed = (await client.get("/memory/evictions")).json()["data"]
        assert {each["model"] for each in listed} >= {"llama", "tiny"}
        assert all(each["bytes"] > 0 and each["rule"] for each in listed)

        def agrees() -> bool:
            taken = sum(proportional_set_size(worker.pid) for worker in workers())
            told = runtime.models.report().devices[0]
            return taken == pytest.approx(told.ledger_bytes - told.warm_bytes, rel=0.1)

        await eventually(agrees, START)


async def asked(client: httpx.AsyncClient, name: str) -> None:
    """Ask a model for what it is there for, and fail unless it answers."""
    paths = {"embed": "/v1/embeddings", "rank": "/v1/rerank"}
    further: dict[str, dict[str, Any]] = {
        "embed": {"input": "the fox"},
        "rank": {"query": "the fox", "documents": ["water", "the fox"]},
    }
    body = further.get(name, {"prompt": "x", "max_tokens": 4})
    answer = await client.post(paths.get(name, COMPLETIONS), json={"model": name, **body})
    assert answer.status_code == 200, answer.text
    if name not in paths:
        assert answer.json()["usage"]["completion_tokens"] == 4


def test_a_folder_of_models_has_those_in_safetensors_where_vllm_is(tmp_path: pathlib.Path) -> None:
    write_llama(tmp_path / "models" / "llama")
    findings = found_models(tmp_path / "models", tmp_path / "cache")
    assert [(found.path.name, found.task) for found in findings.models] == [("llama", Task.CHAT)]
    assert findings.skipped == ()
