"""What the operator writes while nothing changes, and while load comes and goes: `bench rest`.

On a real node with Ullage installed as its chart does it, a model is left alone for a while, and
then asked in bursts. Counted is what the API server's audit log says the operator wrote.
"""

import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench import machine
from bench.console import console
from bench.results import RESULTS, Kept
from e2e.cluster.audit import AuditEvent
from e2e.cluster.cluster import Cluster
from e2e.cluster.images import IMAGES, build_image
from e2e.cluster.layout import Spec
from e2e.cluster.lifecycle import down, up
from e2e.scenarios.platform import Platform
from e2e.scenarios.team import Team, model
from e2e.traffic import Traffic

BURST_SECONDS: Final = 10.0
NAMESPACE: Final = "rest"


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long, each of both.")] = 10,
    streams: Annotated[int, typer.Option(help="Requests at once in a burst.")] = 8,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Count the operator's writes at rest, and under a load that comes and goes."""
    kept = Kept("rest", machine.described(), out)
    name = f"bench-{os.getpid()}"
    cluster = up(Spec(name=name, shape="node").owned())
    try:
        cluster.load_images(*[build_image(image) for image in IMAGES])
        platform = Platform(cluster)
        platform.install()
        found = _counted(platform, _ready(cluster), 60 * minutes, streams)
    finally:
        down(name)
    kept.write({"minutes": minutes, "streams": streams, **found})
    console.print_json(data=found)
    kept.tell(console)


def _ready(cluster: Cluster) -> Team:
    cluster.kubectl("create", "namespace", NAMESPACE)
    team = Team(cluster, NAMESPACE)
    team.apply(model("guide"))
    team.wait_condition("guide", "Ready", "True")
    return team


def _counted(platform: Platform, team: Team, seconds: float, streams: int) -> dict[str, Any]:
    platform.wait_until_settled(NAMESPACE)
    since = datetime.now(UTC)
    time.sleep(seconds)
    at_rest = platform.operator_writes(since=since, namespace=NAMESPACE)
    since = datetime.now(UTC)
    asked = 0
    with team.reach("guide-model") as url:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with Traffic(url, "guide", per_second=0, streams=streams) as burst:
                time.sleep(BURST_SECONDS)
            asked += len(burst.window().outcomes)
            time.sleep(BURST_SECONDS)
    restless = platform.operator_writes(since=since, namespace=NAMESPACE)
    return {
        "atRest": _told(at_rest),
        "underLoad": {"requests": asked, **_told(restless)},
        "memory": team.status("guide").get("memory"),
    }


def _told(events: Sequence[AuditEvent]) -> dict[str, Any]:
    """Return how many writes there were of what, and the shortest time between two of a status."""
    kinds = Counter(f"{e.verb} {e.resource}/{e.subresource}".rstrip("/") for e in events)
    moments = sorted(e.received for e in events if e.subresource == "status")
    gaps = [(after - before).total_seconds() for before, after in pairwise(moments)]
    shortest = round(min(gaps), 1) if gaps else None
    return {"writes": dict(kinds), "shortestBetweenStatusWrites": shortest}
