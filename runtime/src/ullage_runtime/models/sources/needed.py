"""Which files of a repository, bucket, artifact or folder a model needs: a pure table by names.

A model's address names one file or a folder. One file may need others: ONNX its external data and
its tokenizer, a split GGUF its further parts. A folder holds one model in the form that lies
nearest to its top, and often much that no engine reads: other forms, pickles, pictures.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ullage_runtime.core.precision import (
    PrecisionType,
    named_precision,
    plain_name,
    preference,
    stated_precision,
)
from ullage_runtime.models.sources.failures import refused

MAX_FILES = 4096
MAX_NAME = 512

_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<parts>\d{5})\.gguf")
_STAGE = re.compile(r"\d+_\w+")
"""A folder of a sentence-transformers pipeline's further stage, such as `1_Pooling`."""
_COMPANION_SUFFIXES = {".json", ".jinja", ".model"}
_COMPANIONS = {"vocab.txt", "merges.txt"}
_USUAL = ("model.onnx", "onnx/model.onnx")
_USUAL_NAME = "model"
_ADAPTER = "adapter_model.safetensors"
"""A LoRA adapter as PEFT writes it, with its settings beside it."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Needed:
    """The files to fetch, and the one of them that an engine opens, unless that is the folder."""

    files: tuple[str, ...]
    main: str | None

    @property
    def is_single(self) -> bool:
        """Whether one file is all there is to it; ONNX keeps its name, by which it is known."""
        return self.files == (self.main,) and not str(self.main).endswith(".onnx")


def needs_others(path: str) -> bool:
    """Whether a file of this name may need others, so that its folder has to be looked at."""
    return path.endswith(".onnx") or _SPLIT.fullmatch(path) is not None


def needed(
    names: Sequence[str],
    path: str | None,
    what: str,
    precision: PrecisionType = PrecisionType.AUTO,
) -> Needed:
    """Return what a model needs of these files; `path` is the one that its address names, if any.

    Of a folder with ONNX it is the build in a precision, which is then the main file. Raises
    LoadError, which speaks of `what`, when there is no model among them or no way to choose.
    """
    listed = checked_names(names, what)
    onnx = [name for name in listed if name.endswith(".onnx")]
    if path is None and precision is not PrecisionType.AUTO and onnx:
        return _of_file(listed, _build(onnx, precision, what), what)
    if path is None:
        return _of_folder(listed, what)
    if path.endswith(".onnx") and precision is not PrecisionType.AUTO:
        _check_build(path, precision, what)
    if path not in listed:
        raise refused(f"{what}: there is no file {path}; {_what_there_is(listed)}")
    return _of_file(listed, path, what)


def checked_names(names: Sequence[str], what: str) -> list[str]:
    """Return names in order; raises LoadError for one that could lead out of a folder."""
    if len(names) > MAX_FILES:
        raise refused(f"{what} holds {len(names)} files; {MAX_FILES} are the most for one model")
    for name in names:
        parts = name.split("/")
        bad = {"", ".", ".."} & set(parts) or "\0" in name or "\\" in name or len(name) > MAX_NAME
        if bad:
            raise refused(f"{what} holds a file named {name[:80]!r}, which no folder may have")
    return sorted(names)


def _of_file(names: list[str], path: str, what: str) -> Needed:
    if match := _SPLIT.fullmatch(path):
        parts = [n for n in names if (m := _SPLIT.fullmatch(n)) and m["stem"] == match["stem"]]
        if len(parts) != int(match["parts"]):
            raise refused(
                f"{what}: {len(parts)} of {int(match['parts'])} parts of {path} are there"
            )
        return Needed(tuple(parts), parts[0])
    if not path.endswith(".onnx"):
        return Needed((path,), path)
    folder = _folder(path)
    files = {path}
    files |= {n for n in names if _folder(n) == folder and _is_external_data(n, path)}
    files |= {n for n in names if _folder(n) in {folder, ""} and _is_companion(n)}
    files |= {n for n in names if _is_stage(n) and _is_companion(n)}
    return Needed(tuple(sorted(files)), path)


def _of_folder(names: list[str], what: str) -> Needed:
    top = [n for n in names if "/" not in n]
    for level in (top, names):
        onnx = [n for n in level if n.endswith(".onnx")]
        if onnx:
            return Needed(_of_file(names, _chosen(onnx, what), what).files, None)
        if any(_is_weights(n) for n in level):
            return Needed(_safetensors(names, level), None)
    if _ADAPTER in top:
        return Needed(tuple(n for n in top if n.startswith("adapter_") and _is_of_adapter(n)), None)
    gguf = [n for n in names if n.endswith(".gguf")]
    if gguf:
        firsts = [n for n in gguf if not _SPLIT.fullmatch(n) or "-00001-of-" in n]
        return _of_file(names, _chosen(firsts, what), what)
    raise refused(f"{what} holds no model (.gguf, .onnx or .safetensors); {_what_there_is(names)}")


def _build(onnx: list[str], precision: PrecisionType, what: str) -> str:
    """Return which of a folder's ONNX files is the build in a precision; raises LoadError."""
    found = sorted((n for n in onnx if named_precision(n) is precision), key=preference)
    usual = {name: plain_name(name) for name in found}
    models = set(usual.values())
    if len(models) > 1 and _USUAL_NAME in models:
        found = [name for name in found if usual[name] == _USUAL_NAME]
        models = {_USUAL_NAME}
    if len(models) > 1:
        raise refused(f"{what} holds several models in {precision}; name one: {_some(found)}")
    if found:
        return found[0]
    if len(onnx) == 1 and stated_precision(onnx[0]) is None:
        return onnx[0]  # whose weights say it, once they are there
    raise refused(
        f"{what} has no {precision} build, which engine.precision asks for; there are "
        f"{_builds(onnx)}: name one of these precisions, or a file in model.uri"
    )


