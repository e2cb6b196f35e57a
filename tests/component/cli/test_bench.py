"""`ullage bench` against a server on a real socket."""

import asyncio
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.processes import free_port
from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, Script, desired_model, fails_after, says
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_runtime.cli.commands import app
from ullage_runtime.core.domain import Chunk, GenerateRequest
from ullage_runtime.core.errors import EngineFailed


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("ULLAGE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


def counts(request: GenerateRequest) -> AsyncIterator[Chunk]:
    return says(*(f"{n} " for n in range(request.sampling.max_tokens or 4)))


def models(script: Script = counts, **limits: int) -> FakeModels:
    model = desired_model("chat", serving=ServingLimits.model_validate(limits))
    return FakeModels([model], {"chat": script})


async def bench(folder: pathlib.Path, asked: FakeModels, *options: str) -> Any:
    async with served(folder, asked) as (runtime, _):
        command = ["bench", "--url", runtime.url, "--model", "chat", *options]
        return await asyncio.to_thread(CliRunner().invoke, app, command)


async def test_loads_are_measured_one_after_the_other(tmp_path: pathlib.Path) -> None:
    asked = models()
    options = ("-c", "1,4", "-n", "8", "--output-tokens", "5", "--json", "--temperature", "0")
    result = await bench(tmp_path, asked, *options)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["model"], data["outputTokens"]) == ("chat", "5")
    for load, concurrency in zip(data["loads"], (1, 4), strict=True):
        assert (load["concurrency"], load["requests"], load["completed"]) == (concurrency, 8, 8)
        assert (load["outputTokens"], load["promptTokens"]) == (40, 40)
        assert 0 < load["firstTokenSeconds"]["p50"] <= load["firstTokenSeconds"]["p95"]
        assert load["interTokenSeconds"]["p99"] > 0
        assert load["tokensPerSecond"] > load["requestsPerSecond"] > 0
    prompts = [r.messages[0].content for r in asked.requests if r.messages]
    assert len(set(prompts)) == len(prompts) == 17
    assert {r.sampling.temperature for r in asked.requests} == {0}


async def test_a_table_is_for_people(tmp_path: pathlib.Path) -> None:
    result = await bench(tmp_path, models(), "--rate", "200", "-n", "10")
    assert result.exit_code == 0, result.stderr
    assert "TOKENS/S" in result.stdout
    assert "200/s" in result.stdout


async def test_failures_are_counted_by_their_code(tmp_path: pathlib.Path) -> None:
    asked = models(requestsPerMinute=3)
    result = await bench(tmp_path, asked, "-c", "1", "-n", "5", "--json")
    (load,) = json.loads(result.stdout)["loads"]
    assert (load["completed"], load["failures"]) == (2, {"429 rate_limit_exceeded": 3})


async def test_a_stream_that_breaks_is_a_failure_and_no_answer_at_all_is_an_error(
    tmp_path: pathlib.Path,
) -> None:
    asked = models(fails_after("One", error=EngineFailed("the engine died")))
    result = await bench(tmp_path, asked, "-c", "1", "-n", "2")
    assert result.exit_code == 1
    assert "2 of stream: engine_failed" in result.stdout
    assert "no request was answered" in result.stderr


async def test_prompts_may_come_from_a_file_and_go_to_completions(tmp_path: pathlib.Path) -> None:
    (tmp_path / "prompts.txt").write_text("Once upon\n\nIn the beginning\n")
    asked = models()
    options = ("--prompts", "prompts.txt", "--endpoint", "completions", "--warm-up", "0")
    result = await bench(tmp_path, asked, "-c", "1", "-n", "2", *options)
    assert result.exit_code == 0, result.stderr
    assert [r.prompt for r in asked.requests] == ["Once upon", "In the beginning"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--url", f"http://127.0.0.1:{free_port()}"], 1, "nothing answers"),
        (["--url", "nonsense"], 1, "nothing answers"),
        (["-c", "1", "--rate", "1"], 2, "exclude each other"),
        (["-c", "0"], 2, "no list of numbers above 0"),
        (["--rate", "inf"], 2, "no list of numbers above 0"),
        (["-c", "99999"], 2, "at most 4096"),
        (["--prompt-tokens", "many"], 2, "give 128, uniform"),
        (["--prompts", "none.txt"], 2, "no such file"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(options: list[str], status: int, words: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--model", "chat", *options])
    assert result.exit_code == status, result.stderr
    assert words in result.stderr.lower()
    assert "Traceback" not in result.stderr
