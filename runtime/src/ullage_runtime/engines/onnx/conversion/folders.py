"""What there is to convert: a folder of transformers' weights, or of an ONNX model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ullage_runtime.core.pooled import Output
from ullage_runtime.engines.conversion import ConversionError

FAMILIES: Final = frozenset(
    {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
)
"""Encoders that take tokens, a mask and types of tokens, and nothing else."""
COMPANIONS: Final = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "1_Pooling/config.json",
)
"""What is taken over as it is, where it is there."""

HEADS: Final[Mapping[Output, str]] = {
    Output.SPARSE: "sparse_linear.pt",
    Output.COLBERT: "colbert_linear.pt",
}
"""Files of BGE-M3's further heads, each a linear layer on top of the encoder."""

_CLASSIFIER: Final = "ForSequenceClassification"


class Kind(StrEnum):
    """What a source is."""

    TRANSFORMER = "transformer"
    ONNX = "onnx"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be converted."""

    kind: Kind
    folder: Path
    config: Mapping[str, Any]

    @property
    def is_ranker(self) -> bool:
        """Whether it scores pairs; otherwise it embeds."""
        return any(str(name).endswith(_CLASSIFIER) for name in self._architectures)

    @property
    def has_safetensors(self) -> bool:
        """Whether its weights can be read without unpickling anything."""
        return any(self.folder.glob("*.safetensors"))

    @property
    def heads(self) -> Mapping[Output, Path]:
        """Files of the heads that it has beside its one vector."""
        files = {output: self.folder / name for output, name in HEADS.items()}
        return {output: file for output, file in files.items() if file.is_file()}

    @property
    def has_types(self) -> bool:
        """Whether it tells a pair's texts apart by the types of their tokens."""
        count = self.config.get("type_vocab_size", 0)
        return isinstance(count, int) and count > 1

    @property
    def _architectures(self) -> list[Any]:
        found = self.config.get("architectures")
        return found if isinstance(found, list) else []


def source_of(path: Path) -> Source:
    """Return what a path names; raises ConversionError for what is not converted, and why."""
    if path.suffix == ".gguf":
        raise ConversionError(
            f"{path.name} is GGUF, whose rounded weights no ONNX file can hold without loss; "
            "convert the model's original, in safetensors"
        )
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise ConversionError(f"there is no folder {path}")
    config = _config(folder)
    if path.suffix == ".onnx" or any(folder.glob("*.onnx")):
        return Source(Kind.ONNX, folder, config)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ConversionError(
            f"{folder} holds no weights: neither .safetensors, nor pytorch_model.bin, nor .onnx"
        )
    family = str(config.get("model_type", "unknown"))
    if family not in FAMILIES:
        raise ConversionError(
            f"{folder} is a {family[:64]!r}; encoders are converted: {', '.join(sorted(FAMILIES))}"
        )
    return Source(Kind.TRANSFORMER, folder, config)


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConversionError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConversionError(f"{folder / 'config.json'} is no object")
    return found
