"""Llamas of transformers, exported to GGUF by `ullage convert`, held against transformers."""

import json
import pathlib
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from typer.testing import CliRunner

from ullage_runtime.cli.commands import app
from ullage_runtime.core.domain import EngineSpec, GenerateRequest, Sampling
from ullage_runtime.engines.worker.engine import WorkerEngine

runner = CliRunner()
REPOSITORY = pathlib.Path(__file__).parents[2]
VOCABULARY = 700
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def byte_level(expression: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def pieces() -> Tokenizer:
    """Return a tokenizer like Llama 2's: words begin with a mark, what is unknown becomes bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer = trained(tokenizer, [])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def trained(tokenizer: Tokenizer, alphabet: list[str]) -> Tokenizer:
    files = sorted(str(path) for path in REPOSITORY.glob("docs/*.md"))
    bytes_ = [] if alphabet else [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL, *bytes_],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train(files, trainer)
    if bytes_:  # known by their names, but no text becomes them by itself
        described = json.loads(tokenizer.to_str())
        described["added_tokens"] = described["added_tokens"][: len(SPECIAL)]
        tokenizer = Tokenizer.from_str(json.dumps(described))
    return tokenizer


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY + 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, tuple[Any, Any]] = {
    "llama-2": (lambda: transformers.LlamaConfig(**SIZES), pieces),
    "llama-3": (
        lambda: transformers.LlamaConfig(
            **SIZES, rope_parameters=STRETCHED, tie_word_embeddings=True
        ),
        lambda: byte_level(LLAMA_3),
    ),
    "mistral": (lambda: transformers.MistralConfig(**SIZES, sliding_window=None), pieces),
    "qwen2": (lambda: transformers.Qwen2Config(**SIZES), lambda: byte_level(QWEN)),
    "qwen3": (lambda: transformers.Qwen3Config(**SIZES, head_dim=48), lambda: byte_level(QWEN)),
}


def saved(folder: pathlib.Path, kind: str) -> Any:
    config, tokenizer = KINDS[kind]
    torch.manual_seed(4)
    model = transformers.AutoModelForCausalLM.from_config(config())
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim > 1:
                values.mul_(4)  # else all tokens are nearly as likely
            elif name.endswith("bias"):
                values.normal_()
    model.eval().save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return model


def convert(source: pathlib.Path, target: pathlib.Path, precision: str) -> dict[str, Any]:
    result = runner.invoke(
        app, ["convert", str(source), str(target), "--precision", precision, "--json"]
    )
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)["comparison"]
    print(precision, told)  # noqa: T201 - the figures are part of what is shown
    return told


@pytest.mark.parametrize("kind", KINDS)
async def test_a_decoder_answers_as_transformers_does(tmp_path: pathlib.Path, kind: str) -> None:
    model = saved(tmp_path / "source", kind)
    told = convert(tmp_path / "source", tmp_path / "target.gguf", "f32")
    assert told["least_cosine"] > 0.999
    assert told["same_likeliest"] > 0.95
    assert told["perplexity"] == pytest.approx(told["source_perplexity"], rel=0.01)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "source")
    ids = tokenizer("The ullage of a tank").input_ids
    with torch.inference_mode():
        wanted = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], dim=0).max()
    engine = await WorkerEngine.start("LlamaCpp")
    try:
        loaded = await engine.load(EngineSpec(str(tmp_path / "target.gguf"), threads=1))
        sampling = Sampling(temperature=0, max_tokens=1, ignores_end=True, logprobs=1)
        request = GenerateRequest("r", prompt="The ullage of a tank", sampling=sampling)
        chunks = [chunk async for chunk in engine.generate(request)]
    finally:
        await engine.unload()
    assert loaded.has_chat_template
    assert loaded.vocabulary_size == VOCABULARY + 4
    (first,) = (each for chunk in chunks for each in chunk.logprobs)
    # Of two that are nearly as likely either may be chosen; how likely it is tells as much.
    assert first.chosen.logprob == pytest.approx(float(wanted), abs=0.05)


@pytest.mark.parametrize(("precision", "least"), [("f16", 0.999), ("q8_0", 0.999), ("q4_0", 0.95)])
def test_a_decoder_becomes_smaller_in_one_go(
    tmp_path: pathlib.Path, precision: str, least: float
) -> None:
    saved(tmp_path / "source", "llama-3")
    told = convert(tmp_path / "source", tmp_path / "target.gguf", precision)
    assert least < told["mean_cosine"] < 1


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"model_type": "gpt_neox"}, "is a 'gpt_neox'; to GGUF are converted: llama, mistral"),
        ({"sliding_window": 64, "model_type": "mistral"}, "looks back 64 tokens only"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: pathlib.Path, changed: dict[str, Any], why: str
) -> None:
    source = tmp_path / "source"
    saved(source, "mistral")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changed))
    result = runner.invoke(app, ["convert", str(source), str(tmp_path / "target.gguf")])
    assert result.exit_code == 1
    assert why in " ".join(result.stderr.split())
    assert not (tmp_path / "target.gguf").exists()
