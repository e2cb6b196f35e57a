"""The live view of a pod, over a WebSocket."""

import asyncio
import json
import pathlib
import statistics
import time
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.fake_models import MIB, World, answer, until, wanted
from tests.support.runtimes import eventually, served, settings_for
from tests.support.scripted_models import FakeModels, desired_model
from tests.support.viewers import Viewer, viewing
from ullage_api.conditions import Reason
from ullage_runtime.app import Runtime, running
from ullage_runtime.core.domain import Footprint
from ullage_runtime.http import viewers as listening
from ullage_runtime.http.auth import entry_line
from ullage_runtime.http.status import service
from ullage_runtime.models.pool import ModelPool

PROMISED_SECONDS = 0.05
BUSY = 3
"""How many times as long the usual change may take where other tests run at the same time."""


@pytest.fixture
def world() -> World:
    world = World()
    world.engines.load_seconds = world.engines.step_seconds = 0.01
    return world


@pytest.fixture
async def pool(world: World) -> AsyncIterator[ModelPool]:
    async with world.pool() as pool:
        await pool.apply(world.document(wanted(), wanted("other", "file:o")))
        for name in ("chat", "other"):
            await until(pool, lambda m: m.reason is Reason.SERVING, name)
        yield pool


@pytest.fixture
async def runtime(pool: ModelPool, tmp_path: pathlib.Path) -> AsyncIterator[Runtime]:
    async with served(tmp_path, pool) as (runtime, _):
        yield runtime


async def test_a_viewer_is_told_what_is_so_as_the_paths_of_memory_tell_it(
    pool: ModelPool, tmp_path: pathlib.Path
) -> None:
    async with served(tmp_path, pool) as (runtime, client), viewing(runtime) as viewer:
        first = await viewer.next()
        assert first["object"] == "status.state"
        assert (first["pod"], first["level"]) == ("ullage-default-0", "Low")
        assert first["devices"] == (await client.get("/memory/stats")).json()["devices"]
        assert first["models"] == (await client.get("/memory/models")).json()["data"]
        assert first["decisions"] == first["gone"] == []


