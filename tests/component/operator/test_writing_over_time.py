"""How often the operator writes: never at rest, and within its floor however restless pods are.

Ten minutes, and a whole day, of the controller as a whole in virtual time.
"""

import asyncio
import math
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.component.operator.test_reconciler import POOL, Stage, model, pod
from tests.support.facts import MIB, heard, report, serving, told
from tests.support.virtual_time import in_virtual_time
from ullage_api.kinds.memory import MemoryLevel
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_operator.controller import reading
from ullage_operator.controller.keys import Key
from ullage_operator.controller.workers import work
from ullage_operator.reconcile.snapshot import RESTLESS_SECONDS

MINUTE, DAY = 60.0, 86_400.0
LEVELS = list(MemoryLevel)


class Diary:
    """When what was written, on the loop's clock."""

    def __init__(self, stage: Stage) -> None:
        self.entries: list[tuple[float, str, str]] = []
        stage.kube.before = self._note

    def _note(self, verb: str, manifest: object) -> None:
        assert isinstance(manifest, dict)
        moment = asyncio.get_running_loop().time()
        self.entries.append((moment, verb, f"{manifest['kind']} {manifest['metadata']['name']}"))

    def times(self, verb: str, name: str) -> list[float]:
        return [at for at, how, what in self.entries if (how, what) == (verb, name)]


def member(stage: Stage, name: str) -> ModelDeployment:
    return ModelDeployment.model_validate(stage.kube.objects["ModelDeployment", "team-a", name])


def hear(stage: Stage, level: MemoryLevel, *, grown: int = 0) -> None:
    """Have the pod report all models, and make due what a report of a pod makes due."""
    record = reading.pool_record(stage.kube.objects["ConfigMap", "team-a", "ullage-default"])
    assert record.desired is not None
    entries = []
    for wanted in record.desired.models:
        found = told(member(stage, wanted.name))
        now = found.model_copy(update={"resident_bytes": 400 * MIB + grown})
        entries.append(serving(member(stage, wanted.name), active=now, target=now))
        stage.queue.add(Key.model("team-a", wanted.name))
    said = report(*entries, document=record.desired, level=level)
    stage.reports.views[POOL] = (heard(said),)
    stage.queue.add(POOL)


async def settled(stage: Stage, *names: str) -> None:
    """Bring models about that serve on one pod, and let everything be written that is due."""
    stage.add(*(model(name, model={"uri": f"file:{name}.gguf"}) for name in names))
    stage.kube.put(pod(0, conditions=[{"type": "Ready", "status": "True"}]))
    await stage.runs()
    for _ in range(3):
        hear(stage, MemoryLevel.LOW)
        await stage.runs(RESTLESS_SECONDS + 1)
    for name in names:
        assert stage.ready(name) == ("True", "Serving")


def restless(step: int) -> Iterator[tuple[MemoryLevel, int]]:
    """Levels that come and go with every report, and bytes that breathe by a sixth."""
    for number in range(0, 1 << 30, step):
        yield LEVELS[number % len(LEVELS)], int(40 * MIB * math.sin(number / 7))


@pytest.mark.parametrize("seconds", [10 * MINUTE, DAY])
def test_at_rest_nothing_at_all_is_written(seconds: float) -> None:
    async def story() -> None:
        stage = Stage()
        await settled(stage, "one", "two", "three")
        diary, looks = Diary(stage), len(stage.counters.outcomes)
        await stage.runs(seconds)
        stage.queue.close()
        assert diary.entries == []
        assert len(stage.counters.outcomes) - looks >= seconds / 600, "it did look"

    in_virtual_time(story())


@pytest.mark.parametrize(("names", "seconds", "pause"), [(3, 10 * MINUTE, 1.0), (1, DAY, 60.0)])
def test_under_a_restless_load_a_status_is_written_at_most_every_half_minute(
    names: int, seconds: float, pause: float
) -> None:
    async def story() -> None:
        stage = Stage()
        models = [f"model-{number}" for number in range(names)]
        await settled(stage, *models)
        diary = Diary(stage)
        workers = asyncio.create_task(
            work(stage.queue, stage.reconciler.reconcile, stage.counters, workers=3)
        )
        start = asyncio.get_running_loop().time()
        for level, grown in restless(3):
            hear(stage, level, grown=grown)
            await asyncio.sleep(pause)
            if asyncio.get_running_loop().time() - start >= seconds:
                break
        workers.cancel()
        await asyncio.gather(workers, return_exceptions=True)
        stage.queue.close()
        for name in models:
            moments = diary.times("status", f"ModelDeployment {name}")
            gaps = [after - before for before, after in pairwise(moments)]
            assert min(gaps) >= RESTLESS_SECONDS
            assert len(moments) <= seconds / RESTLESS_SECONDS + 1
            assert len(moments) >= seconds / (4 * RESTLESS_SECONDS), "changes must show"
        others = {what for _, how, what in diary.entries if how != "status"}
        assert others == set(), "only statuses change with the load"

    in_virtual_time(story())
