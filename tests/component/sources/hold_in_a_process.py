"""Fetch an address, print its digest, hold it until killed: `hold_in_a_process.py CACHE URI`."""

import asyncio
import signal
import sys
from pathlib import Path

from tests.support.model_sources import fetched, make_cache

if __name__ == "__main__":
    model = asyncio.run(fetched(make_cache(Path(sys.argv[1])), sys.argv[2]))
    sys.stdout.write(f"{model.sha256}\n")
    sys.stdout.flush()
    signal.pause()
