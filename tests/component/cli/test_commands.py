"""The `ullage` command, run as typer runs it."""

import hashlib
import json
import pathlib
import re

import pytest
from typer.testing import CliRunner

from ullage_runtime.cli.commands import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in ("HOST", "PORT", "MODEL_CACHE_DIR", "MAX_CONCURRENT_REQUESTS", "ULLAGE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ULLAGE_MODEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_the_configuration_shows_each_values_origin_and_masks_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "ullage.toml").write_text("drain_seconds = 5\n")
    monkeypatch.setenv("ULLAGE_API_KEY", "hunter2")
    text = runner.invoke(app, ["config"]).stdout
    assert re.search(r"drain_seconds +5\.0 +.*ullage\.toml", text)
    assert re.search(r"api_key +\*+ +environment ULLAGE_API_KEY", text)
    data = json.loads(runner.invoke(app, ["config", "--json"]).stdout)
    assert data["port"] == {"value": 8080, "origin": "default"}
    assert "hunter2" not in text + json.dumps(data)


def test_a_setting_that_cannot_be_used_is_one_line_and_status_2(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ullage.toml").write_text("prot = 5\n")
    result = runner.invoke(app, ["config"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "unknown setting 'prot'; did you mean 'port'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_misspelt_environment_variable_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULLAGE_PROT", "1")
    result = runner.invoke(app, ["config"])
    assert "ULLAGE_PROT (did you mean ULLAGE_PORT?)" in result.stderr


def test_a_new_key_is_printed_with_the_line_that_lets_it_in() -> None:
    result = runner.invoke(app, ["keys", "new", "team-a", "--model", "chat"])
    key, line = result.stdout.split("\n")[:2]
    assert line == f"sha256:{hashlib.sha256(key.encode()).hexdigest()} models=chat"
    data = json.loads(runner.invoke(app, ["keys", "new", "team-a", "--json"]).stdout)
    assert data["key"] != key
    assert data["entry"] == f"sha256:{hashlib.sha256(data['key'].encode()).hexdigest()}"
    assert runner.invoke(app, ["keys", "new", "team/a"]).exit_code == 2


def test_versions_are_told() -> None:
    assert runner.invoke(app, ["version"]).stdout.startswith("ullage ")
    assert "llama-cpp-python" in json.loads(runner.invoke(app, ["version", "--json"]).stdout)


@pytest.mark.parametrize(
    "command",
    [["models"], ["run", "chat", "--prompt", "x"], ["chat", "chat"], ["cache", "stats"]],
)
def test_a_server_that_is_not_there_is_one_line_with_what_to_do(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--url", "http://127.0.0.1:9"], input="hello\n/exit\n")
    assert "nothing answers at http://127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["run", "./none.gguf", "--prompt", "x"], 1, "there is no file ./none.gguf"),
        (["run", "chat"], 2, "standard input is empty"),
        (["up", "none.yaml"], 2, "none.yaml: no such file or directory"),
        (["up"], 2, "nothing to serve"),
        (["fly"], 2, "No such command"),
        (["run", "chat", "--temperature", "9"], 2, "temperature"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(command: list[str], status: int, words: str) -> None:
    result = runner.invoke(app, command)
    assert result.exit_code == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_doctor_says_what_the_machine_has_and_what_fits() -> None:
    data = json.loads(runner.invoke(app, ["doctor", "--json"]).stdout)
    assert data["engine"]["works"] is True
    assert data["engine"]["variant"]
    assert data["quota"] >= 1
    assert {row["model"] for row in data["fits"]} == {"1B", "3B", "7-8B", "13-14B", "70B"}
    text = runner.invoke(app, ["doctor"]).stdout
    assert "WOULD IT FIT?" in text
