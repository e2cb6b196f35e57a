# ruff: noqa: INP001 - a script of the chart, not a package
"""Takes a snapshot of every collection of a Qdrant, and deletes all but the newest few of each.

`python snapshots.py URL KEEP`, with the key, if there is one, in QDRANT_API_KEY. One collection
that fails does not keep the others from theirs; the exit status tells.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

SECONDS = 1800


def asked(method: str, url: str) -> Any:
    """Return what Qdrant answers."""
    request = urllib.request.Request(url, method=method)  # noqa: S310 - the chart's own address
    if key := os.environ.get("QDRANT_API_KEY"):
        request.add_header("api-key", key)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return json.load(answer)["result"]


def snapshot(url: str, collection: str, keep: int) -> None:
    """Take one collection's snapshot, and only then delete old ones."""
    place = f"{url}/collections/{urllib.parse.quote(collection, safe='')}/snapshots"
    taken = asked("POST", f"{place}?wait=true")["name"]
    found = sorted(asked("GET", place), key=lambda each: each["creation_time"] or "", reverse=True)
    for old in found[keep:]:
        if old["name"] != taken:
            asked("DELETE", f"{place}/{urllib.parse.quote(old['name'], safe='')}?wait=true")
    print(f"{collection}: {taken}, {min(len(found), keep)} kept")  # noqa: T201 - a job's log


def main(url: str, keep: int) -> int:
    """Take all snapshots; return the exit status."""
    failures = 0
    for each in asked("GET", f"{url}/collections")["collections"]:
        try:
            snapshot(url, each["name"], keep)
        except (OSError, ValueError, KeyError, TypeError) as error:
            failures += 1
            print(f"{each['name']}: no snapshot: {error}", file=sys.stderr)  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].rstrip("/"), int(sys.argv[2])))
