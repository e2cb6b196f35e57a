"""The files that servers are measured with: real architectures with random weights.

Throughput depends on a model's shape and not on what it knows. The output weights are such that
only printable ASCII is ever the likeliest token and nothing ends early: with temperature 0 each
server makes exactly as many tokens as it is asked for, and each is a part of text of its own.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.environment import bench_cache
from e2e.cluster.cache import building, content_key, locked
from tests.support.gguf_models import Shape, write_model

LOCK_SECONDS: Final = 900.0

SHAPES: Final[dict[str, Shape]] = {
    # 0.4 GB: what a 0.4B-parameter model has, vocabulary included.
    "medium": Shape(
        width=1024,
        layers=24,
        heads=16,
        feed_forward=2816,
        context=8192,
        extra_tokens=31_741,
        quantized=True,
        printable=True,
        seed=7,
    ),
    "tiny": Shape(
        width=256, layers=4, heads=4, feed_forward=512, context=8192, quantized=True, printable=True
    ),
}


def model_file(name: str) -> Path:
    """Return the file of a named shape, generated on the first call."""
    shape = SHAPES[name]
    folder = bench_cache() / "models" / content_key(repr(sorted(asdict(shape).items())))
    file = folder / f"{name}-q8_0.gguf"
    with locked("bench-model", timeout=LOCK_SECONDS):
        if not file.exists():
            with building(folder) as new:
                write_model(new / file.name, shape)
    return file
