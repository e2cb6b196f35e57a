"""A file server and a cache for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.file_server import FileServer, file_server
from tests.support.model_sources import make_cache
from ullage_runtime.models.sources import ModelCache


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return make_cache(tmp_path / "cache")
