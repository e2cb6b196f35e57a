from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.models.guide.corpus import CORPUS_FOLDER, Entry, read_corpus
from examples.models.guide.evaluation import Guide

FOLDER = CORPUS_FOLDER.parent


@pytest.fixture(scope="session")
def folder() -> Path:
    return FOLDER


@pytest.fixture(scope="session")
def corpus() -> tuple[Entry, ...]:
    return read_corpus()


@pytest.fixture(scope="session")
def guide_v1() -> Iterator[Guide]:
    guide = Guide(FOLDER / "guide-v1.gguf", every_logit=True)
    yield guide
    guide.close()


@pytest.fixture(scope="session")
def guide_v2() -> Iterator[Guide]:
    guide = Guide(FOLDER / "guide-v2.gguf", every_logit=True)
    yield guide
    guide.close()
