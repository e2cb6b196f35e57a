"""What is known of a model in safetensors before vLLM is even imported."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.llama_folders import HEADS, HIDDEN, LAYERS, write_adapter, write_llama
from ullage_runtime.core.domain import Adapter, CacheType, EngineSpec
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.pooled import Ability
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.engines.registry import engine_of
from ullage_runtime.engines.vllm.files import find_files
from ullage_runtime.engines.vllm.header import tensor_bytes
from ullage_runtime.engines.vllm.needs import BLOCK, estimate
from ullage_runtime.engines.vllm.speller import Speller


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_llama(tmp_path / "llama")
    return tmp_path / "llama"


def settings(folder: Path, **changed: Any) -> None:
    """Change a model's settings; None takes one away."""
    path = folder / "config.json"
    found = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))


def refusal(folder: Path, **spec: Any) -> str:
    with pytest.raises(LoadError) as raised:
        estimate(EngineSpec(str(folder), **spec), on_gpu=False)
    assert raised.value.final
    return raised.value.message


def test_the_estimate_is_the_weights_and_the_cache_that_the_context_wants(folder: Path) -> None:
    weights = sum(tensor.stat().st_size for tensor in folder.glob("*.safetensors"))
    small = estimate(EngineSpec(str(folder), context_length=256), on_gpu=False)
    assert 0 <= weights - small.weights < 4096  # the header
    token = 2 * LAYERS * (HIDDEN // HEADS) * 4  # keys and values, one head of them, f32
    assert small.kv_cache == token * (256 + BLOCK)
    large = estimate(EngineSpec(str(folder)), on_gpu=False)
    assert large.kv_cache == token * (512 + BLOCK)
    shared = estimate(EngineSpec(str(folder), tensor_parallel=2), on_gpu=True)
    assert shared.kv_cache == large.kv_cache // 2
    settings(folder, torch_dtype="bfloat16")
    assert estimate(EngineSpec(str(folder)), on_gpu=False).kv_cache == large.kv_cache // 2


def test_a_precision_is_what_weights_and_cache_are_computed_in(folder: Path) -> None:
    stored = estimate(EngineSpec(str(folder)), on_gpu=False)
    half = estimate(EngineSpec(str(folder), precision=PrecisionType.F16), on_gpu=False)
    assert half.weights == pytest.approx(stored.weights / 2, abs=1)
    assert half.kv_cache == stored.kv_cache // 2
    assert find_files(str(folder), PrecisionType.F16).dtype == "float16"
    settings(folder, quantization_config={"quant_method": "awq"})
    half = estimate(EngineSpec(str(folder), precision=PrecisionType.F16), on_gpu=False)
    assert half.weights == stored.weights


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"precision": PrecisionType.INT8}, "int8 is for ONNX"),
        ({"purpose": Ability.EMBED}, "ullage convert"),
        ({"purpose": Ability.RERANK, "adapters": (Adapter("a", "/nowhere"),)}, "task Rerank rem"),
        ({"kv_cache_type": CacheType.Q8_0}, "kvCacheType"),
        ({"gpu_layers": 3}, "gpuLayers"),
        ({"tensor_parallel": 2}, "no GPU"),
        ({"context_length": 513}, "512 positions"),
        ({"adapters": (Adapter("tone", "/nowhere"),)}, "adapter_config.json"),
    ],
)
def test_settings_that_vllm_does_not_have_are_refused_by_name(
    folder: Path, spec: dict[str, Any], says: str
) -> None:
    assert says in refusal(folder, **spec)


def test_a_model_without_a_chat_template_cannot_be_asked_to_rank(folder: Path) -> None:
    assert estimate(EngineSpec(str(folder), purpose=Ability.RERANK), on_gpu=False).weights
    path = folder / "tokenizer_config.json"
    path.write_text("{}")
    assert "no chat template to be asked with" in refusal(folder, purpose=Ability.RERANK)


def test_an_adapter_has_no_scale_of_its_own(folder: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "tone")
    path = str(tmp_path / "tone")
    plain = EngineSpec(str(folder), adapters=(Adapter("tone", path),))
    assert (
        estimate(plain, on_gpu=False).weights
        > estimate(EngineSpec(str(folder)), on_gpu=False).weights
    )
    assert "scale" in refusal(folder, adapters=(Adapter("tone", path, 0.5),))


def test_files_that_are_no_model_say_what_is_wrong(folder: Path) -> None:
    settings(folder, auto_map={"AutoModel": "modeling.Evil"})
    assert "never run" in refusal(folder)
    settings(folder, auto_map=None, architectures=["BertModel"])
    assert "ullage convert" in refusal(folder)
    settings(folder, architectures=["LlamaForCausalLM"], hidden_size=None)
    assert "hidden_size" in refusal(folder)
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json cannot be read" in refusal(folder)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(folder)
    assert "name the folder" in refusal(folder / "model.safetensors")


def test_mutated_headers_are_refused_or_describe_their_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(1)  # noqa: S311 - the same mutants every time
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(length)] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            assert 0 <= tensor_bytes(path) <= len(data) * 20  # tensors may overlap
        except LoadError:
            refused += 1
    assert refused > 250


def test_tokens_have_their_own_bytes(folder: Path) -> None:
    speller = Speller(find_files(str(folder)), 512)
    for text in ("hello wörld", "日本\n"):
        tokens = speller.tokenized(text)
        assert b"".join(map(speller.piece, tokens)) == text.encode()
        assert speller.detokenized(tokens) == text
    (marker,) = speller.tokenized("<|im_start|>")
    assert speller.piece(marker) == b""
    assert speller.piece(marker, special=True) == b"<|im_start|>"
    assert (speller.bos, speller.eos) == (0, 1)


def test_an_image_without_vllm_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ullage_runtime.engines.registry.find_spec", lambda _name: None)
    with pytest.raises(LoadError, match="this image has no vLLM") as raised:
        engine_of(str(folder))
    assert raised.value.final
