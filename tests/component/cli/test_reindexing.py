"""`ullage reindex` against a server that has real collections and real workers."""

import asyncio
import json
import pathlib

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.component.http.test_reindexes import (
    BOTH,
    WIDE,
    behind_its_spec,
    filled,
    reached,
    wanted,
)
from tests.support.collection_pods import document, notes, pod, ready
from tests.support.encoder_models import Encoder, write_encoder
from ullage_runtime.cli.commands import app


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.delenv("ULLAGE_URL", raising=False)
    folder = tmp_path / "files"
    folder.mkdir()
    write_encoder(folder / "encoder.gguf", Encoder(width=64))
    write_encoder(folder / "other.gguf", Encoder(width=WIDE, seed=11))
    return folder


async def ullage(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["reindex", *arguments])


async def done(url: str, *arguments: str) -> str:
    found = await ullage(*arguments, "--url", url)
    assert found.exit_code == 0, found.output
    return found.stdout


async def model_of(client: httpx.AsyncClient) -> str:
    return str((await client.get("/v1/collections/notes")).json()["model"])


async def test_a_job_is_begun_followed_approved_and_undone(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, BOTH, notes())) as (runtime, client):
        await ready(client)
        await filled(client, 60)
        assert (await ullage("status", "--url", runtime.url)).stderr == "no reindex jobs\n"
        await wanted(runtime, files, 2, embedding={"modelDeployment": "other"})
        said = await done(runtime.url, "start", "notes", "--cutover", "Manual", "--follow")
        assert said.startswith("notes-1: ReadyToSwitch (Reembed: ")
        assert "60 of 60 (100%)" in said
        assert "WaitingForApproval" in said
        assert await model_of(client) == "encoder"
        await done(runtime.url, "approve", "notes-1")
        await reached(client, "Soaking", name="notes-1")
        assert await model_of(client) == "other"
        row = (await done(runtime.url, "status")).splitlines()[1].split()
        assert row[:5] == ["notes-1", "notes", "Reembed", "Soaking", "100%"]
        await done(runtime.url, "rollback", "notes-1")
        await reached(client, "Cancelled", name="notes-1")
        assert await model_of(client) == "encoder"


async def test_a_job_is_paused_sped_up_and_given_up(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with behind_its_spec(tmp_path, files, 60) as (runtime, client):
        slow = ("--cutover", "Manual", "--points-per-second", "1")
        await done(runtime.url, "start", "notes", "--name", "slow", *slow)
        await done(runtime.url, "pause", "slow")
        await reached(client, "Paused", name="slow")
        changed = await done(runtime.url, "change", "slow", "--points-per-second", "1000", "--json")
        assert json.loads(changed)["phase"] == "Paused"
        await done(runtime.url, "resume", "slow")
        await reached(client, "ReadyToSwitch", name="slow")
        await done(runtime.url, "cancel", "slow")
        await reached(client, "Cancelled", name="slow")
        assert await model_of(client) == "encoder"


async def test_a_job_that_is_not_there_is_named_with_those_that_are(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    async with pod(tmp_path, document(files, BOTH, notes())) as (runtime, client):
        await ready(client)
        unknown = await ullage("pause", "nope", "--url", runtime.url)
        assert unknown.exit_code == 1
        assert "there is no reindex job 'nope'; there are: none" in unknown.stderr