def _builds(onnx: list[str]) -> str:
    """Return the precisions that there are, with their files."""
    parts = []
    for precision in PrecisionType:
        names = [name for name in onnx if named_precision(name) is precision]
        if names:
            is_known = precision is not PrecisionType.AUTO
            parts.append(f"{precision if is_known else 'others'} ({_some(names)})")
    return ", ".join(parts)


def _check_build(path: str, precision: PrecisionType, what: str) -> None:
    stated = stated_precision(path)
    if stated not in (None, precision):
        said = "another precision" if stated is PrecisionType.AUTO else stated
        raise refused(
            f"{what} names a build in {said}, and engine.precision asks for {precision}: leave one "
            "of them out"
        )


def _safetensors(names: list[str], level: list[str]) -> tuple[str, ...]:
    files = {n for n in level if _is_weights(n) or _is_companion(n)}
    files |= {n for n in names if "/" not in n and _is_companion(n)}
    stages = (n for n in names if _is_stage(n))
    return tuple(sorted(files | {n for n in stages if _is_weights(n) or _is_companion(n)}))


def _is_stage(name: str) -> bool:
    """Whether it is of a sentence-transformers pipeline's further stage, at the top."""
    return name.count("/") == 1 and _STAGE.fullmatch(_folder(name)) is not None


def _chosen(found: list[str], what: str) -> str:
    usual = next((name for name in _USUAL if name in found), None)
    if len(found) == 1 or usual:
        return usual or found[0]
    raise refused(f"{what} holds several models; name one of them: {_some(found)}")


def _is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and not name.rsplit("/", 1)[-1].startswith("adapter_")


def _is_of_adapter(name: str) -> bool:
    return name.endswith((".safetensors", ".json"))


def _is_companion(name: str) -> bool:
    last = PurePosixPath(name)
    return last.suffix in _COMPANION_SUFFIXES or last.name in _COMPANIONS


def _is_external_data(name: str, path: str) -> bool:
    return name.startswith((f"{path}_data", f"{path}.data"))


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _what_there_is(names: list[str]) -> str:
    return f"there are {_some(names)}" if names else "it is empty"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
