"""The files of an ONNX model, and what those beside the weights say of it.

They are the hub's: `tokenizer.json`, `config.json` of transformers, and what sentence-transformers
writes: `modules.json`, `sentence_bert_config.json`, `1_Pooling/config.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ullage_runtime.core.errors import invalid_model
from ullage_runtime.core.pooled import PoolingType
from ullage_runtime.core.precision import stated_precision

DEFAULT_LONGEST: Final = 512
"""Longest text when the spec names no length: its attention takes the square of it in memory."""
MAX_JSON_BYTES: Final = 1 << 20
"""Longest file of settings; the tokenizer, which holds the vocabulary, is no such file."""

_USUAL: Final = ("model.onnx", "onnx/model.onnx")
_OFFSET_FAMILIES: Final = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"})
"""Those that number their positions from behind the padding token's id (fairseq's habit)."""
_KNOWN_STAGES: Final = frozenset({"Transformer", "Pooling", "Normalize"})
_POOLING_MODES: Final = {
    "pooling_mode_mean_tokens": PoolingType.MEAN,
    "pooling_mode_cls_token": PoolingType.CLS,
    "pooling_mode_lasttoken": PoolingType.LAST,
}
_DEEPEST: Final = 3
"""Folders that are looked into: `onnx/int8`, `onnx`, and what they lie in."""
_PLAUSIBLE: Final = 1 << 20
"""Above this a length says that there is none: tokenizers write 1e30."""


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """Where a model's files are, and its settings, as far as they are there."""

    model: Path
    tokenizer: Path
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    sentence_config: Mapping[str, Any]
    pooling_config: Mapping[str, Any]
    stages: tuple[str, ...]
    """What sentence-transformers does one after the other, such as `Transformer`, `Pooling`."""

    @property
    def family(self) -> str:
        """What transformers calls the architecture, such as `bert`."""
        return str(self.config.get("model_type", "onnx"))[:64]

    @property
    def positions(self) -> int:
        """Tokens of the longest text that the model was trained for, or 0 if nobody says."""
        told = _length(self.config.get("max_position_embeddings"))
        if told and self.family in _OFFSET_FAMILIES:
            told -= _length(self.config.get("pad_token_id")) + 1
        lengths = (
            told,
            _length(self.sentence_config.get("max_seq_length")),
            _length(self.tokenizer_config.get("model_max_length")),
        )
        return min((length for length in lengths if length > 0), default=0)

    @property
    def layers(self) -> int:
        """Layers, or 0 if nobody says."""
        return _length(self.config.get("num_hidden_layers"))

    @property
    def padding(self) -> int:
        """The token that short texts are filled up with; nothing looks at it."""
        return _length(self.config.get("pad_token_id"))

    @property
    def pooling(self) -> PoolingType | None:
        """How the files say that vectors are pooled, or None; raises LoadError for another way."""
        modes = [mode for mode, wanted in self.pooling_config.items() if wanted is True]
        modes = [mode for mode in modes if mode.startswith("pooling_mode_")]
        if not modes:
            return None
        if len(modes) > 1 or modes[0] not in _POOLING_MODES:
            raise invalid_model(
                f"the model's files ask for the pooling {', '.join(modes)[:200]}, which is not "
                "supported; engine.pooling says Mean, CLS or Last instead"
            )
        return _POOLING_MODES[modes[0]]

    @property
    def further_stages(self) -> tuple[str, ...]:
        """Stages behind the transformer that an ONNX file of it alone does not compute."""
        return tuple(stage for stage in self.stages if stage not in _KNOWN_STAGES)


def find_files(path: str) -> OnnxFiles:
    """Return the files of a model, which a path names or holds; raises LoadError(InvalidModel)."""
    model = _onnx_file(Path(path))
    folders = [model.parent]
    # Where the hub's repositories have it, beneath the rest; each build in a folder or not.
    while len(folders) < _DEEPEST and _is_below(folders[-1].name):
        folders.append(folders[-1].parent)
    tokenizer = _found(folders, "tokenizer.json")
    if tokenizer is None:
        raise invalid_model(
            f"there is no tokenizer.json beside {model.name}; transformers writes one with "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    stages = _json(folders, "modules.json")
    return OnnxFiles(
        model=model,
        tokenizer=tokenizer,
        config=_object(folders, "config.json"),
        tokenizer_config=_object(folders, "tokenizer_config.json"),
        sentence_config=_object(folders, "sentence_bert_config.json"),
        pooling_config=_object(folders, "1_Pooling/config.json"),
        stages=tuple(_stage(each) for each in stages) if isinstance(stages, list) else (),
    )


def _is_below(folder: str) -> bool:
    return folder == "onnx" or stated_precision(folder) is not None


def _onnx_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    usual = [path / name for name in _USUAL if (path / name).is_file()]
    found = usual or sorted(path.rglob("*.onnx"))
    if not found:
        raise invalid_model(f"{path.name} holds no .onnx file")
    return found[0]


def _found(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _json(folders: list[Path], name: str) -> Any:
    path = _found(folders, name)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return json.loads(file.read(MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise invalid_model(f"{name} cannot be read: {str(error)[:200]}") from error


def _object(folders: list[Path], name: str) -> Mapping[str, Any]:
    found = _json(folders, name)
    return found if isinstance(found, dict) else {}


def _stage(described: object) -> str:
    kind = described.get("type", "") if isinstance(described, dict) else ""
    return str(kind).rpartition(".")[2][:64]


def _length(value: object) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0
    return int(value) if 0 <= value < _PLAUSIBLE else 0
