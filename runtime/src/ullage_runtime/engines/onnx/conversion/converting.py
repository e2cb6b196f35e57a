"""Converting: a model's folder becomes another one, whole and right or not there at all."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ullage_runtime.core.pooled import Ability, Output
from ullage_runtime.engines.conversion import (
    ConversionError,
    Converted,
    Precision,
    workplace,
)
from ullage_runtime.engines.onnx.conversion.checking import (
    EXACT,
    ROUNDED,
    Comparison,
    Limits,
    Says,
    compared,
    computed,
    sample_texts,
)
from ullage_runtime.engines.onnx.conversion.folders import (
    COMPANIONS,
    Kind,
    Source,
    source_of,
)
from ullage_runtime.engines.onnx.files import DEFAULT_LONGEST, find_files
from ullage_runtime.engines.onnx.header import read_header
from ullage_runtime.engines.tokenizing import HubTokenizer

_MODEL: Final = "model.onnx"


def convert(path: Path, target: Path, precision: Precision) -> Converted:
    """Write a folder with an ONNX model and its files, held against the source.

    Raises ConversionError, LoadError for a source that is damaged, and ImportError without the
    exporters. On an error there is no target.
    """
    if precision not in (Precision.F32, Precision.INT8):
        raise ConversionError(f"ONNX is written in f32 or int8; {precision} is for a .gguf target")
    source = source_of(path)
    if source.kind is Kind.ONNX and precision is Precision.F32:
        raise ConversionError(f"{path} is ONNX already; --precision int8 makes it smaller")
    with workplace(target) as work:
        folder = work / "model"
        folder.mkdir()
        before, comparison = _made(source, path, folder, precision)
        folder.rename(target)
    return Converted(target, precision, before, _weights(target), comparison)


def _made(source: Source, path: Path, work: Path, precision: Precision) -> tuple[int, Comparison]:
    """Fill a folder; return the bytes of the source's weights, and how close the result is."""
    for name in COMPANIONS:
        if (source.folder / name).is_file():
            (work / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source.folder / name, work / name)
    make = _exported if source.kind is Kind.TRANSFORMER else _taken
    before, says = make(source, path, work)
    if precision is Precision.F32:
        return before, _compared(source, work, says, EXACT)
    _make_smaller(work)
    return before, _compared(source, work, says, ROUNDED)


def _taken(_source: Source, path: Path, work: Path) -> tuple[int, Says]:
    """Take an ONNX file over; return its bytes, and what it computes."""
    files = find_files(str(path))
    shutil.copyfile(files.tokenizer, work / "tokenizer.json")
    data = read_header(files.model).externals
    names = {files.model.parent / each.location: each.location for each in data}
    names[files.model] = _MODEL
    for file, name in names.items():
        shutil.copyfile(file, work / name)
    return sum(file.stat().st_size for file in names), computed(files, _purpose(_source)).says


def _exported(source: Source, _path: Path, work: Path) -> tuple[int, Says]:
    """Export a transformer; return the bytes of its weights, and what PyTorch computes."""
    from ullage_runtime.engines.onnx.conversion import exporting

    exporting.save_tokenizer(source, work)
    original = exporting.opened(source)
    files = find_files(str(work / _MODEL))
    exporting.export(original, files.model, files.positions or DEFAULT_LONGEST)
    heads = computed(files, _purpose(source)).heads

    def says(text: Sequence[int]) -> Mapping[Output, Any]:
        found, lengths = original.compute(text), np.array([len(text)])
        return {
            output: next(iter(head.rows(found[head.output], lengths)))
            for output, head in heads.items()
        }

    _compared(source, work, says, EXACT)
    return original.weight_bytes, says


def _make_smaller(work: Path) -> None:
    """Put a smaller model in the place of a folder's."""
    from ullage_runtime.engines.onnx.conversion.quantising import quantise

    smaller = work / "smaller"
    smaller.mkdir()
    quantise(work / _MODEL, smaller / _MODEL)
    for file in work.glob(f"{_MODEL}*"):
        file.unlink()
    for file in smaller.iterdir():
        file.rename(work / file.name)
    smaller.rmdir()


def _compared(source: Source, work: Path, theirs: Says, limits: Limits) -> Comparison:
    """Return how close a folder's model is to its source; raises ConversionError if it is not."""
    files = find_files(str(work / _MODEL))
    vocabulary = HubTokenizer(files.tokenizer).vocabulary_size
    texts = sample_texts(vocabulary, files.positions or DEFAULT_LONGEST)
    purpose = _purpose(source)
    comparison = compared(texts, computed(files, purpose).says, theirs, purpose)
    comparison.check(limits)
    return comparison


def _purpose(source: Source) -> Ability:
    return Ability.RERANK if source.is_ranker else Ability.EMBED


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{_MODEL}*"))
