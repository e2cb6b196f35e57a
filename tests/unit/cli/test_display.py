"""What is shown of a model's state, and when it counts as settled."""

import io

import pytest
from rich.console import Console

from ullage_api.checks import problems
from ullage_api.conditions import Reason
from ullage_api.kinds.base import ObjectMeta
from ullage_api.kinds.model_deployment import ModelDeployment, ModelDeploymentSpec, Task
from ullage_api.kinds.model_source import ModelSource
from ullage_api.kinds.model_status import Residency
from ullage_api.wire.pod_report import PodReport, ReportedModel, ReportedRevision
from ullage_runtime.cli.display import ChangeLines, has_failed, is_settled, models_table
from ullage_runtime.cli.doctor import TYPICAL, verdict
from ullage_runtime.cli.hardware import Memory
from ullage_runtime.cli.private import name_for

GIB = 1 << 30


def report(*models: ReportedModel) -> PodReport:
    return PodReport(pod="p-0", ordinal=0, boot_id="b", sequence=1, models=models)


def shown(*models: ReportedModel) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(models_table(report(*models)))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


RESIDENT = ReportedModel(
    name="chat",
    residency=Residency.RESIDENT,
    reason=Reason.SERVING,
    active=ReportedRevision(
        revision="0a1b2c",
        uri="file:x",
        engine="LlamaCpp",
        device="CPU (zen4)",
        resident_bytes=3 * GIB,
        context_length=8192,
    ),
)
FETCHING = ReportedModel(
    name="chat",
    reason=Reason.FETCHING,
    fetched_bytes=GIB,
    fetch_total_bytes=4 * GIB,
)


def test_a_served_model_is_shown_with_memory_context_and_engine() -> None:
    text = shown(RESIDENT)
    for words in ("● Resident", "3.0 GiB", "8,192", "LlamaCpp · CPU (zen4)", "0a1b2c"):
        assert words in text


def test_a_fetch_is_shown_with_its_progress() -> None:
    assert "1.0 GiB of 4.0 GiB" in shown(FETCHING)


def test_trouble_is_shown_with_its_message_as_it_is() -> None:
    bad = ReportedModel(name="chat", reason=Reason.INVALID_MODEL, final=True, message="[a] b")
    text = shown(bad)
    assert "✗ InvalidModel" in text
    assert "chat: [a] b" in text


@pytest.mark.parametrize(
    ("model", "settled", "failed"),
    [
        (RESIDENT, True, False),
        (FETCHING, False, False),
        (ReportedModel(name="m", reason=Reason.SUSPENDED), True, False),
        (ReportedModel(name="m", reason=Reason.IDLE), True, False),
        (ReportedModel(name="m", reason=Reason.WARM, residency=Residency.WARM), True, False),
        (ReportedModel(name="m", reason=Reason.SERVING, residency=Residency.LOADING), False, False),
        (ReportedModel(name="m", reason=Reason.CHECKSUM_MISMATCH, final=True), True, True),
        (ReportedModel(name="m", reason=Reason.SOURCE_UNAVAILABLE), True, True),
    ],
)
def test_a_model_in_trouble_does_not_keep_the_others_waiting(
    model: ReportedModel, *, settled: bool, failed: bool
) -> None:
    assert is_settled(model) is settled
    assert has_failed(model) is failed


def test_each_change_is_one_line_and_said_once() -> None:
    lines = ChangeLines()
    assert len(lines.of(report(FETCHING))) == 1
    assert lines.of(report(FETCHING)) == []
    assert "Resident" in lines.of(report(RESIDENT))[0]
    assert "gone" in lines.of(report())[0]


@pytest.mark.parametrize(
    "uri",
    [
        "file:///models/Qwen2.5-7B-Instruct.Q4_K_M.gguf",
        "hf://owner/repo/7b.gguf@main",
        "https://host/a/b.gguf?download=true",
        "file:///m/" + "x" * 80 + ".gguf",
        "file:///m/---.gguf",
    ],
)
def test_a_file_gives_its_model_a_valid_name(uri: str) -> None:
    source = ModelSource(uri=uri)
    spec = ModelDeploymentSpec(pool="private", task=Task.CHAT, model=source)
    assert problems(ModelDeployment(metadata=ObjectMeta(name=name_for(source)), spec=spec)) == []


def test_what_fits_is_told_from_the_budget_and_from_what_is_free() -> None:
    memory = Memory("host", "memory", is_gpu=False, total=10, available=5, budget=9)
    assert [verdict(n, memory) for n in (5, 6, 10)] == ["yes", "not now", "no"]
    sizes = [model.bytes(q) for model in TYPICAL for q in ("Q4_K_M", "Q8_0")]
    assert sizes[0] < 2 * GIB
    assert 40 * GIB < sizes[-2] < 50 * GIB
