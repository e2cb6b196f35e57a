"""Fetch one address into a cache and print its digest: `fetch_in_a_process.py CACHE URI`."""

import asyncio
import sys
from pathlib import Path

from tests.support.model_sources import fetched, make_cache
from ullage_runtime.models.sources import HubAccess

if __name__ == "__main__":
    # Written byte for byte as they come, so that whoever watches knows what has come.
    cache = make_cache(Path(sys.argv[1]), hub=HubAccess(), flush_bytes=1)
    model = asyncio.run(fetched(cache, sys.argv[2]))
    sys.stdout.write(f"{model.sha256}\n")
