"""What tests of collections share."""

import pathlib

import pytest

from tests.support.collection_pods import write_models


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the models that pods with collections serve."""
    return write_models(tmp_path_factory.mktemp("files"))
