"""Files and folders of the pod: only beneath the profile's folders, links resolved.

They are used where they lie. A folder, or a file that needs others, is checked file by file, since
each of them may be a link.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ullage_api.profile import RuntimeSettings
from ullage_runtime.core.errors import LoadError
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources.digests import Digests, Told
from ullage_runtime.models.sources.failures import (
    checksum_mismatch,
    refused,
    too_large,
    unavailable,
)
from ullage_runtime.models.sources.formats import HEAD_BYTES, checked_head
from ullage_runtime.models.sources.needed import MAX_FILES, Needed, needed, needs_others
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.trees import Tree, TreeFile
from ullage_runtime.models.sources.uris import FileUri

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


async def local_model(
    uri: FileUri,
    sha256: str | None,
    settings: RuntimeSettings,
    digests: Digests,
    told: Told,
    precision: PrecisionType = PrecisionType.AUTO,
) -> CachedModel:
    """Return a model where it lies, its digest computed or remembered; raises LoadError."""
    path = await in_thread(_allowed_path, uri, settings)
    try:
        if await in_thread(path.is_dir) or needs_others(path.name):
            model = await _folder_model(path, settings, digests, told, precision)
        else:
            await in_thread(_check_head, path)
            digest, size = await digests.of(path, told)
            model = CachedModel(path=str(path), sha256=digest, size=size)
    except OSError as error:
        raise _unreadable(path, error) from error
    if sha256 and model.sha256 != sha256:
        raise checksum_mismatch(str(path), expected=sha256, actual=model.sha256)
    return model


async def _folder_model(
    path: Path, settings: RuntimeSettings, digests: Digests, told: Told, precision: PrecisionType
) -> CachedModel:
    folder = path if await in_thread(path.is_dir) else path.parent
    names = await in_thread(_names, folder)
    main = None if folder == path else path.name
    chosen = _chosen(names, main, path, precision)
    paths = [await in_thread(_allowed_member, folder, name, settings) for name in chosen.files]
    size = sum([(await in_thread(each.stat)).st_size for each in paths])
    if size > settings.max_model_bytes:
        raise too_large(str(path), size, settings.max_model_bytes)
    files, before = [], 0
    for name, member in zip(chosen.files, paths, strict=True):
        await in_thread(_check_head, member, PurePosixPath(name).suffix)

        def told_of(done: int, of_file: int | None, before: int = before) -> None:  # noqa: ARG001
            told(before + done, size)

        files.append(TreeFile(name, *await digests.of(member, told_of)))
        before += files[-1].size
    if chosen.is_single:
        return CachedModel(path=str(paths[0]), sha256=files[0].sha256, size=size)
    tree = Tree.of(files)
    opened = folder / chosen.main if chosen.main else folder
    return CachedModel(path=str(opened), sha256=tree.sha256, size=tree.size)


def _chosen(names: list[str], main: str | None, path: Path, precision: PrecisionType) -> Needed:
    try:
        return needed(names, main, str(path), precision)
    except LoadError as error:  # a folder may still be filled
        raise unavailable(f"{error.message}; it will be looked at again") from error


def _names(folder: Path) -> list[str]:
    """Return the files beneath a folder; links to folders are not followed, as they may circle."""
    found: list[str] = []
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [str((Path(top) / name).relative_to(folder)) for name in files]
        if len(found) > MAX_FILES:
            raise refused(
                f"{folder} holds more than {MAX_FILES} files; name a folder for one model"
            )
    return found


def _allowed_member(folder: Path, name: str, settings: RuntimeSettings) -> Path:
    """Return the real path of a file within a folder, which may be a link out of it."""
    path = Path(os.path.realpath(folder / name))
    _check_beneath(path, str(folder / name), settings)
    _check_kind(path, path.stat(), settings)
    return path


def _allowed_path(uri: FileUri, settings: RuntimeSettings) -> Path:
    """Return the real path of a file or folder; raises LoadError if none may be read."""
    if not settings.file_roots:
        raise refused(
            "files are refused: the pool's profile names no folder for them (runtime.fileRoots)"
        )
    roots = settings.file_roots
    candidates = [Path(uri.path)] if uri.is_absolute else [Path(root, uri.path) for root in roots]
    for candidate in candidates:
        path = Path(os.path.realpath(candidate))
        # First whether it may be read, then whether it is there: what lies elsewhere stays unsaid.
        _check_beneath(path, uri.path, settings)
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        if not stat.S_ISDIR(found.st_mode):
            _check_kind(path, found, settings)
        return path
    raise unavailable(
        f"there is no file or folder {uri.path}{_where(uri, settings.file_roots)} yet; it will be "
        "looked for again"
    )


def _check_beneath(path: Path, named: str, settings: RuntimeSettings) -> None:
    roots = [Path(os.path.realpath(root)) for root in settings.file_roots]
    if not any(path.is_relative_to(root) for root in roots):
        raise refused(
            f"{named} does not lie beneath the folders that the pool's profile allows "
            f"(runtime.fileRoots: {', '.join(settings.file_roots)}), links resolved"
        )


def _where(uri: FileUri, roots: Sequence[str]) -> str:
    return "" if uri.is_absolute else f" in {', '.join(roots)}"


def _check_kind(path: Path, found: os.stat_result, settings: RuntimeSettings) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "no regular file")
        raise refused(f"{path} is {kind}; model.uri must name a file or folder")
    if found.st_size > settings.max_model_bytes:
        raise too_large(str(path), found.st_size, settings.max_model_bytes)


def _check_head(path: Path, suffix: str = ".gguf") -> None:
    with path.open("rb") as file:
        checked_head(file.read(HEAD_BYTES), str(path), suffix)


def _unreadable(path: Path, error: OSError) -> LoadError:
    return unavailable(f"{path} cannot be read: {error.strerror or error}; it will be tried again")
