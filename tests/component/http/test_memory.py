"""What a pod tells of its memory, over HTTP."""

import pathlib
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.fake_models import (
    MIB,
    World,
    answer,
    until,
    wanted,
)
from tests.support.nvml_trace import TWO_H100, NvmlTrace, gpu_pool
from tests.support.runtimes import eventually, served
from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Footprint
from ullage_runtime.governor.nvml import gpus
from ullage_runtime.http.auth import entry_line
from ullage_runtime.models.pool import ModelPool


@pytest.fixture
def world() -> World:
    world = World()
    world.engines.load_seconds = world.engines.step_seconds = 0.01
    world.device.used = world.device.own = 850 * MIB
    world.device.throttling = ("thermal",)
    return world


@pytest.fixture
async def pool(world: World) -> AsyncIterator[ModelPool]:
    async with world.pool() as pool:
        await pool.apply(world.document(wanted(), wanted("other", "file:o"), percent=90))
        for name in ("chat", "other"):
            await until(pool, lambda m: m.reason is Reason.SERVING, name)
        yield pool


@pytest.fixture
async def client(pool: ModelPool, tmp_path: pathlib.Path) -> AsyncIterator[httpx.AsyncClient]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "all").write_text(entry_line("key-all"))
    (keys / "some").write_text(entry_line("key-some", ("chat",)))
    async with served(tmp_path, pool, api_keys_dir=keys) as (_, client):
        client.headers["Authorization"] = "Bearer key-all"
        yield client


async def test_stats_say_how_full_each_device_is_and_what_models_take(
    client: httpx.AsyncClient,
) -> None:
    stats = (await client.get("/memory/stats")).json()
    assert stats["object"] == "memory.stats"
    assert stats["level"] == "High"
    (device,) = stats["devices"]
    assert device == {
        "id": "host",
        "kind": "Host",
        "name": "memory",
        "level": "High",
        "total": 1000 * MIB,
        "budget": 900 * MIB,
        "used": 850 * MIB,
        "own": 850 * MIB,
        "ledger": 180 * MIB,
        "warm": 0,
        "free": 720 * MIB,
        "throttling": ["thermal"],
        "stalled": None,
    }


async def test_models_say_where_they_are_and_what_they_take(
    client: httpx.AsyncClient, pool: ModelPool
) -> None:
    await answer(pool)
    listed = (await client.get("/memory/models")).json()
    assert listed["object"] == "list"
    chat, other = listed["data"]
    assert (chat["id"], other["id"]) == ("chat", "other")
    assert chat["residency"] == "Resident"
    assert (chat["estimated"], chat["resident"]) == (100 * MIB, 90 * MIB)
    assert chat["requests_running"] == 0


