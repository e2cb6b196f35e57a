"""`ullage up`, `run` and `chat` as processes, with real (if senseless) weights."""

import json
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.encoder_models import write_encoder
from tests.support.gguf_models import write_model
from tests.support.processes import (
    PATIENCE,
    POD,
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
    wait_until_answers,
)
from tests.support.terminal import on_terminal

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    write_model(tmp_path / "tiny.gguf")
    (tmp_path / "m.yaml").write_text(manifest("tiny", "file:tiny.gguf"))
    return tmp_path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, pathlib.Path]]:
    folder = tmp_path_factory.mktemp("server")
    write_model(folder / "tiny.gguf")
    (folder / "m.yaml").write_text(manifest("tiny", "file:tiny.gguf", aliases=["light"]))
    port = free_port()
    command = ("up", "m.yaml", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Serving at")
        yield f"http://127.0.0.1:{port}", folder


def ullage(
    folder: pathlib.Path, *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ULLAGE, *arguments],
        env=environment(folder),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def names(url: str) -> list[str]:
    listed = httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).json()
    return [m["id"] for m in listed["data"]]


def test_what_a_server_keeps_is_shown_and_forgotten(server: tuple[str, pathlib.Path]) -> None:
    url, folder = server
    shown = ullage(folder, "cache", "stats", "--url", url)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [
        "CACHE",
        "embeddings",
        "answers",
        "searches",
    ]
    stats = json.loads(ullage(folder, "cache", "stats", "--url", url, "--json").stdout)
    assert [each["max"] for each in stats["caches"]] == [64 << 20, 32 << 20, 16 << 20]
    cleared = ullage(folder, "cache", "clear", "--url", url, "--model", "tiny")
    assert cleared.stdout == "forgot 0 answers, 0 B\n"
    wrong = ullage(folder, "cache", "clear", "--url", url, "--cache", "other")
    assert (wrong.returncode, "embeddings" in wrong.stderr) == (1, True)


