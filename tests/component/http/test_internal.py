"""What operator and pod say to each other, on a port of its own."""

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.runtimes import eventually, settings_for
from tests.support.scripted_models import FakeModels, desired_model
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.app import Runtime, running, watch_desired_file


@contextlib.asynccontextmanager
async def internal(
    folder: pathlib.Path, models: FakeModels
) -> AsyncIterator[tuple[Runtime, httpx.AsyncClient]]:
    token = folder / "token"
    token.write_text("the-token\n")
    async with running(settings_for(folder, internal_token_file=token), models) as runtime:
        assert runtime.internal is not None
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{runtime.internal.port}",
            headers={"Authorization": "Bearer the-token"},
            timeout=20,
            trust_env=False,
        ) as client:
            yield runtime, client


def document(sequence: int, pool: str = "default", name: str = "chat") -> PoolDesired:
    return PoolDesired(namespace="default", pool=pool, models=(desired_model(name),)).sealed(
        sequence
    )


async def test_the_pools_token_is_needed(tmp_path: pathlib.Path) -> None:
    async with internal(tmp_path, FakeModels()) as (_, client):
        for wrong in ("", "Bearer other", "Bearer", "the-token2"):
            headers = {"Authorization": wrong}
            assert (await client.get("/internal/v1/report", headers=headers)).status_code == 401
            put = await client.put("/internal/v1/desired", headers=headers, json={})
            assert put.status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": ""})).status_code == 200
        assert (await client.get("/internal/v1/report")).status_code == 200
        (tmp_path / "token").write_text("rotated")
        assert (await client.get("/internal/v1/report")).status_code == 401


async def test_an_emptied_token_opens_no_door(tmp_path: pathlib.Path) -> None:
    async with internal(tmp_path, FakeModels()) as (_, client):
        (tmp_path / "token").write_text("")
        headers = {"Authorization": "Bearer"}
        assert (await client.get("/internal/v1/report", headers=headers)).status_code == 401


async def test_a_pushed_document_is_accepted_kept_and_acknowledged(tmp_path: pathlib.Path) -> None:
    models = FakeModels()
    pushed = document(7)
    async with internal(tmp_path, models) as (_, client):
        answer = await client.put("/internal/v1/desired", json=pushed.to_wire())
        assert answer.json() == {
            "accepted": True,
            "acknowledged": 7,
            "acknowledgedHash": pushed.hash,
        }
        older = await client.put("/internal/v1/desired", json=document(6, name="old").to_wire())
        assert older.json() == {
            "accepted": False,
            "acknowledged": 7,
            "acknowledgedHash": pushed.hash,
        }
        assert models.desired == pushed
        restarted = FakeModels()
        async with running(settings_for(tmp_path), restarted) as again:
            await again.documents.restore()
        assert restarted.desired == pushed


async def test_a_document_that_cannot_be_kept_is_in_effect_all_the_same(
    tmp_path: pathlib.Path,
) -> None:
    models = FakeModels()
    (tmp_path / "state").write_text("a file where the folder should be")
    async with internal(tmp_path, models) as (_, client):
        answer = await client.put("/internal/v1/desired", json=document(7).to_wire())
    assert answer.json()["accepted"] is True
    assert models.desired == document(7)


async def test_a_document_for_somebody_else_is_refused(tmp_path: pathlib.Path) -> None:
    async with internal(tmp_path, FakeModels()) as (_, client):
        answer = await client.put("/internal/v1/desired", json=document(1, pool="other").to_wire())
        assert answer.status_code == 400
        assert "cannot be meant for this pod" in answer.json()["error"]["message"]
        broken = await client.put("/internal/v1/desired", json={"namespace": 1})
        assert broken.status_code == 400
        assert broken.json()["error"]["param"] == "namespace"


async def test_a_report_with_unknown_fields_in_the_document_is_no_problem(
    tmp_path: pathlib.Path,
) -> None:
    wire = {**document(3).to_wire(), "somethingNew": {"a": 1}}
    async with internal(tmp_path, FakeModels()) as (_, client):
        assert (await client.put("/internal/v1/desired", json=wire)).json()["accepted"] is True


async def test_a_report_is_answered_when_something_has_changed(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with internal(tmp_path, models) as (_, client):
        report = (await client.get("/internal/v1/report")).json()
        asking = asyncio.create_task(
            client.get(
                "/internal/v1/report",
                params={"after": report["sequence"], "timeoutSeconds": 20},
            )
        )
        done, _ = await asyncio.wait({asking}, timeout=0.1)
        assert not done
        models.touch()
        assert (await asyncio.wait_for(asking, 5)).json()["sequence"] == report["sequence"] + 1


async def test_a_report_without_change_is_answered_at_the_timeout(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with internal(tmp_path, models) as (_, client):
        answer = await client.get(
            "/internal/v1/report", params={"after": 1, "timeoutSeconds": 0.05}
        )
        assert answer.json()["sequence"] == 1
        bad = await client.get("/internal/v1/report", params={"timeoutSeconds": 3600})
        assert bad.status_code == 400
        assert bad.json()["error"]["param"] == "timeoutSeconds"


async def test_an_ending_pod_answers_its_long_polls(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with internal(tmp_path, models) as (runtime, client):
        asking = asyncio.create_task(
            client.get("/internal/v1/report", params={"after": 1, "timeoutSeconds": 60})
        )
        await asyncio.wait({asking}, timeout=0.1)
        ending = asyncio.create_task(runtime.shut_down())
        assert (await asyncio.wait_for(asking, 5)).status_code == 503
        await ending


async def test_the_mounted_document_is_followed_through_swapped_links(
    tmp_path: pathlib.Path,
) -> None:
    volume = tmp_path / "volume"
    for number in (1, 2):
        (volume / f"v{number}").mkdir(parents=True)
        (volume / f"v{number}" / "desired.json").write_text(
            json.dumps(document(number, name=f"m{number}").to_wire())
        )
    (volume / "..data").symlink_to("v1")
    (volume / "desired.json").symlink_to("..data/desired.json")
    models = FakeModels()

    def held() -> list[str]:
        return [m.name for m in models.desired.models] if models.desired else []

    async with running(settings_for(tmp_path), models) as runtime:
        watcher = asyncio.create_task(
            watch_desired_file(volume / "desired.json", runtime.documents)
        )
        await eventually(lambda: held() == ["m1"])
        (volume / "new").symlink_to("v2")
        (volume / "new").rename(volume / "..data")
        await eventually(lambda: held() == ["m2"])
        (volume / "v2" / "desired.json").write_text("{broken")
        watcher.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watcher
