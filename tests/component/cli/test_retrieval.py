"""`ullage ingest`, `search` and `collections` against a server whose collections are real."""

import asyncio
import json
import pathlib

import pytest
from typer.testing import CliRunner, Result

from tests.support.collection_pods import MODELS, document, notes, pod, ready
from tests.support.encoder_models import Encoder, write_encoder
from tests.support.pdf_files import locked, pdf
from ullage_runtime.cli.commands import app
from ullage_runtime.cli.reading import BATCH_DOCUMENTS, Source, batches


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.delenv("ULLAGE_URL", raising=False)
    folder = tmp_path / "files"
    folder.mkdir()
    write_encoder(folder / "encoder.gguf", Encoder(width=64))
    monkeypatch.chdir(tmp_path)
    return folder


async def ullage(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def test_a_folder_is_taken_in_found_and_left_alone_the_second_time(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    texts = tmp_path / "texts"
    (texts / ".git").mkdir(parents=True)
    (texts / ".git" / "config.txt").write_text("hidden")
    (texts / "fox.txt").write_text("the red fox jumped")
    (texts / "tank.md").write_text("# Tank\n\nhow the water tank model")
    (texts / "picture.png").write_bytes(bytes(range(256)))
    (texts / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    lines = [
        {"id": "a", "text": "blue memory of fire", "metadata": {"shelf": 3}},
        {"id": "b", "text": "green memory of water"},
    ]
    (texts / "more.jsonl").write_text("\n".join(json.dumps(each) for each in lines))
    (texts / "page.html").write_text("<script>alert(1)</script><p>how the page <b>burns</b></p>")
    (texts / "paper.pdf").write_bytes(pdf("the water level"))
    (texts / "locked.pdf").write_bytes(locked(pdf("secret"), "key"))
    async with pod(tmp_path, document(files, MODELS, notes())) as (runtime, client):
        await ready(client)
        url = ("--url", runtime.url)
        first = await ullage("ingest", "texts", *url, "--json")
        assert first.exit_code == 1, first.output
        told = json.loads(first.stdout)
        assert (told["done"], told["failed"], told["unchanged"]) == (6, 1, 0)
        assert told["errors"] == {
            "texts/latin.txt": "it is no text in UTF-8",
            "texts/locked.pdf": "document 'texts/locked.pdf': it is protected by a password; save "
            "it without one",
        }
        (texts / "latin.txt").unlink()
        (texts / "locked.pdf").unlink()

        again = await ullage("ingest", "texts", "--collection", "notes", *url)
        assert again.exit_code == 0, again.output
        assert "6 were there already" in again.stdout

        found = await ullage("search", "fox", "--mode", "sparse", *url)
        assert found.exit_code == 0, found.output
        assert found.stdout.startswith("1. texts/fox.txt")
        assert "the red fox jumped" in found.stdout
        asked = await ullage("search", "fire", "-m", "sparse", "-n", "1", *url, "--json")
        (hit,) = json.loads(asked.stdout)["results"]
        assert (hit["payload"]["document"], hit["payload"]["shelf"]) == ("a", 3)

        listed = await ullage("collections", *url)
        assert listed.stdout.splitlines()[1].split()[:5] == ["notes", "encoder", "6", "6", "yes"]


async def test_what_cannot_be_meant_is_said(tmp_path: pathlib.Path, files: pathlib.Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "text": "x"}')
    (tmp_path / "empty").mkdir()
    wrong = await ullage("ingest", "bad.jsonl")
    assert wrong.exit_code == 1
    assert "bad.jsonl:1: a line must be an object" in wrong.stderr
    nowhere = await ullage("ingest", "nowhere")
    assert nowhere.exit_code == 2
    assert "there is no such file or folder" in nowhere.stderr
    nothing = await ullage("ingest", "empty")
    assert "there is no text to take in" in nothing.stderr
    two = notes().model_copy(update={"name": "other"})
    async with pod(tmp_path, document(files, MODELS, notes(), two)) as (runtime, _):
        unclear = await ullage("search", "x", "--url", runtime.url)
        assert unclear.exit_code == 1
        assert "there are: notes, other" in unclear.stderr
        unknown = await ullage("search", "x", "-c", "none", "--url", runtime.url)
        assert "there is no collection 'none'; there are: notes, other" in unknown.stderr


def test_requests_are_of_moderate_size() -> None:
    many = [Source(str(n), "x") for n in range(BATCH_DOCUMENTS + 1)]
    assert [len(batch) for batch in batches(many)] == [BATCH_DOCUMENTS, 1]
    large = [Source("a", "x"), Source("b", "x" * (2 << 20)), Source("c", "x")]
    assert [[s.id for s in batch] for batch in batches(large)] == [["a"], ["b"], ["c"]]
