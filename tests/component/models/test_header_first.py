"""A remote model that can never fit is refused by its header, before the rest of it is fetched."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.fake_models import answer, until, wanted
from tests.support.file_server import Fault, FileServer, file_server
from tests.support.gguf_models import Shape, write_model
from tests.support.model_sources import SETTINGS, make_cache
from ullage_api.conditions import Reason
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.wire.pool_desired import DesiredModel, PoolDesired
from ullage_runtime.core.decisions import Rule
from ullage_runtime.core.domain import Footprint
from ullage_runtime.core.errors import InsufficientMemory
from ullage_runtime.governor.host import HostMemory
from ullage_runtime.models.artifacts import Artifacts
from ullage_runtime.models.loading import Loader
from ullage_runtime.models.pool import ModelPool

MIB = 1 << 20
BUDGET = 100 * MIB


class SmallHost(HostMemory):
    """The real memory, of which there is so much."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def total(self) -> int:
        return self._size


@dataclass
class Noting:
    """Foresees what a loader does, and keeps it."""

    loader: Loader
    estimates: list[Footprint] = field(default_factory=list)
    longest: int = 0

    async def __call__(self, artifacts: Artifacts) -> Footprint:
        stat = await asyncio.to_thread(os.stat, artifacts.model.path)
        self.longest = max(self.longest, stat.st_blocks * 512)
        self.estimates.append(await Loader.foreseen(self.loader, artifacts))
        return self.estimates[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    shape = Shape(width=512, layers=6, heads=8, feed_forward=2048, context=65_536)
    return write_model(tmp_path_factory.mktemp("model") / "m.gguf", shape).read_bytes()


@pytest.fixture
async def server(data: bytes) -> AsyncIterator[FileServer]:
    async with file_server() as running:
        running.add("/m.gguf", data)
        yield running


@asynccontextmanager
async def pool(cache: Path, budget: int) -> AsyncIterator[ModelPool]:
    async with ModelPool(
        source=make_cache(cache, flush_bytes=256 << 10, read_seconds=60.0),
        pod_name="ullage-default-0",
        ordinal=0,
        version="0",
        devices=[SmallHost(budget)],
    ) as running:
        yield running


def document(*models: DesiredModel) -> PoolDesired:
    settings = SETTINGS.model_copy(update={"memory_max_percent": 100, "memory_reserve_percent": 0})
    return PoolDesired(namespace="team", pool="default", models=models, settings=settings).sealed(1)


@pytest.mark.parametrize("ranges", [True, False])
async def test_what_can_never_fit_is_refused_before_it_is_fetched(
    tmp_path: Path, server: FileServer, data: bytes, *, ranges: bool
) -> None:
    server.files["/m.gguf"].ranges = ranges
    async with pool(tmp_path / "cache", BUDGET) as models:
        engine = EngineSettings(context_length=16_384)
        await models.apply(document(wanted(uri=server.url("/m.gguf"), engine=engine)))
        model = await until(models, lambda m: m.final)
        assert model.reason is Reason.WILL_NEVER_FIT
        assert not model.weights_ready
        # A socket's buffers hold some of what nobody has read.
        assert server.sent_bytes() < len(data) // 2
        with pytest.raises(InsufficientMemory) as refused:
            await answer(models)
        told = refused.value.details
        assert told["required"] > told["budget"] == BUDGET
        assert told["largest_component"] == "kv_cache"
        assert told["suggestions"]
        (decision,) = models.decisions()
        assert (decision.rule, decision.model) == (Rule.NEVER_FITS, "chat")
    assert not list((tmp_path / "cache" / "partial").iterdir())


async def test_the_estimate_of_a_header_is_that_of_the_file(
    tmp_path: Path, server: FileServer, data: bytes
) -> None:
    """Also where the connection breaks while the header comes."""
    server.faults.append(Fault(cut_after=1000))
    async with pool(tmp_path / "cache", 3 * BUDGET) as models:
        noting = Noting(models._around.loader)
        models._around.loader.foreseen = noting  # type: ignore[method-assign]
        engine = EngineSettings(context_length=512)
        await models.apply(document(wanted(uri=server.url("/m.gguf"), engine=engine)))
        model = await until(models, lambda m: m.final or m.reason is Reason.SERVING)
        assert model.reason is Reason.SERVING, model.message
        assert model.active is not None
        (estimate,) = noting.estimates
        assert noting.longest < len(data) // 2
        assert estimate.total == pytest.approx(model.active.estimated_bytes, rel=0.03)
        assert model.active.file_bytes == len(data)
        assert len(server.gets()) == 2