async def test_a_change_is_told_at_once_and_of_a_model_only_what_changed(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    async with viewing(runtime) as viewer:
        await viewer.next()
        await pool.apply(world.document(wanted(suspended=True), wanted("other", "file:o")))
        message = await viewer.next()
        assert message["object"] == "status.changes"
        (changed,) = message["models"]
        assert changed["id"] == "chat"
        assert "generated_tokens" not in changed
        await viewer.until(lambda: viewer.models["chat"]["reason"] == "Suspended")
        await pool.apply(world.document(wanted("other", "file:o"), wanted("third", "file:t")))
        await viewer.until(lambda: viewer.models.get("third", {}).get("reason") == "Serving")
        assert sorted(viewer.models) == ["other", "third"]


async def test_a_change_is_told_within_fifty_milliseconds(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    took: list[float] = []

    def is_suspended() -> bool:
        return bool(viewer.models["chat"]["reason"] == "Suspended")

    async with viewing(runtime) as viewer:
        await viewer.next()
        for _ in range(20):
            began = time.monotonic()
            await pool.apply(world.document(wanted(suspended=True), wanted("other", "file:o")))
            await viewer.until(is_suspended)
            took.append(time.monotonic() - began)
            await pool.apply(world.document(wanted(), wanted("other", "file:o")))
            await viewer.until(lambda: viewer.models["chat"]["reason"] == "Serving")
    assert min(took) < PROMISED_SECONDS
    assert statistics.median(took) < BUSY * PROMISED_SECONDS, sorted(took)


async def test_numbers_that_move_are_told_without_a_change_of_the_report(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    world.engines.step_seconds = 0.2
    async with viewing(runtime) as viewer:
        first = await viewer.next()
        asking = asyncio.create_task(answer(pool))
        message = await viewer.until(lambda: viewer.models["chat"]["requests_running"] == 1)
        assert message["cursor"] == first["cursor"]
        assert {"id": "chat", "requests_running": 1} in message["models"]
        await asking
        await viewer.until(lambda: viewer.models["chat"]["requests_running"] == 0)


async def test_evictions_are_told_with_rule_and_for_whom(
    world: World, tmp_path: pathlib.Path
) -> None:
    world.device.size = 150 * MIB
    async with world.pool() as pool:
        await pool.apply(world.document(wanted()))
        await until(pool, lambda m: m.reason is Reason.SERVING)
        async with served(tmp_path, pool) as (runtime, _), viewing(runtime) as viewer:
            await viewer.next()
            await pool.apply(world.document(wanted(), wanted("other", "file:o")))
            await viewer.until(lambda: bool(viewer.decisions))
            (decision,) = viewer.decisions
            assert (decision["model"], decision["for"], decision["rule"]) == (
                ("chat", "other", "Demand")
            )
            await viewer.until(lambda: viewer.models["other"]["reason"] == "Serving")
            assert viewer.models["chat"]["residency"] == "Disk"
        async with served(tmp_path, pool) as (runtime, _), viewing(runtime) as another:
            assert [d["id"] for d in (await another.next())["decisions"]] == [decision["id"]]


async def test_who_comes_back_with_a_cursor_is_told_what_changed_meanwhile(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    world.engines.footprints["file:huge"] = Footprint(weights=2000 * MIB)
    async with viewing(runtime) as viewer:
        await viewer.next()
        cursor = viewer.cursor
    async with viewing(runtime, after=cursor) as again:
        message = await again.next()
        assert (message["object"], message["cursor"]) == ("status.changes", cursor)
        numbers = {"requests_running": 0, "requests_waiting": 0, "generated_tokens": 0}
        assert message["models"] == [{"id": "chat"} | numbers, {"id": "other"} | numbers]
    await pool.apply(world.document(wanted(), wanted("huge", "file:huge", uid="u2")))
    await until(pool, lambda m: m.final, "huge")
    async with viewing(runtime, after=cursor) as again:
        message = await again.next()
        assert message["gone"] == ["other"]
        assert message["models"][0] == {"id": "chat"} | numbers
        assert message["models"][1]["reason"] == "WillNeverFit"
        assert [d["rule"] for d in message["decisions"]] == ["NeverFits"]


@pytest.mark.parametrize("cursor", ["boot.99999.0", "anotherboot.1.0"])
async def test_who_comes_back_to_another_process_is_told_everything(
    runtime: Runtime, cursor: str
) -> None:
    async with viewing(runtime, after=cursor) as viewer:
        assert (await viewer.next())["object"] == "status.state"


@pytest.mark.parametrize("cursor", ["1", "boot.x.1", "boot.-1.1", "boot.1." + "9" * 30])
async def test_what_is_no_cursor_is_refused_with_the_apis_error(
    runtime: Runtime, cursor: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with viewing(runtime, after=cursor):
            pass
    answer = refused.value.response
    assert answer.status_code == 400
    assert answer.headers["X-Request-Id"]
    assert json.loads(answer.body or b"")["error"]["param"] == "after"


async def test_a_silent_pod_says_that_it_is_there(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HEARTBEAT_SECONDS", 0.0)
    async with viewing(runtime) as viewer:
        await viewer.next()
        message = await viewer.until(lambda: True)
        while message["object"] != "status.heartbeat":
            message = await viewer.next()
        assert message["devices"] == message["models"] == message["decisions"] == []


async def test_a_key_is_needed_and_shows_its_own_models_only(
    pool: ModelPool, world: World, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "all").write_text(entry_line("key-all"))
    (keys / "some").write_text(entry_line("key-some", ("chat",)))
    async with served(tmp_path, pool, api_keys_dir=keys) as (runtime, _):
        for wrong in ("", "nobody"):
            with pytest.raises(InvalidStatus) as refused:
                async with viewing(runtime, key=wrong):
                    pass
            assert refused.value.response.status_code == 401
            assert b"API key" in (refused.value.response.body or b"")
        assert not [r for r in caplog.records if r.levelname == "ERROR"]
        async with (
            viewing(runtime, key="key-all") as whole,
            viewing(runtime, key="key-some") as some,
        ):
            assert len((await whole.next())["models"]) == 2
            assert [m["id"] for m in (await some.next())["models"]] == ["chat"]
            await pool.apply(world.document(wanted(suspended=True)))
            await whole.until(lambda: "other" not in whole.models)
            message = await some.until(lambda: some.models["chat"]["reason"] == "Suspended")
            assert "other" not in json.dumps(message)


async def test_the_operators_port_has_it_too_for_who_has_the_token(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("secret")
    settings = settings_for(tmp_path, internal_token_file=tmp_path / "token")
    async with running(settings, FakeModels([desired_model("chat")])) as runtime:
        assert runtime.internal is not None
        url = f"ws://127.0.0.1:{runtime.internal.port}/ws/status"
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(url, proxy=None):
                pass
        headers = {"Authorization": "Bearer secret"}
        async with connect(url, additional_headers=headers, proxy=None) as connection:
            assert [m["id"] for m in json.loads(await connection.recv())["models"]] == ["chat"]


async def test_pages_of_other_origins_may_not_look(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    document = world.document(wanted())
    settings = document.settings.model_copy(update={"cors_origins": ("https://ours.example",)})
    await pool.apply(document.model_copy(update={"settings": settings}).sealed(document.sequence))
    own = f"http://127.0.0.1:{runtime.public.port}"
    for known in (own, "https://ours.example"):
        async with viewing(runtime, Origin=known) as viewer:
            assert (await viewer.next())["object"] == "status.state"
    for foreign in ("https://elsewhere.example", "null", "http://[", f"{own}.example"):
        with pytest.raises(InvalidStatus, match="403"):
            async with viewing(runtime, Origin=foreign):
                pass


async def test_who_does_not_read_keeps_nothing_waiting_and_sees_the_present_afterwards(
    runtime: Runtime, pool: ModelPool, world: World
) -> None:
    long = "x" * 20_000
    async with viewing(runtime) as viewer:
        viewer.connection.transport.pause_reading()
        for number in range(300):
            await pool.apply(world.document(wanted(), wanted(f"{long}{number}", "file:o")))
            await asyncio.sleep(0)
        last = f"{long}{299}"
        await until(pool, lambda m: m.reason is Reason.SERVING, last)
        viewer.connection.transport.resume_reading()
        count = 0
        while viewer.models.get(last, {}).get("reason") != "Serving":
            await viewer.next()
            count += 1
        assert sorted(viewer.models) == ["chat", last]
        assert count < 300


async def test_who_reads_no_more_is_left_and_its_place_is_free(
    runtime: Runtime, pool: ModelPool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "SEND_SECONDS", 0.2)
    long = "x" * 200_000
    async with viewing(runtime) as viewer:
        await viewer.next()
        viewer.connection.transport.pause_reading()
        deadline = time.monotonic() + 60
        number = 0
        while runtime.services.viewers.count:
            assert time.monotonic() < deadline
            number += 1
            await pool.apply(world.document(wanted(f"{long}{number}", "file:o")))
            await asyncio.sleep(0.02)


async def test_so_many_may_look_and_no_more(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_VIEWERS", 2)
    async with viewing(runtime) as one, viewing(runtime) as other:
        await one.next()
        await other.next()
        with pytest.raises(InvalidStatus) as refused:
            async with viewing(runtime):
                pass
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "10"
    await eventually(lambda: runtime.services.viewers.count == 0)
    async with viewing(runtime) as viewer:
        await viewer.next()


async def test_a_connection_ends_after_a_while_and_goes_on_with_its_cursor(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LIFE_SECONDS", 0.3)
    async with viewing(runtime) as viewer:
        assert await viewer.end() == (1001, "connect again to go on")
    async with viewing(runtime, after=viewer.cursor) as again:
        assert (await again.next())["object"] == "status.changes"


async def test_an_ending_pod_closes_properly(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("secret")
    settings = settings_for(tmp_path, internal_token_file=tmp_path / "token")
    async with running(settings, FakeModels([desired_model("chat")])) as runtime:
        assert runtime.internal is not None
        internal = await connect(
            f"ws://127.0.0.1:{runtime.internal.port}/ws/status",
            additional_headers={"Authorization": "Bearer secret"},
            proxy=None,
        )
        public = await connect(f"ws://127.0.0.1:{runtime.public.port}/ws/status", proxy=None)
        viewers = [Viewer(internal), Viewer(public)]
        ends = [asyncio.create_task(viewer.end()) for viewer in viewers]
        began = time.monotonic()
    of_internal, of_public = [(await end)[0] for end in ends]
    assert of_internal == 1001
    # The server itself closes what is open when it stops; whoever is first says why.
    assert of_public in {1001, 1012}
    assert time.monotonic() - began < 5
    assert runtime.services.viewers.count == 0
