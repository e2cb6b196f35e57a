"""Who gets in, with how much, and from where: keys, body limits, CORS, probes and metrics."""

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.runtimes import served
from tests.support.scripted_models import FakeModels, desired_model
from ullage_runtime.http.auth import entry_line

CHAT = "/v1/chat/completions"
HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def keys(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "team-a").write_text(entry_line("key-a") + "\n")
    (folder / "team-b").write_text(entry_line("key-b", ("other",)))
    (folder / "broken").write_text("plain-text-key")
    return folder


async def test_a_key_is_needed_for_everything_but_probes(
    tmp_path: pathlib.Path, keys: pathlib.Path
) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            refused = await client.get(path)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for path in ("/livez", "/readyz"):
            assert (await client.get(path)).status_code == 200
        for wrong in ("key-c", "plain-text-key", "key-a2"):
            assert (await client.post(CHAT, json=HELLO, headers=bearer(wrong))).status_code == 401
        assert (await client.post(CHAT, json=HELLO, headers=bearer("key-a"))).status_code == 200
        assert (await client.get("/metrics", headers=bearer("key-a"))).status_code == 200


async def test_a_key_may_be_for_some_models_only(
    tmp_path: pathlib.Path, keys: pathlib.Path
) -> None:
    models = FakeModels([desired_model("chat"), desired_model("other", aliases=("alias",))])
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):
        client.headers.update(bearer("key-b"))
        refused = await client.post(CHAT, json=HELLO)
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "permission_denied"
        assert (await client.post(CHAT, json={**HELLO, "model": "alias"})).status_code == 200
        listed = (await client.get("/v1/models")).json()["data"]
        assert [m["id"] for m in listed] == ["other"]
        unknown = await client.post(CHAT, json={**HELLO, "model": "nobody"})
        assert unknown.status_code == 404
        assert "chat" not in unknown.json()["error"]["message"]


async def test_new_and_withdrawn_keys_take_effect_without_a_restart(
    tmp_path: pathlib.Path, keys: pathlib.Path
) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):
        assert (await client.get("/v1/models", headers=bearer("key-a"))).status_code == 200
        (keys / "team-a").unlink()
        (keys / "team-d").write_text(entry_line("key-d"))
        deadline = time.monotonic() + 10
        status = 0
        while status != 200 and time.monotonic() < deadline:
            status = (await client.get("/v1/models", headers=bearer("key-d"))).status_code
            await asyncio.sleep(0.05)
        assert status == 200
        assert (await client.get("/v1/models", headers=bearer("key-a"))).status_code == 401


async def test_a_missing_folder_of_keys_lets_nobody_in(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models, api_keys_dir=tmp_path / "none") as (_, client):
        assert (await client.get("/v1/models", headers=bearer("x"))).status_code == 401


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 1024):
        yield b"x" * 1024


@pytest.mark.parametrize("size", [4096, 2 << 20])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_above_the_limit_is_refused(
    tmp_path: pathlib.Path, *, size: int, chunked: bool
) -> None:
    async with served(tmp_path, FakeModels([desired_model("chat")]), max_body_bytes=2048) as (
        _,
        client,
    ):
        content = chunks(size) if chunked else b"x" * size
        response = await client.post(CHAT, content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"
        assert "2048" in response.json()["error"]["message"]
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_a_body_that_never_ends_is_refused_after_its_time(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models, body_seconds=0.2) as (runtime, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", runtime.public.port)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not arrive within 0.2 seconds" in answer


async def test_the_pools_limits_take_effect_with_a_new_document(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat")])
    async with served(tmp_path, models) as (_, client):
        assert (await client.post(CHAT, content=b"x" * 2048)).status_code == 400
        models.have(desired_model("chat"), settings={"maxBodyBytes": 1024})
        assert (await client.post(CHAT, content=b"x" * 2048)).status_code == 413


async def test_browsers_of_the_pools_origins_may_call(
    tmp_path: pathlib.Path, keys: pathlib.Path
) -> None:
    models = FakeModels([desired_model("chat")], settings={"corsOrigins": ["https://a.example"]})
    preflight = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with served(tmp_path, models, api_keys_dir=keys) as (_, client):
        allowed = await client.options(CHAT, headers=preflight)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in allowed.headers
        put = {**preflight, "Access-Control-Request-Method": "PUT"}
        assert (await client.options("/v1/collections/c/points", headers=put)).status_code == 200
        other = await client.options(CHAT, headers={**preflight, "Origin": "https://b.example"})
        assert other.status_code == 400
        # A refusal must be readable for the page that called.
        refused = await client.post(CHAT, json=HELLO, headers={"Origin": "https://a.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
        models.have(desired_model("chat"), settings={"corsOrigins": ["https://b.example"]})
        swapped = await client.options(CHAT, headers={**preflight, "Origin": "https://b.example"})
        assert swapped.status_code == 200


async def test_ready_means_that_a_document_was_read(tmp_path: pathlib.Path) -> None:
    models = FakeModels()
    async with served(tmp_path, models) as (runtime, client):
        assert (await client.get("/livez")).status_code == 200
        waiting = await client.get("/readyz")
        assert waiting.status_code == 503
        assert "desired document" in waiting.text
        models.have(desired_model("chat"))
        assert (await client.get("/readyz")).status_code == 200
        runtime.services.drain.leaving = True
        assert (await client.get("/readyz")).status_code == 503


async def test_metrics_count_requests_tokens_and_models(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, FakeModels([desired_model("chat")])) as (_, client):
        await client.post(CHAT, json=HELLO)
        await client.get("/elsewhere/" + "x" * 50)
        text = (await client.get("/metrics")).text
    assert (
        'ullage_http_requests_total{method="POST",route="/v1/chat/completions",status="200",'
        'surface="public"} 1.0'
    ) in text
    assert 'route="other",status="404"' in text
    assert "elsewhere" not in text
    assert 'ullage_tokens_total{kind="completion",model="chat"} 3.0' in text
    assert 'ullage_time_to_first_token_seconds_count{model="chat"} 1.0' in text
    assert 'ullage_inter_token_latency_seconds_count{model="chat"} 3.0' in text
    assert 'ullage_model_residency{model="chat",where="Disk"} 1.0' in text


async def test_every_metric_is_explained_and_no_other_is(tmp_path: pathlib.Path) -> None:
    async with served(tmp_path, None) as (_, client):
        text = (await client.get("/metrics")).text
    kinds = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE ullage")]
    # The client library adds the time at which each series began.
    told = sorted((name, kind) for name, kind in kinds if not name.endswith("_created"))
    page = (pathlib.Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `ullage")]
    assert sorted((row[1].strip(" `"), row[3].strip()) for row in rows) == told


async def test_models_are_listed_and_found_by_any_name(tmp_path: pathlib.Path) -> None:
    models = FakeModels([desired_model("chat", aliases=("org/chat:1",)), desired_model("b")])
    async with served(tmp_path, models) as (_, client):
        listed = (await client.get("/v1/models")).json()
        found = (await client.get("/v1/models/org/chat:1")).json()
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == ["b", "chat"]
    assert found["id"] == "chat"
    assert found["object"] == "model"
    assert found["owned_by"] == "ullage"
