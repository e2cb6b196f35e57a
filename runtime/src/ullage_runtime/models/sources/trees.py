"""Models of several files: one digest for all of them, and one folder of links to the blobs.

    trees/<digest>/<name>        the files, each a hard link to its blob
    index/trees/<digest>.json    names, digests and sizes

A tree's digest is that of the list `sha256sum` prints of its files in the order of their names
(bytewise): the same files make the same digest, wherever they came from. A tree appears by a
rename, like everything in the cache. All of it blocks: call it in threads.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ullage_runtime.models.sources.store import Store, read_json, sync_folder, write_json

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}


@dataclass(frozen=True, slots=True, order=True)
class TreeFile:
    """One file of a tree."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a model that has several, by name."""

    files: tuple[TreeFile, ...]

    @classmethod
    def of(cls, files: Iterable[TreeFile]) -> "Tree":
        """Return a tree of files in any order."""
        return cls(tuple(sorted(files, key=lambda file: os.fsencode(file.name))))

    @property
    def sha256(self) -> str:
        """The digest of all files with their names."""
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(os.fsencode(lines)).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def tree_folder(store: Store, sha256: str) -> Path:
    """Return where the tree of a digest is, or would be."""
    return store.root / "trees" / sha256


def known_tree(store: Store, sha256: str) -> Tree | None:
    """Return the tree of a digest if its folder is there."""
    data = read_json(_index(store, sha256))
    if not data or not tree_folder(store, sha256).is_dir():
        return None
    try:
        tree = Tree.of(TreeFile(**each) for each in data["files"])
    except (KeyError, TypeError):  # written by another version
        return None
    return tree if tree.sha256 == sha256 else None


def build_tree(store: Store, tree: Tree) -> Path:
    """Make a tree of blobs that are in the store; returns its folder."""
    target = tree_folder(store, tree.sha256)
    if known_tree(store, tree.sha256):
        return target
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{tree.sha256}."))
    try:
        folder.chmod(0o755)
        for file in tree.files:
            path = folder / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            _link(store.blob(file.sha256), path)
        _put_in_place(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    files = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in tree.files]
    write_json(_index(store, tree.sha256), {"files": files})
    return target


def remove_tree(store: Store, sha256: str) -> None:
    """Remove a tree; its blobs stay."""
    _index(store, sha256).unlink(missing_ok=True)
    folder = tree_folder(store, sha256)
    gone = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{sha256}."))
    try:
        folder.rename(gone)
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(gone, ignore_errors=True)


def _put_in_place(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:  # another process was faster
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
    sync_folder(target.parent)


def _link(blob: Path, path: Path) -> None:
    """Link a blob into a tree, or copy it on a file system without links."""
    try:
        path.hardlink_to(blob)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(blob, path)
        path.chmod(0o444)


def _index(store: Store, sha256: str) -> Path:
    return store.root / "index" / "trees" / f"{sha256}.json"
