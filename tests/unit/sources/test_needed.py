"""Which files a model needs, by their names."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.needed import MAX_FILES, Needed, needed, needs_others
from ullage_runtime.models.sources.trees import Tree, TreeFile

SENTENCE_TRANSFORMERS = [
    ".gitattributes",
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "model.safetensors",
    "modules.json",
    "onnx/model.onnx",
    "onnx/model_O4.onnx",
    "onnx/model_qint8_avx512.onnx",
    "openvino/openvino_model.bin",
    "pytorch_model.bin",
    "rust_model.ot",
    "tokenizer.json",
    "vocab.txt",
]
SPLIT = [f"q8/big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("names", "path", "files", "main"),
    [
        (["a.gguf", "b.gguf"], "a.gguf", ["a.gguf"], "a.gguf"),
        (["README.md", "a.gguf"], None, ["a.gguf"], "a.gguf"),
        (SPLIT, SPLIT[0], SPLIT, SPLIT[0]),
        (SPLIT, SPLIT[2], SPLIT, SPLIT[0]),
        ([*SPLIT, "README.md"], None, SPLIT, SPLIT[0]),
        (
            SENTENCE_TRANSFORMERS,
            None,
            [
                "1_Pooling/config.json",
                "config.json",
                "model.safetensors",
                "modules.json",
                "tokenizer.json",
                "vocab.txt",
            ],
            None,
        ),
        (
            SENTENCE_TRANSFORMERS,
            "onnx/model_O4.onnx",
            [
                "1_Pooling/config.json",
                "config.json",
                "modules.json",
                "onnx/model_O4.onnx",
                "tokenizer.json",
                "vocab.txt",
            ],
            "onnx/model_O4.onnx",
        ),
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx", "tokenizer.json"],
            None,
            ["onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"],
            None,
        ),
        (["model.onnx"], None, ["model.onnx"], None),
        (
            ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json", "config.json"],
            None,
            ["a-1.safetensors", "a-2.safetensors", "a.safetensors.index.json", "config.json"],
            None,
        ),
    ],
)
def test_a_model_needs_these_and_no_others(
    names: list[str], path: str | None, files: list[str], main: str | None
) -> None:
    assert needed(names, path, "it") == Needed(tuple(files), main)


@pytest.mark.parametrize(
    ("names", "path", "words"),
    [
        ([], None, "it holds no model"),
        (["README.md"], None, "there are README.md"),
        (["a.gguf", "b.gguf"], None, "name one of them: a.gguf, b.gguf"),
        (["x/a.onnx", "x/b.onnx"], None, "name one of them"),
        (["a.gguf"], "b.gguf", "there is no file b.gguf; there are a.gguf"),
        (SPLIT[:2], SPLIT[0], "2 of 3 parts"),
        (["pytorch_model.bin", "config.json"], None, "holds no model"),
        (["../a.gguf"], None, "no folder may have"),
        (["/a.gguf"], None, "no folder may have"),
        (["a//b.gguf"], None, "no folder may have"),
        (["a\\b.gguf"], None, "no folder may have"),
        ([f"{n}.txt" for n in range(MAX_FILES + 1)], None, f"{MAX_FILES} are the most"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(
    names: list[str], path: str | None, words: str
) -> None:
    with pytest.raises(LoadError) as caught:
        needed(names, path, "it")
    assert words in caught.value.message


XENOVA = [
    "config.json",
    *(
        f"onnx/model{ending}.onnx"
        for ending in ("", "_bnb4", "_fp16", "_int8", "_q4", "_q4f16", "_quantized", "_uint8")
    ),
    "tokenizer.json",
]
"""A repository as transformers.js has them."""
ARCHES = [
    *SENTENCE_TRANSFORMERS,
    "onnx/model_O1.onnx",
    "onnx/model_qint8_arm64.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_quint8_avx2.onnx",
]
"""A repository as sentence-transformers has them."""


@pytest.mark.parametrize(
    ("names", "precision", "main"),
    [
        (XENOVA, "f32", "onnx/model.onnx"),
        (XENOVA, "f16", "onnx/model_fp16.onnx"),
        (XENOVA, "int8", "onnx/model_int8.onnx"),
        ([n for n in XENOVA if "int8" not in n], "int8", "onnx/model_quantized.onnx"),
        (ARCHES, "f32", "onnx/model.onnx"),
        (ARCHES, "f16", "onnx/model_O4.onnx"),
        (ARCHES, "int8", "onnx/model_qint8_arm64.onnx"),
        (["model.onnx", "int8/model.onnx", "fp16/model.onnx"], "int8", "int8/model.onnx"),
        (["model.onnx", "x/int8/tokens.onnx", "model-f16.onnx"], "f16", "model-f16.onnx"),
        (["model_quantized.onnx", "decoder_model_quantized.onnx"], "int8", "model_quantized.onnx"),
        (["encoder.onnx"], "int8", "encoder.onnx"),
    ],
)
def test_a_precision_is_the_build_whose_name_says_it(
    names: list[str], precision: str, main: str
) -> None:
    chosen = needed(names, None, "it", PrecisionType(precision))
    assert chosen.main == main
    assert [n for n in chosen.files if n.endswith(".onnx")] == [main]
    assert "model.safetensors" not in chosen.files
    assert needed(chosen.files, None, "it", PrecisionType(precision)) == chosen


@pytest.mark.parametrize(
    ("names", "path", "precision", "words"),
    [
        (["model.onnx", "model_fp16.onnx"], None, "int8", "there are f32 (model.onnx), f16 (mod"),
        (["model_q4.onnx"], None, "int8", "it has no int8 build, which engine.precision asks for"),
        (["model_q4.onnx"], None, "int8", "there are others (model_q4.onnx)"),
        (["model_int8.onnx"], None, "f32", "there are int8 (model_int8.onnx)"),
        (["a_int8.onnx", "b_int8.onnx"], None, "int8", "it holds several models in int8"),
        (["model_fp16.onnx"], "model_fp16.onnx", "int8", "it names a build in f16"),
        (["model_q4.onnx"], "model_q4.onnx", "int8", "it names a build in another precision"),
    ],
)
def test_a_build_that_is_not_there_is_refused_with_those_that_are(
    names: list[str], path: str | None, precision: str, words: str
) -> None:
    with pytest.raises(LoadError) as caught:
        needed(names, path, "it", PrecisionType(precision))
    assert words in caught.value.message


def test_a_precision_changes_nothing_where_there_is_no_onnx() -> None:
    for names in (SPLIT, ["a.gguf"], ["config.json", "model.safetensors"]):
        assert needed(names, None, "it", PrecisionType.F16) == needed(names, None, "it")


NAMES = st.lists(
    st.sampled_from([*SENTENCE_TRANSFORMERS, *SPLIT, "model.onnx", "a.gguf", "x/b.safetensors"]),
    unique=True,
)


@given(NAMES)
def test_what_was_chosen_is_chosen_again_from_itself(names: list[str]) -> None:
    """A tree in the cache holds only what was chosen, and its main file is found again."""
    try:
        chosen = needed(names, None, "it")
    except LoadError:
        return
    assert needed(chosen.files, None, "it") == chosen


@given(NAMES, st.randoms(use_true_random=False))
def test_the_order_of_names_does_not_matter(names: list[str], chance: random.Random) -> None:
    other = chance.sample(names, len(names))
    for path in (None, *names[:1]):
        assert outcome(other, path) == outcome(names, path)


def outcome(names: list[str], path: str | None) -> Needed | str:
    try:
        return needed(names, path, "it")
    except LoadError as error:
        return error.message


def test_only_onnx_and_split_files_need_others() -> None:
    assert needs_others("a/model.onnx")
    assert needs_others(SPLIT[0])
    assert not needs_others("a.gguf")


def test_a_trees_digest_is_that_of_the_list_that_sha256sum_prints() -> None:
    # printf '%s  a.json\n%s  b/c.onnx\n' <64 zeros> <64 ones> | sha256sum
    tree = Tree.of([TreeFile("b/c.onnx", "1" * 64, 2), TreeFile("a.json", "0" * 64, 1)])
    assert [file.name for file in tree.files] == ["a.json", "b/c.onnx"]
    assert tree.size == 3
    assert tree.sha256 == "5561fb6054eb1e75f67d4f63bd7f6df3b94eff98358be8d34b53b684e7b92612"


def test_an_adapter_in_a_folder_is_its_tensors_and_its_settings() -> None:
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    found = needed(names, None, "it")
    assert found == Needed(("adapter_config.json", "adapter_model.safetensors"), None)
