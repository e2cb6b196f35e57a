"""One pod for all suites, with models that answer, and the exemptions of `applicability.py`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.applicability import How, Suite, exemptions
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.obliging_model import write_obliging_model
from tests.support.pods import Pod, running_pod, wait_until_serving
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import Task
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pool_desired import DesiredModel, DesiredRevision

EXAMPLES = Path(__file__).parents[2] / "examples" / "models"
CHAT = "guide"
OBLIGING = "obliging"
PROSE = "prose"
LIMITED = "limited"
VECTORS = "vectors"
RANKING = "ranking"
ALIAS = "example/guide:latest"


def _model(name: str, task: Task, file: str, *aliases: str, **limits: int) -> DesiredModel:
    return DesiredModel(
        name=name,
        task=task,
        ordinals=(0,),
        aliases=aliases,
        target=DesiredRevision(
            uri=f"file:{file}",
            engine=EngineSettings(threads=1),
            task=task if task in {Task.EMBEDDING, Task.RERANK} else None,
        ),
        serving=ServingLimits.model_validate(limits),
    )


MODELS = (
    _model(CHAT, Task.CHAT, "guide-v1.gguf", ALIAS),
    _model(OBLIGING, Task.CHAT, "obliging.gguf"),
    _model(PROSE, Task.COMPLETION, "guide-v2.gguf"),
    _model(VECTORS, Task.EMBEDDING, "guide-v1.gguf"),
    _model(RANKING, Task.RERANK, "ranking.gguf"),
    _model(LIMITED, Task.CHAT, "guide-v2.gguf", requests_per_minute=1),
)


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders in which the files of all models lie."""
    folder = tmp_path_factory.mktemp("models")
    write_obliging_model(folder / "obliging.gguf")
    write_encoder(folder / "ranking.gguf", Encoder(has_head=True))
    return [EXAMPLES, folder]


@pytest.fixture(scope="session")
def pod(tmp_path_factory: pytest.TempPathFactory, roots: list[Path]) -> Iterator[Pod]:
    with running_pod(tmp_path_factory.mktemp("pod"), roots, MODELS, narrow=PROSE) as pod:
        wait_until_serving(pod)
        yield pod


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply, and mark what must fail."""
    left_out = []
    for item in items:
        suite = getattr(getattr(item, "cls", None), "suite", None)
        if not isinstance(suite, Suite):
            continue
        exemption = exemptions(suite).get(getattr(item, "originalname", item.name))
        if exemption is None:
            continue
        if exemption.how is How.NOT_RUN:
            left_out.append(item)
        else:
            item.add_marker(pytest.mark.xfail(reason=exemption.reason, strict=True))
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