def test_up_serves_a_manifest_follows_its_changes_and_ends_in_order(folder: pathlib.Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("up", "m.yaml", "--port", str(port), "--json")
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Serving at")
        assert process.popen.stdout is not None
        summary = json.loads(process.popen.stdout.readline())
        assert summary["url"] == f"{url}/v1"
        assert summary["models"][0]["residency"] == "Resident"
        answer = httpx.post(
            f"{url}/v1/chat/completions", json={"model": "tiny", **HELLO}, timeout=60
        )
        assert answer.status_code == 200
        assert any("curl" in line for line in process.errors)

        (folder / "m.yaml").write_text(
            manifest("tiny", "file:tiny.gguf") + "---\n" + manifest("second", "file:tiny.gguf")
        )
        process.wait_for_error_line("manifest read again")
        assert names(url) == ["second", "tiny"]

        (folder / "m.yaml").write_text(manifest("tiny", "file:tiny.gguf", taks="Chat"))
        process.wait_for_error_line("unknown field spec.taks; did you mean task?")
        process.wait_for_error_line("goes on")
        assert names(url) == ["second", "tiny"]
        assert process.end(signal.SIGINT) == 0
        assert "Traceback" not in "".join(process.errors)


def test_up_takes_documents_in_and_finds_them_again_after_a_restart(folder: pathlib.Path) -> None:
    write_encoder(folder / "encoder.gguf")
    collection = {
        "apiVersion": "ullage.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": "notes"},
        "spec": {"pool": "default", "embedding": {"modelDeployment": "embed"}},
    }
    embed = manifest("embed", "file:encoder.gguf", task="Embedding")
    (folder / "m.yaml").write_text(f"{embed}---\n{json.dumps(collection)}\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/collections/notes"
    command = ("up", "m.yaml", "--port", str(port))

    def post(path: str, body: object) -> dict[str, Any]:
        answer = httpx.post(f"{url}/{path}", json=body, timeout=120, trust_env=False)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_ready() -> None:
        deadline = time.monotonic() + PATIENCE
        while not httpx.get(url, timeout=60, trust_env=False).json().get("ready"):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    texts = {"fox": "the red fox jumped", "tank": "how the water tank burns", "blue": "blue memory"}
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Serving at")
        wait_ready()
        documents = [{"id": name, "text": text} for name, text in texts.items()]
        operation = post("documents?wait=true", {"documents": documents})
        assert (operation["status"], operation["done"]) == ("completed", 3)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Serving at")
        wait_ready()
        assert post("points/count", {}) == {"count": 3}
        for name, text in texts.items():
            best = post("search", {"query": text})["results"][0]
            assert (best["payload"]["document"], best["payload"]["text"]) == (name, text)
        assert process.end() == 0


def test_up_serves_what_lies_in_a_folder(folder: pathlib.Path) -> None:
    models = folder / "models"
    (models / "deep").mkdir(parents=True)
    write_model(models / "deep" / "Talk.gguf")
    write_encoder(models / "encoder.gguf")
    (models / "broken.gguf").write_bytes(b"GGUF but no model")
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = ("up", "--models-dir", "models", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("skipped: " + str(models / "broken.gguf"))
        process.wait_for_error_line("Serving at")
        listed = httpx.get(f"{url}/models", timeout=60).json()["data"]
        assert {m["id"]: m["task"] for m in listed} == {"encoder": "Embedding", "talk": "Chat"}
        chat = httpx.post(f"{url}/chat/completions", json={"model": "Talk", **HELLO}, timeout=60)
        vectors = httpx.post(
            f"{url}/embeddings", json={"model": "encoder", "input": "hello"}, timeout=60
        )
        assert (chat.status_code, vectors.status_code) == (200, 200)
        write_model(models / "new.gguf")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_error_line("manifest read again")
        names = {m["id"] for m in httpx.get(f"{url}/models", timeout=60).json()["data"]}
        assert names == {"encoder", "talk", "new"}
        assert process.end() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a manifest, or a folder of models with --models-dir"),
        (("--models-dir", "none"), "--models-dir"),
        (("--models-dir", "empty"), "no model in"),
    ],
)
def test_up_says_when_there_is_nothing_to_serve(
    folder: pathlib.Path, arguments: tuple[str, ...], words: str
) -> None:
    (folder / "empty").mkdir()
    done = ullage(folder, "up", *arguments)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_up_reads_again_when_told_to(folder: pathlib.Path) -> None:
    port = free_port()
    command = ("up", "m.yaml", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Serving at")
        process.popen.send_signal(signal.SIGHUP)
        process.wait_for_error_line("manifest read again")
        assert process.end() == 0


def test_a_bad_model_does_not_keep_a_good_one_from_serving(folder: pathlib.Path) -> None:
    (folder / "bad.gguf").write_bytes(b"GGUF but no model")
    (folder / "m.yaml").write_text(
        manifest("tiny", "file:tiny.gguf") + "---\n" + manifest("bad", "file:bad.gguf")
    )
    port = free_port()
    command = ("up", "m.yaml", "--port", str(port))
    with running_process(ULLAGE, environment(folder), *command, cwd=folder) as process:
        process.wait_for_error_line("Some models cannot be served")
        assert any("InvalidModel" in line for line in process.errors)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        good = httpx.post(url, json={"model": "tiny", **HELLO}, timeout=60)
        bad = httpx.post(url, json={"model": "bad", **HELLO}, timeout=60)
        assert good.status_code == 200
        assert bad.status_code == 503
        assert bad.json()["error"]["code"] == "model_unavailable"


def test_a_port_in_use_is_said_with_the_next_step(
    server: tuple[str, pathlib.Path], folder: pathlib.Path
) -> None:
    port = server[0].rpartition(":")[2]
    done = ullage(folder, "up", "m.yaml", "--port", port)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert f"--port {int(port) + 1}" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_asks_a_server_and_prints_nothing_but_the_answer(
    server: tuple[str, pathlib.Path],
) -> None:
    url, folder = server
    asked = ("run", "light", "--url", url, "-n", "4", "-t", "0")
    text = ullage(folder, *asked, "--prompt", "hello")
    piped = ullage(folder, *asked, stdin="hello\n")
    data = json.loads(ullage(folder, *asked, "--prompt", "hello", "--json").stdout)
    assert text.returncode == 0, text.stderr
    assert text.stdout == piped.stdout == data["text"] + "\n"
    assert text.stderr == ""
    assert data["usage"]["completion_tokens"] <= 4
    assert data["finishReason"] in {"length", "stop"}


def test_models_lists_what_a_server_has(server: tuple[str, pathlib.Path]) -> None:
    url, folder = server
    done = ullage(folder, "models", "--url", url + "/v1")
    assert done.stdout.split() == [
        "MODEL", "TASK", "RESIDENCY", "ALIASES", "tiny", "Chat", "Resident", "light",
    ]  # fmt: skip
    assert json.loads(ullage(folder, "models", "--url", url, "--json").stdout)[0]["id"] == "tiny"
    missing = ullage(folder, "run", "nobody", "--url", url, "--prompt", "x")
    assert missing.returncode == 1
    assert "there is no model 'nobody'" in missing.stderr


def test_run_takes_a_file_as_a_model(folder: pathlib.Path) -> None:
    by_path = ullage(folder, "run", "tiny.gguf", "-n", "4", "-t", "0", "--prompt", "hello")
    by_uri = ullage(
        folder, "run", f"file://{folder}/tiny.gguf", "-n", "4", "-t", "0", "--prompt", "hello"
    )
    assert by_path.returncode == 0, by_path.stderr
    assert by_path.stdout == by_uri.stdout != "\n"
    (folder / "bad.gguf").write_bytes(b"no model at all")
    bad = ullage(folder, "run", "bad.gguf", "--prompt", "hello")
    assert bad.returncode == 1
    assert "InvalidModel" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_chat_on_a_terminal_answers_stops_and_ends(server: tuple[str, pathlib.Path]) -> None:
    url, folder = server
    command = [*ULLAGE, "chat", "tiny", "--url", url, "-t", "0"]
    with on_terminal(command, environment(folder), folder) as terminal:
        terminal.wait_for("/exit ends")
        terminal.wait_for("> ")
        terminal.type("hello\n")
        # The model never ends by itself before its context is full: Ctrl-C does.
        time_out = time.monotonic() + 30
        before = len(terminal.text)
        while len(terminal.text) < before + 20 and time.monotonic() < time_out:
            terminal._read()
        terminal.type("\x03")
        terminal.wait_for("> ")
        terminal.type("/reset\n")
        terminal.wait_for("forgotten")
        terminal.type("/exit\n")
        assert terminal.wait_end() == 0
        assert "Traceback" not in terminal.text


def test_up_on_a_terminal_shows_a_table_and_ends_with_ctrl_c(folder: pathlib.Path) -> None:
    command = [*ULLAGE, "up", "m.yaml", "--port", str(free_port())]
    with on_terminal(command, environment(folder), folder) as terminal:
        terminal.wait_for("● Resident")
        terminal.wait_for("Serving at")
        terminal.wait_for("ullage run tiny")
        terminal.type("\x03")
        assert terminal.wait_end() == 0
        assert "Traceback" not in terminal.text


def test_without_colours_there_are_none(folder: pathlib.Path) -> None:
    env = {**environment(folder), "NO_COLOR": "1"}
    with on_terminal([*ULLAGE, "config"], env, folder) as terminal:
        assert terminal.wait_end() == 0
    assert "SETTING" in terminal.text
    assert "\x1b[3" not in terminal.raw


def test_a_pod_serves_its_mounted_document_and_ends_in_order(folder: pathlib.Path) -> None:
    document = {
        "namespace": "default",
        "pool": "default",
        "sequence": 1,
        "hash": "x",
        "settings": {"fileRoots": [str(folder)]},
        "models": [
            {
                "name": "tiny",
                "task": "Chat",
                "ordinals": [0],
                "target": {"uri": "file:tiny.gguf"},
            }
        ],
    }
    (folder / "desired.json").write_text(json.dumps(document))
    (folder / "token").write_text("secret-token")
    port, internal = free_port(), free_port()
    env = environment(
        folder,
        host="127.0.0.1",
        port=port,
        internal_host="127.0.0.1",
        internal_port=internal,
        internal_token_file=folder / "token",
        desired_file=folder / "desired.json",
        pod_name="ullage-default-0",
        log_format="json",
    )
    with running_process(POD, env, cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/readyz", process)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={"model": "tiny", **HELLO, "messages": [{"role": "user", "content": "PRIVATE"}]},
            timeout=60,
        )
        assert answer.status_code == 200
        report = httpx.get(
            f"http://127.0.0.1:{internal}/internal/v1/report",
            headers={"Authorization": "Bearer secret-token"},
            timeout=10,
        ).json()
        assert report["pod"] == "ullage-default-0"
        assert report["acknowledged"] == 1
        assert report["models"][0]["residency"] == "Resident"
        assert report["models"][0]["active"]["residentBytes"] > 0
        metrics = httpx.get(f"http://127.0.0.1:{internal}/metrics", timeout=10).text
        assert 'ullage_model_residency{model="tiny",where="Resident"} 1.0' in metrics
        assert "ullage_model_estimate_ratio_count 1.0" in metrics
        (ratio,) = [
            float(line.split()[1])
            for line in metrics.splitlines()
            if line.startswith("ullage_model_estimate_ratio_sum ")
        ]
        assert 0.5 < ratio < 1.5, "of a load that is mostly its process"
        assert process.end() == 0
    lines = [json.loads(line) for line in process.errors]
    assert {"serving", "request", "ended"} <= {line["event"] for line in lines}
    said = "".join(process.errors)
    assert "PRIVATE" not in said
    assert "secret-token" not in said


def test_a_pod_told_nonsense_says_so_in_one_line(folder: pathlib.Path) -> None:
    env = environment(folder, port="many")
    done = subprocess.run(POD, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: port (environment ULLAGE_PORT)")
