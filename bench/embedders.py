"""What embedding is measured against: sentence-transformers, and infinity-emb's server."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.environment import HERE, embedders_python
from bench.servers import Command, Running, free_port, started

SCRIPT: Final = HERE / "torch_encoder.py"
WRITE_SECONDS: Final = 300.0
PREFIX: Final = "/v1"


def written(kind: str, source: Path, target: Path) -> Path:
    """Write an encoder of random weights in PyTorch's form, of the size of ours; return it."""
    _run("write", kind, str(source), str(target), timeout=WRITE_SECONDS)
    return target


def library_speeds(
    kind: str,
    model: Path,
    texts: Sequence[Any],
    batches: Sequence[int],
    seconds: float,
    threads: int,
) -> dict[int, float]:
    """Return the texts a second of sentence-transformers alone, by batch."""
    given = model.parent / f"{kind}-texts.json"
    given.write_text(json.dumps(texts))
    sizes = ",".join(map(str, batches))
    patience = WRITE_SECONDS + 4 * seconds * len(batches)
    said = _run(
        "measure", kind, str(model), str(given), sizes, str(seconds), str(threads), timeout=patience
    )
    return {int(batch): speed for batch, speed in json.loads(said).items()}


@contextlib.contextmanager
def infinity(
    model: Path, threads: int, folder: Path, question: tuple[str, dict[str, Any]]
) -> Iterator[Running]:
    """Run infinity-emb's server with PyTorch, until the block ends."""
    port = free_port()
    # What its own script does, which names the interpreter of where it was installed first.
    program = [str(embedders_python()), "-c", "from infinity_emb.cli import cli; cli()"]
    options = {
        "model-id": model,
        "served-model-name": "embed",
        "engine": "torch",
        "device": "cpu",
        "dtype": "float32",
        "port": port,
        "host": "127.0.0.1",
        "url-prefix": PREFIX,
        "log-level": "warning",
    }
    flat = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    switches = ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }
    command = Command([*program, "v2", *flat, *switches], environment)
    with started("infinity-emb", command, port, folder, question) as server:
        yield server


def _run(*arguments: str, timeout: float) -> str:
    command = [str(embedders_python()), str(SCRIPT), *arguments]
    done = subprocess.run(  # noqa: S603 - our own arguments
        command, check=False, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        raise SystemExit(f"sentence-transformers failed; it said:\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""
