"""What a swap costs: how long it takes, and what new requests feel: `python -m bench swap`.

A model is swapped for another one and back, under open-loop traffic and beside clients that are
always busy. Told are the seconds from the change of the manifest to the first moment at which the
new revision answers, and the time to first token before and during the swaps.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench import machine
from bench.console import console
from bench.results import RESULTS, Kept
from e2e.traffic import Traffic, Window

MODELS: Final = Path(__file__).parents[1] / "examples" / "models"
ULLAGE: Final = (sys.executable, "-c", "from ullage_runtime.cli import main; main()")
LOOK_SECONDS: Final = 0.01
PATIENCE: Final = 120.0


class Served:
    """`ullage up` with one model, whose manifest changes."""

    def __init__(self, folder: Path, strategy: str, parallel: int) -> None:
        self._manifest = folder / "model.yaml"
        self._strategy = strategy
        self._parallel = parallel
        self.write("guide-v1")
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [*ULLAGE, "up", str(self._manifest), "--port", "0", "--models-dir", MODELS, "--json"],
            env=os.environ | {"ULLAGE_STATE_DIR": str(folder / "state")},
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        if self._process.stdout is None:
            raise AssertionError("it was started with a pipe")
        self.url: str = json.loads(self._process.stdout.readline())["url"].removesuffix("/v1")
        self._client = httpx.Client(base_url=self.url, trust_env=False)

    def write(self, name: str) -> None:
        """Write the manifest for a model."""
        spec = {
            "pool": "default",
            "task": "Chat",
            "model": {"uri": f"file://{MODELS / name}.gguf"},
            "engine": {"contextLength": 4096, "parallel": self._parallel},
            "rollout": {"strategy": self._strategy},
            "serving": {"maxQueue": 1000},
        }
        resource = {
            "apiVersion": "ullage.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "guide"},
            "spec": spec,
        }
        self._manifest.write_text(json.dumps(resource))

    def revision(self) -> str | None:
        """Return what answers now."""
        found: str | None = self._client.get("/rollouts/guide").json()["active"]
        return found

    def last_swap(self) -> dict[str, Any]:
        """Return the server's own account of the last swap, once that is over."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            swap: dict[str, Any] | None = self._client.get("/rollouts/guide").json()["swap"]
            if swap is not None and swap["step"] is None:
                return swap
            time.sleep(LOOK_SECONDS)
        raise TimeoutError("the swap does not end")

    def swap(self, name: str) -> float:
        """Change the manifest, and return the seconds until another revision answers."""
        before = self.revision()
        self.write(name)
        began = time.monotonic()
        self._process.send_signal(signal.SIGHUP)
        while (now := self.revision()) in {before, None}:
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"revision {now} still answers")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    def end(self) -> None:
        """End the server."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        self._client.close()
        self._log.close()


def main(
    *,
    strategy: Annotated[
        str, typer.Option(help="LoadThenDrain or DrainThenLoad.")
    ] = "LoadThenDrain",
    swaps: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    per_second: Annotated[float, typer.Option(help="Timed requests.")] = 5.0,
    streams: Annotated[int, typer.Option(help="Clients that are always busy.")] = 0,
    seconds: Annotated[float, typer.Option(help="Time before the first swap.")] = 20.0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Swap guide-v1 for guide-v2 and back, under traffic."""
    kept = Kept("swap", machine.described(), out)
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), strategy, parallel=8)
        try:
            found = _measured(served, swaps, per_second, streams, seconds)
        finally:
            served.end()
    kept.write({"strategy": strategy, "swaps": swaps, **found})
    console.print_json(data=found)
    kept.tell(console)


def _measured(
    served: Served, swaps: int, per_second: float, streams: int, seconds: float
) -> dict[str, Any]:
    took: list[float] = []
    told: list[dict[str, Any]] = []
    url = f"{served.url}/v1"
    with Traffic(url, "guide", per_second=per_second, streams=streams, max_tokens=32) as traffic:
        time.sleep(seconds)
        for number in range(swaps):
            # Beside each swap, for a queue that many clients keep full changes with time.
            traffic.mark(f"calm-{number}")
            time.sleep(seconds / 4)
            traffic.mark(f"begin-{number}")
            took.append(served.swap(("guide-v2", "guide-v1")[number % 2]))
            traffic.mark(f"end-{number}")
            told.append(served.last_swap())
            time.sleep(seconds / 4)
        traffic.mark("end")
        before = [traffic.window(f"calm-{n}", f"begin-{n}") for n in range(swaps)]
        during = [traffic.window(f"begin-{n}", f"end-{n}") for n in range(swaps)]
        whole = traffic.window("start", "end")
    times = sorted(t for window in during for t in _first_tokens(window))
    calm = sorted(t for window in before for t in _first_tokens(window))
    return {
        "swapSeconds": {"median": sorted(took)[len(took) // 2], "longest": max(took)},
        "failed": whole.failures,
        "strategies": sorted({swap["strategy"] for swap in told}),
        "ownSeconds": [swap["seconds"] for swap in told],
        "drainSeconds": [swap["drain_seconds"] for swap in told],
        "longestHoldSeconds": round(max(times, default=0.0), 4),
        "firstTokenSecondsBefore": _spread(calm),
        "firstTokenSecondsDuring": _spread(times),
        "ratioP99": _at(times, 0.99) / _at(calm, 0.99) if times and calm else None,
        "ratioP50": _at(times, 0.5) / _at(calm, 0.5) if times and calm else None,
    }


def _first_tokens(window: Window) -> list[float]:
    """Return how long those that began in a window waited, unless they came to nothing."""
    return [o.times[0] - o.started for o in window.started if o.is_timed and o.times]


def _spread(times: list[float]) -> dict[str, Any]:
    if not times:
        return {"count": 0}
    found = {f"p{round(100 * q)}": round(_at(times, q), 4) for q in (0.5, 0.9, 0.99)}
    return {"count": len(times), **found}


def _at(times: list[float], quantile: float) -> float:
    return times[min(len(times) - 1, int(quantile * len(times)))]
