"""Converting: a model becomes a GGUF file, whole and right or not there at all."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from ullage_runtime.engines.conversion import ConversionError, Converted, Precision, workplace
from ullage_runtime.engines.llamacpp.conversion.checking import (
    Computed,
    LogitComparison,
    Opened,
    compared,
)
from ullage_runtime.engines.llamacpp.conversion.quantising import FILE_TYPES, quantise
from ullage_runtime.engines.llamacpp.header import MAGIC
from ullage_runtime.engines.llamacpp.library import Library, row_bytes
from ullage_runtime.engines.llamacpp.parts import read_model

_MODEL: Final = "model.gguf"


def convert(path: Path, target: Path, precision: Precision) -> Converted:
    """Write a GGUF file, held against the source.

    Raises ConversionError, LoadError for a source that is damaged, and ImportError without the
    exporters. On an error there is no target.
    """
    if precision not in FILE_TYPES:
        raise ConversionError(
            f"GGUF is written in {', '.join(FILE_TYPES)}; {precision} is for a folder with ONNX"
        )
    _check_source(path)
    library = Library(lambda _level, _line: None)
    with workplace(target) as work:
        made = work / _MODEL
        if path.is_file():
            read_model(str(path), row_bytes)
            before = path.stat().st_size
            quantise(library, path, made, precision)
            comparison = _beside_file(library, path, made)
        else:
            before, comparison = _exported(library, path, made, precision)
        comparison.check(precision)
        made.rename(target)
    return Converted(target, precision, before, target.stat().st_size, comparison)


def _check_source(path: Path) -> None:
    """Raise ConversionError for what is not converted, and why."""
    if not path.exists():
        raise ConversionError(f"there is no file or folder {path}")
    if path.suffix == ".onnx" or (path.is_dir() and any(path.rglob("*.onnx"))):
        raise ConversionError(
            f"{path} is ONNX: a graph of operators, which no longer says what architecture its "
            "weights belong to, as GGUF must; convert the model's original, in safetensors"
        )
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return
        raise ConversionError(f"{path} is no GGUF file; name one, or a folder with safetensors")


def _beside_file(library: Library, source: Path, made: Path) -> LogitComparison:
    """Return how close one GGUF file is to another."""
    with closing(Opened(library, str(source))) as original:
        texts = original.tokens()
        return _beside(library, made, texts, original.computed)


def _exported(
    library: Library, folder: Path, made: Path, precision: Precision
) -> tuple[int, LogitComparison]:
    """Export a transformer; return the bytes of its weights, and how close the result is."""
    from ullage_runtime.engines.llamacpp.conversion import exporting

    original = exporting.opened(folder)
    whole = precision in (Precision.F32, Precision.F16)
    written = made if whole else made.with_name("whole.gguf")
    exporting.export(library, original, written, precision if whole else Precision.F32)
    if not whole:
        quantise(library, written, made, precision)
        written.unlink()
    return original.weight_bytes, _beside(library, made, original.texts(), original.computed)


def _beside(
    library: Library, made: Path, texts: Sequence[Sequence[int]], theirs: Computed
) -> LogitComparison:
    with closing(Opened(library, str(made))) as result:
        return compared(texts, result.computed(texts), theirs(texts))
