"""Models that lie in a folder, at any depth: which there are, and what each is for.

What a file is for is read from its header, or from the settings beside an ONNX file. It is kept
in the cache's index under the digest of what is read of a file, so that a folder of many
models is looked through at once the next time, also when files were moved.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ullage_api.kinds.model_deployment import Task
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.llamacpp.header import Header, read_header
from ullage_runtime.engines.vllm.files import check_generates, find_files
from ullage_runtime.models.sources.needed import needed
from ullage_runtime.models.sources.store import read_json, write_json

BEGINNING_BYTES: Final = 1 << 20
"""What the digest of a GGUF file's metadata is of, with the file's size: its header begins there,
and two files of one size that begin alike differ in nothing but their weights."""
MAX_CONFIG_BYTES: Final = 1 << 20

_FURTHER_PART: Final = re.compile(r".+-(?!00001)\d{5}-of-\d{5}\.gguf")
_PICKLE: Final = re.compile(r"pytorch_model.*\.bin")
_PART: Final = re.compile(r"onnx|openvino|\d+_\w+")
_EMBEDDERS: Final = frozenset({"gemma-embedding", "t5encoder"})
"""Encoders whose architecture does not say so by its name, as those after BERT do."""
_RANK: Final = 4
"""What llama.cpp calls the pooling of a cross-encoder."""
_ATTACHED: Final = {"adapter": "a LoRA adapter", "mmproj": "a projector of pictures"}
"""Kinds of files that are no models by themselves."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model that lies in a folder."""

    path: Path
    """The file, or the folder of several."""
    task: Task


@dataclass(frozen=True, slots=True)
class Findings:
    """What a folder holds."""

    models: tuple[Found, ...]
    skipped: tuple[str, ...] = ()
    """What looks like a model and is none that can be served, with the reason."""


def found_models(folder: Path, cache: Path) -> Findings:
    """Return the models beneath a folder, in the order of their paths; blocks.

    `cache` is the folder that fetched models are kept in. Hidden folders are left out, and links to
    folders are not followed. Raises OSError for a folder that cannot be read.
    """
    models: list[Found] = []
    skipped: list[str] = []
    for path in _candidates(folder):
        try:
            models.append(Found(path, _task_of(path, cache)))
        except LoadError as error:
            skipped.append(f"{path}: {error.message}")
        except _NoModelError as error:
            skipped.append(f"{path}: {error}")
        except OSError as error:
            skipped.append(f"{path}: {error.strerror or error}")
    return Findings(tuple(models), tuple(skipped))


class _NoModelError(Exception):
    """A file that is not meant to be served by itself."""


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield GGUF files, and folders that hold a model in ONNX or its weights alone."""

    def refuse(error: OSError) -> None:
        raise error

    for top, folders, names in os.walk(folder, onerror=refuse):
        here = Path(top)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # The hub's repositories often have the ONNX file in a folder `onnx`, and the rest above.
        inner = here / "onnx"
        has_inner = "onnx" in folders and any(inner.glob("*.onnx"))
        is_onnx = has_inner or any(name.endswith(".onnx") for name in names)
        # Beside a model in another form they are what it was made of.
        is_weights = not any(name.endswith(".gguf") for name in names) and any(map(_weighs, names))
        if is_onnx or is_weights:
            yield here
            # Its other forms, and the stages of a sentence-transformers pipeline.
            folders[:] = [name for name in folders if not _PART.fullmatch(name)]
        for name in sorted(names):
            if name.endswith(".gguf") and not _FURTHER_PART.fullmatch(name):
                yield here / name


def _weighs(name: str) -> bool:
    return name.endswith(".safetensors") or _PICKLE.fullmatch(name) is not None


def _task_of(path: Path, cache: Path) -> Task:
    if path.is_dir():
        is_onnx = any(path.glob("*.onnx")) or any(path.glob("onnx/*.onnx"))
        return _task_of_onnx(path) if is_onnx else _task_of_weights(path)
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
        size = os.fstat(file.fileno()).st_size
    digest = hashlib.sha256(beginning + f"{size}".encode()).hexdigest()
    entry = cache / "index" / "found" / f"{digest}.json"
    known = (read_json(entry) or {}).get("task")
    if known in set(Task):
        return Task(known)
    # Of a row's bytes nothing is known here: whether all tensors are there is the engine's to say.
    task = _task_of_gguf(read_header(str(path), lambda _type, _elements: None))
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_json(entry, {"task": task.value})
    return task


def _task_of_gguf(header: Header) -> Task:
    attached = _ATTACHED.get(header.strings.get("general.type", ""))
    if attached is not None:
        raise _NoModelError(f"it is {attached}, which belongs to a model")
    pooling = header.of_architecture("pooling_type")
    if header.has_classifier or pooling == _RANK:
        return Task.RERANK
    if pooling or "bert" in header.architecture or header.architecture in _EMBEDDERS:
        return Task.EMBEDDING
    return Task.CHAT if "tokenizer.chat_template" in header.strings else Task.COMPLETION


def _task_of_weights(folder: Path) -> Task:
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        raise _NoModelError("it is a LoRA adapter, which belongs to a model")
    if not any(name.endswith(".safetensors") for name in names):
        raise _NoModelError(
            "it holds pickles, which are never opened to serve: `ullage convert` makes ONNX of it"
        )
    files = find_files(str(folder))
    check_generates(files)
    if find_spec("vllm") is None:
        raise _NoModelError(
            f"{files.architecture} in safetensors is served by vLLM, which is not installed: "
            "install ullage-runtime[vllm], or make GGUF of it with `ullage convert`"
        )
    return Task.COMPLETION if files.chat_template is None else Task.CHAT


def _task_of_onnx(folder: Path) -> Task:
    names = [
        str(path.relative_to(folder))
        for path in (*folder.iterdir(), *folder.glob("onnx/*"))
        if path.is_file()
    ]
    needed(names, None, "it")
    config = folder / "config.json"
    settings: object = {}
    if config.is_file() and config.stat().st_size <= MAX_CONFIG_BYTES:
        try:
            settings = json.loads(config.read_bytes())
        except ValueError as error:
            raise _NoModelError(f"its config.json is no JSON: {error}") from error
    kinds = settings.get("architectures") if isinstance(settings, dict) else None
    is_ranker = any("SequenceClassification" in str(kind) for kind in kinds or ())
    return Task.RERANK if is_ranker else Task.EMBEDDING