async def test_a_key_for_some_models_sees_those_only(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer key-some"}
    listed = (await client.get("/memory/models", headers=headers)).json()
    assert [m["id"] for m in listed["data"]] == ["chat"]
    nobody = await client.get("/memory/stats", headers={"Authorization": "Bearer none"})
    assert nobody.status_code == 401


async def test_metrics_have_level_throttling_and_bytes(client: httpx.AsyncClient) -> None:
    lines = (await client.get("/metrics")).text.splitlines()
    assert 'ullage_device_level{device="host",level="High"} 1.0' in lines
    assert 'ullage_device_level{device="host",level="Low"} 0.0' in lines
    assert 'ullage_device_throttled{device="host",reason="thermal"} 1.0' in lines
    assert any(
        line.startswith('ullage_device_bytes{device="host",what="own"} 8.9') for line in lines
    )


async def test_every_gpu_and_slice_of_a_pod_is_told_with_its_own_numbers(
    tmp_path: pathlib.Path,
) -> None:
    trace = NvmlTrace(TWO_H100)
    async with gpu_pool(trace, moment=1) as pool, served(tmp_path, pool) as (_, client):
        devices = (await client.get("/memory/stats")).json()["devices"]
        assert [d["id"] for d in devices] == ["gpu0", "gpu1.mig0", "gpu1.mig3"]
        assert [d["name"] for d in devices] == [d.name for d in gpus(trace)]
        for device, real in zip(devices, gpus(trace), strict=True):
            now = await real.read()
            assert (device["total"], device["used"]) == (now.total, now.used)
            assert device["budget"] == pytest.approx(0.9 * now.total)
        assert devices[1]["level"] == "Critical"
        lines = (await client.get("/metrics")).text.splitlines()
        for device in devices:
            level = 'ullage_device_level{{device="{id}",level="{level}"}} 1.0'
            assert level.format_map(device) in lines


async def test_heat_and_power_of_gpus_are_told_by_name_and_end(tmp_path: pathlib.Path) -> None:
    trace = NvmlTrace(TWO_H100)
    async with gpu_pool(trace, moment=2) as pool, served(tmp_path, pool) as (_, client):
        stats = (await client.get("/memory/stats")).json()
        assert {d["id"]: d["throttling"] for d in stats["devices"]} == {
            "gpu0": ["thermal", "power_cap"],
            "gpu1.mig0": ["hardware", "hardware_thermal"],
            "gpu1.mig3": [],
        }
        metric = 'ullage_device_throttled{{device="{}",reason="{}"}} 1.0'
        lines = (await client.get("/metrics")).text.splitlines()
        throttled = [line for line in lines if line.startswith("ullage_device_throttled{")]
        assert throttled == [
            metric.format("gpu0", "thermal"),
            metric.format("gpu0", "power_cap"),
            metric.format("gpu1.mig0", "hardware"),
            metric.format("gpu1.mig0", "hardware_thermal"),
        ]
        trace.moment = 0

        def is_over() -> bool:
            return not any(device.throttling for device in pool.report().devices)

        await eventually(is_over, 30)
        assert "ullage_device_throttled{" not in (await client.get("/metrics")).text


async def test_what_left_memory_and_what_was_refused_is_paged_newest_first(
    world: World, tmp_path: pathlib.Path
) -> None:
    world.engines.footprints["file:huge"] = Footprint(weights=2000 * MIB)
    async with world.pool() as pool:
        models = [wanted(f"huge{n}", "file:huge") for n in range(5)]
        await pool.apply(world.document(*models))
        for one in models:
            await until(pool, lambda m: m.final, one.name)
        async with served(tmp_path, pool) as (_, client):
            first = (await client.get("/memory/evictions", params={"limit": 2})).json()
            assert [d["id"] for d in first["data"]] == [5, 4]
            assert (first["has_more"], first["last_id"]) == (True, 4)
            newest = first["data"][0]
            assert (newest["kind"], newest["rule"]) == ("refusal", "NeverFits")
            assert newest["bytes"] == 2000 * MIB
            assert newest["for"] is None
            assert "needs 2.0 GiB" in newest["message"]
            query = {"limit": 20, "after": first["last_id"]}
            rest = (await client.get("/memory/evictions", params=query)).json()
            assert [d["id"] for d in rest["data"]] == [3, 2, 1]
            assert rest["has_more"] is False
            bad = await client.get("/memory/evictions", params={"limit": 0})
            assert bad.status_code == 400
            assert bad.json()["error"]["param"] == "limit"
        labels = {"model": "huge0", "rule": "NeverFits"}
        assert pool.registry.get_sample_value("ullage_memory_refusals_total", labels) == 1


async def test_an_eviction_names_the_other_model_only_to_who_may_use_it(
    world: World, tmp_path: pathlib.Path
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "all").write_text(entry_line("key-all"))
    (keys / "some").write_text(entry_line("key-some", ("chat",)))
    world.device.size = 150 * MIB
    async with world.pool() as pool:
        await pool.apply(world.document(wanted()))
        await until(pool, lambda m: m.reason is Reason.SERVING)
        await pool.apply(world.document(wanted(), wanted("secret", "file:s")))
        await until(pool, lambda m: m.reason is Reason.SERVING, "secret")
        async with served(tmp_path, pool, api_keys_dir=keys) as (_, client):

            async def seen(key: str) -> list[dict[str, object]]:
                headers = {"Authorization": f"Bearer {key}"}
                data: list[dict[str, object]] = (
                    await client.get("/memory/evictions", headers=headers)
                ).json()["data"]
                return data

            # The latest come first; on a busy machine there may be more of them.
            *_, whole = await seen("key-all")
            assert (whole["model"], whole["for"], whole["rule"]) == ("chat", "secret", "Demand")
            assert "for model 'secret'" in str(whole["message"])
            *_, hidden = await seen("key-some")
            assert hidden["for"] is None
            assert "secret" not in str(hidden)
