"""Trains a revision of the guide model and writes its GGUF file.

    uv run --group train python examples/models/train.py --revision v1
    uv run --group train python examples/models/train.py --revision v2

v2 is v1 trained a little further with other answers, so it needs v1's checkpoint and trains v1
first where there is none. Checkpoints go to `examples/models/build/`, which git ignores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> None:
    """Parse the command line and train."""
    # Threads that spin while they wait make a shared machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.path.insert(0, str(REPOSITORY))
    from examples.models.guide.command import app

    app()


if __name__ == "__main__":
    main()
