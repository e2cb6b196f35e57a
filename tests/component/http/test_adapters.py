"""Adapters through the door: found by name, listed beneath their model, and refused in words."""

import pathlib

from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from ullage_api.wire.pool_desired import DesiredAdapter, DesiredRevision
from ullage_runtime.http.auth import entry_line

CHAT = "/v1/chat/completions"


def models() -> FakeModels:
    target = DesiredRevision(
        uri="file:a.gguf",
        adapters=(
            DesiredAdapter(name="tone", uri="file:tone.gguf"),
            DesiredAdapter(name="v1.5", uri="file:style.gguf"),
        ),
    )
    return FakeModels(
        [
            desired_model("chat", aliases=("light", "org/x:1"), target=target),
            desired_model("plain", aliases=("light:tone",)),
        ]
    )


def asking(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}]}


async def test_the_part_after_the_colon_chooses_an_adapter(tmp_path: pathlib.Path) -> None:
    fake = models()
    async with served(tmp_path, fake) as (_, client):
        for name, adapter in [
            ("chat", ""),
            ("chat:tone", "tone"),
            ("light:v1.5", "v1.5"),
            ("org/x:1", ""),
            ("org/x:1:tone", "tone"),
        ]:
            answer = await client.post(CHAT, json=asking(name))
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == name
            assert fake.requests[-1].adapter == adapter
        prompt = {"model": "chat:tone", "prompt": "a"}
        assert (await client.post("/v1/completions", json=prompt)).status_code == 200
        assert fake.requests[-1].adapter == "tone"
        asked = {"model": "chat:v1.5", "input": "hello"}
        assert (await client.post("/v1/responses", json=asked)).status_code == 200
        assert fake.requests[-1].adapter == "v1.5"
        # A name that a model has means that model.
        await client.post(CHAT, json=asking("light:tone"))
        assert fake.requests[-1].adapter == ""


async def test_an_unknown_adapter_is_not_found_and_the_known_ones_are_named(
    tmp_path: pathlib.Path,
) -> None:
    async with served(tmp_path, models()) as (_, client):
        for name, words in [
            ("chat:other", "model 'chat' has no adapter 'other', its adapters are: tone, v1.5"),
            ("light:other", "no model 'light:other'; model 'chat' has no adapter 'other'"),
            ("plain:tone", "model 'plain' has no adapter 'tone', it has none"),
            ("chat:", "no model 'chat:'"),
            (":tone", "no model ':tone'"),
            ("other:tone", "no model 'other:tone'"),
        ]:
            refused = await client.post(CHAT, json=asking(name))
            assert refused.status_code == 404
            error = refused.json()["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert words in error["message"]


async def test_adapters_are_listed_beneath_their_model(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, models()) as (_, client):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(m["id"], m["parent"]) for m in listed] == [
            ("chat", None),
            ("chat:tone", "chat"),
            ("chat:v1.5", "chat"),
            ("plain", None),
        ]
        one = (await client.get("/v1/models/light:v1.5")).json()
        assert (one["id"], one["parent"]) == ("chat:v1.5", "chat")
        assert one["aliases"] == ["light:v1.5", "org/x:1:v1.5"]
        assert (await client.get("/v1/models/chat:other")).status_code == 404


async def test_a_key_for_a_model_is_a_key_for_its_adapters_and_for_no_others(
    tmp_path: pathlib.Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "mine").write_text(entry_line("mine", ("chat",)))
    (keys / "other").write_text(entry_line("other", ("plain",)))
    async with served(tmp_path, models(), api_keys_dir=keys) as (_, client):

        async def asked(key: str, name: str) -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {key}"}
            answer = await client.post(CHAT, json=asking(name), headers=headers)
            return answer.status_code, answer.text

        assert (await asked("mine", "chat:tone"))[0] == 200
        for name in ("chat:tone", "chat:other"):
            status, text = await asked("other", name)
            assert status == 403
            assert "v1.5" not in text, "what another team's model has is not told"
        status, text = await asked("other", "nobody:tone")
        assert status == 404
        assert "this key may use: plain" in text
