"""The files of a model in safetensors, and what those beside the weights say of it.

They are the hub's: `config.json` of transformers, `tokenizer.json`, and the chat template, which is
in `tokenizer_config.json` or a file of its own. Nothing that could hold code is read: a pickle
beside the weights stays closed, and a model whose classes lie beside it is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ullage_runtime.core.domain import Adapter
from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.precision import PrecisionType

MAX_JSON_BYTES: Final = 4 << 20
"""Longest file of settings: lists of added tokens are among them, the vocabulary is not."""
MAX_TEMPLATE_BYTES: Final = 1 << 20

WIDTHS: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number, by what PyTorch calls its form."""
_ASKED: Final = {PrecisionType.F32: "float32", PrecisionType.F16: "float16"}
_PLAUSIBLE: Final = 1 << 30
_ENCODERS: Final = ("ForSequenceClassification", "ForMaskedLM", "BertModel", "RobertaModel")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files are, and its settings."""

    folder: Path
    weights: tuple[Path, ...]
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    precision: PrecisionType = PrecisionType.AUTO
    """What the model is to be computed in."""

    @property
    def tokenizer(self) -> Path:
        """The vocabulary."""
        return self.folder / "tokenizer.json"

    @property
    def architecture(self) -> str:
        """The model's class in transformers, such as `LlamaForCausalLM`."""
        names = self.config.get("architectures")
        return str(names[0])[:64] if isinstance(names, list) and names else "unknown"

    @property
    def text(self) -> Mapping[str, Any]:
        """Settings of the language model; those that see as well have them apart."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config

    @property
    def dtype(self) -> str:
        """Form in which weights and keys and values are kept: what is asked for, or the files'."""
        return _ASKED.get(self.precision) or self.stored_dtype

    @property
    def stored_dtype(self) -> str:
        """Form in which the files have the weights."""
        for settings in (self.text, self.config):
            for name in ("dtype", "torch_dtype"):
                if settings.get(name) in WIDTHS:
                    return str(settings[name])
        return "bfloat16"

    @property
    def is_quantised(self) -> bool:
        """Whether the weights are in a form of their own, whatever is computed with them."""
        return "quantization_config" in self.config

    @property
    def positions(self) -> int:
        """Tokens that the model was trained for, or 0 if nobody says."""
        return self.number("max_position_embeddings")

    @property
    def chat_template(self) -> str | None:
        """Source of its chat template."""
        path = self.folder / "chat_template.jinja"
        if path.is_file() and path.stat().st_size <= MAX_TEMPLATE_BYTES:
            return path.read_text(encoding="utf-8", errors="replace")
        found = self.tokenizer_config.get("chat_template")
        if isinstance(found, list):  # several, by name
            named = {each.get("name"): each.get("template") for each in found if _is_object(each)}
            found = named.get("default")
        return found if isinstance(found, str) and found else None

    def number(self, *names: str) -> int:
        """Return the first of these settings that is a plausible count, or 0."""
        for name in names:
            value = self.text.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _PLAUSIBLE:
                return value
        return 0

    def special(self, name: str) -> str | None:
        """Return the text of a special token, such as `bos_token`, if the model has it."""
        value = self.tokenizer_config.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) and value else None


def find_files(path: str, precision: PrecisionType = PrecisionType.AUTO) -> ModelFiles:
    """Return the files of the model in a folder; raises LoadError(InvalidModel)."""
    folder = Path(path)
    if not folder.is_dir():
        raise invalid_model(
            f"{folder.name} is the weights alone; name the folder, which has config.json and "
            "tokenizer.json as well"
        )
    weights = tuple(sorted(p for p in folder.glob("*.safetensors") if _is_model(p)))
    if not weights:
        raise invalid_model(f"{folder.name} holds no .safetensors file beside its config.json")
    for name, what in (("config.json", "settings"), ("tokenizer.json", "vocabulary")):
        if not (folder / name).is_file():
            raise invalid_model(
                f"there is no {name}, the model's {what}, beside {weights[0].name}; transformers "
                "writes it with save_pretrained(…) of the model and of AutoTokenizer"
            )
    config = _object(folder / "config.json")
    if "auto_map" in config:
        raise invalid_model(
            "config.json asks for Python code that lies beside the weights (auto_map), which is "
            "never run here; take a model whose architecture vLLM knows, and remove auto_map"
        )
    settings = folder / "tokenizer_config.json"
    told = _object(settings) if settings.is_file() else {}
    return ModelFiles(folder, weights, config, told, precision)


def check_generates(files: ModelFiles) -> None:
    """Raise LoadError for an encoder, which no task of this engine is for."""
    if files.architecture.endswith(_ENCODERS):
        raise invalid_model(
            f"{files.architecture} embeds or ranks texts and generates none; `ullage convert` "
            "makes an ONNX file of it, which is served with task Embedding or Rerank"
        )


def adapter_rank(adapter: Adapter) -> int:
    """Return the rank of a LoRA adapter in PEFT's form; raises LoadError."""
    path = Path(adapter.path) / "adapter_config.json"
    if not path.is_file():
        raise invalid_model(
            f"adapter {adapter.name!r} is no folder with adapter_config.json, which a model in "
            "safetensors wants; GGUF adapters are for GGUF models"
        )
    if adapter.scale != 1.0:
        raise invalid_model(
            f"model.adapters.scale of {adapter.name!r} is {adapter.scale:g}; vLLM applies adapters "
            "as their own alpha says: remove scale"
        )
    rank = _object(path).get("r")
    if not isinstance(rank, int) or not 0 < rank <= 512:  # noqa: PLR2004 - vLLM's largest
        raise invalid_model(f"adapter {adapter.name!r} has rank {rank!r}; 1 to 512 can be served")
    return rank


def _is_model(path: Path) -> bool:
    return path.is_file() and not path.name.startswith("adapter_")


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _object(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_model(f"{path.name} cannot be read: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise invalid_model(f"{path.name} is no JSON object")
    return found
