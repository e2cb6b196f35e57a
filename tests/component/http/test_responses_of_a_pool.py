"""A conversation is found whichever pod of the pool is asked."""

import contextlib
import pathlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from ullage_api.wire.pool_desired import Peer
from ullage_runtime.app import Runtime
from ullage_runtime.http.auth import entry_line

PATH = "/v1/responses"
KEY = {"Authorization": "Bearer key-a"}
OTHER = {"Authorization": "Bearer key-b"}


@dataclass
class Pod:
    models: FakeModels
    runtime: Runtime
    client: httpx.AsyncClient

    async def ask(self, text: str, **more: Any) -> dict[str, Any]:
        answer = await self.client.post(PATH, json={"model": "chat", "input": text, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextlib.asynccontextmanager
async def pool(folder: pathlib.Path, count: int) -> AsyncIterator[list[Pod]]:
    """Serve some pods that know each other; which of them hold the model is for `place` to say."""
    keys = folder / "keys"
    keys.mkdir()
    for tenant in ("a", "b"):
        (keys / tenant).write_text(entry_line(f"key-{tenant}"))
    async with contextlib.AsyncExitStack() as stack:
        pods = []
        for ordinal in range(count):
            models = FakeModels(ordinal=ordinal)
            runtime, client = await stack.enter_async_context(
                served(
                    folder / str(ordinal),
                    models,
                    pod_name=f"ullage-default-{ordinal}",
                    api_keys_dir=keys,
                )
            )
            client.headers.update(KEY)
            pods.append(Pod(models, runtime, client))
        yield pods


def place(pods: list[Pod], *ordinals: int) -> None:
    peers = [Peer(ordinal=n, url=pod.runtime.url) for n, pod in enumerate(pods)]
    for pod in pods:
        pod.models.have(desired_model("chat", ordinals=ordinals), peers=peers)


def asked(pod: Pod) -> list[list[str]]:
    return [[m.content for m in request.messages or ()] for request in pod.models.requests]


async def test_a_follow_up_goes_to_the_pod_that_has_the_conversation(
    tmp_path: pathlib.Path,
) -> None:
    async with pool(tmp_path, 3) as pods:
        place(pods, 0, 1, 2)
        first = await pods[1].ask("hello")
        second = await pods[2].ask("again", previous_response_id=first["id"])
        await pods[0].ask("more", previous_response_id=second["id"])
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        await pods[2].ask([reference, {"role": "user", "content": "why?"}])  # type: ignore[arg-type]
        assert [len(pod.models.requests) for pod in pods] == [0, 4, 0]
        assert asked(pods[1])[2][-1] == "more"
        assert len(asked(pods[1])[2]) == 5


async def test_a_pod_without_the_model_finds_the_one_that_has_the_conversation(
    tmp_path: pathlib.Path,
) -> None:
    async with pool(tmp_path, 3) as pods:
        place(pods, 1, 2)
        for keeping in (1, 2):
            first = await pods[keeping].ask("hello")
            for _ in range(3):
                await pods[0].ask("again", previous_response_id=first["id"])
        assert [len(pod.models.requests) for pod in pods] == [0, 4, 4]


async def test_a_conversation_moves_with_the_model(tmp_path: pathlib.Path) -> None:
    async with pool(tmp_path, 3) as pods:
        place(pods, 0)
        items = [{"role": "user", "content": str(n)} for n in range(230)]
        first = await pods[0].ask(items)  # type: ignore[arg-type]
        place(pods, 1)
        second = await pods[1].ask("here", previous_response_id=first["id"])
        third = await pods[2].ask("there", previous_response_id=second["id"])
        assert len(asked(pods[0])) == 1
        assert asked(pods[1])[0] == [*map(str, range(230)), "You said: 229", "here"]
        assert len(asked(pods[1])[1]) == 234
        place(pods, 1, 2)
        fourth = await pods[2].ask("more", previous_response_id=third["id"])
        assert len(asked(pods[1])[2]) == 236
        for pod in pods:
            assert (await pod.client.get(f"{PATH}/{fourth['id']}")).json() == fourth


async def test_stored_responses_are_found_and_deleted_from_any_pod(
    tmp_path: pathlib.Path,
) -> None:
    async with pool(tmp_path, 2) as pods:
        place(pods, 0, 1)
        first = await pods[0].ask("hello")
        path = f"{PATH}/{first['id']}"
        away = pods[1].client
        assert (await away.get(path)).json() == first
        items = await away.get(f"{path}/input_items?order=asc&limit=1")
        assert items.json()["data"][0]["content"][0]["text"] == "hello"
        assert (await away.post(f"{path}/cancel")).status_code == 400
        for stranger in (
            await away.get(path, headers=OTHER),
            await away.delete(path, headers=OTHER),
            await away.get(f"{path}/input_items", headers=OTHER),
        ):
            assert stranger.status_code == 404
        assert (await away.delete(path)).json()["deleted"] is True
        assert (await pods[0].client.get(path)).status_code == 404


async def test_another_keys_conversation_is_not_fetched_either(tmp_path: pathlib.Path) -> None:
    async with pool(tmp_path, 2) as pods:
        place(pods, 0)
        first = await pods[0].ask("hello")
        place(pods, 1)
        body = {"model": "chat", "input": "x", "previous_response_id": first["id"]}
        refused = await pods[1].client.post(PATH, json=body, headers=OTHER)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "previous_response_not_found"
        assert pods[1].models.requests == []


async def test_a_conversation_whose_pod_cannot_be_reached_is_a_503(
    tmp_path: pathlib.Path,
) -> None:
    async with pool(tmp_path, 2) as pods:
        place(pods, 0)
        first = await pods[0].ask("hello")
        place(pods, 1)
        await pods[0].runtime.public.stop()
        body = {"model": "chat", "input": "x", "previous_response_id": first["id"]}
        for refused in (
            await pods[1].client.post(PATH, json=body),
            await pods[1].client.get(f"{PATH}/{first['id']}"),
        ):
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "peer_unavailable"
