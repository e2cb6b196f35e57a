"""`ullage top` against a runtime on a real socket, driven as a person would."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static
from typer.testing import CliRunner

from tests.support.fake_models import MIB, World, until, wanted
from tests.support.nvml_trace import TWO_H100, NvmlTrace, gpu_pool
from tests.support.processes import ULLAGE, environment, free_port
from tests.support.runtimes import eventually, served, settings_for
from tests.support.terminal import on_terminal
from ullage_api.conditions import Reason
from ullage_runtime.app import Runtime, running
from ullage_runtime.cli.commands import app
from ullage_runtime.cli.console import CliError
from ullage_runtime.cli.top.app import TopApp
from ullage_runtime.core.domain import Footprint
from ullage_runtime.http.auth import entry_line

SIZES = [(80, 24), (160, 50)]
PATIENCE = 60.0


def screen(pilot: Pilot[CliError | None]) -> str:
    """Return what stands on the screen, line by line."""
    top = pilot.app
    strips = top.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


async def see(pilot: Pilot[CliError | None], *words: str) -> str:
    """Wait until the words are on the screen; return all of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while not all(word in screen(pilot) for word in words):
                await pilot.pause(0.05)
    shown = screen(pilot)
    assert all(word in shown for word in words), shown
    return shown


@pytest.fixture
async def world() -> World:
    world = World()
    world.engines.load_seconds = world.engines.step_seconds = 0.01
    world.device.size = 250 * MIB
    world.device.throttling = ("thermal",)
    world.engines.footprints["file:huge"] = Footprint(weights=2000 * MIB)
    return world


@pytest.fixture
async def runtime(world: World, tmp_path: pathlib.Path) -> AsyncIterator[Runtime]:
    async with world.pool() as pool:
        await pool.apply(world.document(wanted("alpha"), wanted("beta", "file:b")))
        for name in ("alpha", "beta"):
            await until(pool, lambda m: m.reason is Reason.SERVING, name)
        async with served(tmp_path, pool) as (runtime, _):
            yield runtime


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_it_shows_devices_models_and_decisions_as_they_change(
    runtime: Runtime, world: World, size: tuple[int, int]
) -> None:
    async with TopApp(runtime.url, None).run_test(size=size) as pilot:
        shown = await see(pilot, "ullage-default-0", "live", "alpha", "beta", "thermal")
        assert "no model has left memory" in shown
        assert ("REVISION" in shown) == (size[0] > 100)
        await runtime.models.apply(
            world.document(wanted("alpha"), wanted("gamma", "file:g"), wanted("huge", "file:huge"))
        )
        shown = await see(pilot, "gamma", "huge got no memory NeverFits 2.0 GiB")
        assert "beta" not in shown
        await see(pilot, "WillNeverFit")


async def test_every_gpu_and_slice_of_a_pod_has_its_line(tmp_path: pathlib.Path) -> None:
    async with (
        gpu_pool(NvmlTrace(TWO_H100), moment=1) as pool,
        served(tmp_path, pool) as (runtime, _),
        TopApp(runtime.url, None).run_test(size=SIZES[0]) as pilot,
    ):
        shown = await see(pilot, "gpu0", "gpu1.mig0", "gpu1.mig3")
        (sliced,) = (line for line in shown.splitlines() if "gpu1.mig0" in line)
        assert "Critical" in sliced


async def test_the_chosen_model_says_why_it_is_as_it_is(runtime: Runtime, world: World) -> None:
    await runtime.models.apply(world.document(wanted("alpha"), wanted("huge", "file:huge")))
    async with TopApp(runtime.url, None).run_test(size=SIZES[0]) as pilot:
        await see(pilot, "WillNeverFit")
        await pilot.press("down")
        await see(pilot, "needs 2.0 GiB")
        table = pilot.app.query_one(DataTable)
        assert table.cursor_row == 1
        # Rows come and go; the choice stays with its model.
        await runtime.models.apply(
            world.document(wanted("aardvark", "file:v"), wanted("huge", "file:huge"))
        )
        await see(pilot, "aardvark", "needs 2.0 GiB")


async def test_it_comes_back_to_a_pod_that_was_away(world: World, tmp_path: pathlib.Path) -> None:
    port = free_port()
    async with world.pool() as pool:
        await pool.apply(world.document(wanted("alpha")))
        await until(pool, lambda m: m.reason is Reason.SERVING, "alpha")
        run = running(settings_for(tmp_path, port=port), pool)
        first = await run.__aenter__()
        async with TopApp(first.url, None).run_test(size=SIZES[0]) as pilot:
            await see(pilot, "live", "alpha")
            await run.__aexit__(None, None, None)
            await see(pilot, "again in", "alpha")
            async with world.pool() as other:
                other.boot_id = "another"
                await other.apply(world.document(wanted("restarted")))
                async with running(settings_for(tmp_path, port=port), other):
                    shown = await see(pilot, "live", "restarted")
                    assert "alpha" not in shown


@pytest.mark.parametrize("wrong", ["", "nobody"])
async def test_a_key_that_is_not_known_ends_it_with_the_servers_words(
    world: World, tmp_path: pathlib.Path, wrong: str
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "me").write_text(entry_line("mine"))
    async with world.pool() as pool, served(tmp_path, pool, api_keys_dir=keys) as (runtime, _):
        await pool.apply(world.document(wanted("alpha")))
        top = TopApp(runtime.url, wrong or None)
        async with top.run_test():
            await eventually(lambda: top.return_value is not None, PATIENCE)
        assert "API key" in str(top.return_value)
        async with TopApp(runtime.url, "mine").run_test() as pilot:
            await see(pilot, "live", "alpha")


def test_where_nothing_answers_it_says_what_to_do(tmp_path: pathlib.Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    env = environment(tmp_path)
    with on_terminal([*ULLAGE, "top", "--url", url], env, tmp_path) as terminal:
        assert terminal.wait_end() == 1
    assert "nothing answers" in terminal.text
    assert "ullage up" in terminal.text


def test_a_script_is_told_where_else_to_look() -> None:
    result = CliRunner().invoke(app, ["top"])
    assert result.exit_code == 2
    assert "/memory/stats" in result.stderr


async def test_q_ends_it(runtime: Runtime) -> None:
    top = TopApp(runtime.url, None)
    async with top.run_test() as pilot:
        await see(pilot, "live")
        assert isinstance(pilot.app.query_one("#head"), Static)
        await pilot.press("q")
    assert top.return_value is None
    assert top.return_code == 0
