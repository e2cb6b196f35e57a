"""Models of several files, and where the tests put them: a folder, a hub's repository."""

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path

from tests.support.file_server import FileServer
from tests.support.model_sources import model_bytes

COMMIT = "c" * 40
TREE_FILES = ("config.json", "model.onnx", "model.onnx_data", "tokenizer.json")


def encoder_files(size: int = 300_000, seed: int = 1) -> dict[str, bytes]:
    """Return a model in ONNX with its data, and what else lies beside such models."""
    chance = random.Random(seed)  # noqa: S311 - data
    return {
        "config.json": b'{"model_type": "bert"}',
        "model.onnx": b"\x08\x07\x12\x04test" + chance.randbytes(2000),
        "model.onnx_data": chance.randbytes(size),
        "tokenizer.json": b'{"version": "1.0"}' + b" " * 5000,
        "README.md": b"# A model",
        "pytorch_model.bin": b"\x80\x02" + chance.randbytes(1000),
        "other/part.gguf": model_bytes(100),
    }


def tree_digest(files: Mapping[str, bytes], names: tuple[str, ...] = TREE_FILES) -> str:
    """Return the digest of some of these files, as `sha256sum` would list them."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(names)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files beneath a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def publish_repository(
    hub: FileServer,
    files: Mapping[str, bytes],
    *,
    commit: str = COMMIT,
    token: str | None = None,
    large: int = 10_000,
) -> None:
    """Put files into the repository `team/encoder` of a hub; large ones are kept in LFS."""
    siblings = []
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        entry = {"rfilename": name, "size": len(data), "blobId": digest[:40]}
        if len(data) >= large:
            entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
        siblings.append(entry)
        hub.add(
            f"/team/encoder/resolve/{commit}/{name}",
            data,
            etag=f'"{digest if len(data) >= large else digest[:40]}"',
            token=token,
            headers={"X-Repo-Commit": commit},
        )
    answer = json.dumps({"id": "team/encoder", "sha": commit, "siblings": siblings}).encode()
    for revision in ("main", commit):
        hub.add(f"/api/models/team/encoder/revision/{revision}", answer, etag=None, token=token)


def contents(folder: str | Path) -> dict[str, bytes]:
    """Return the files beneath a folder."""
    root = Path(folder)
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
