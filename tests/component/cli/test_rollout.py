"""`ullage ab` and `rollback` against servers whose models are real, if senseless."""

import asyncio
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.support.processes import (
    PATIENCE,
    ULLAGE,
    environment,
    free_port,
    manifest,
    running_process,
)
from tests.support.swaps import (
    TEXTS,
    Listeners,
    document,
    pool_with,
    serving,
    settled,
    until,
    write_pair,
)
from ullage_api.kinds.rollout import SwapStep
from ullage_runtime.cli.commands import app


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.delenv("ULLAGE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    write_pair(tmp_path)
    return tmp_path


async def ullage(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments))


async def test_ab_shows_both_revisions_of_a_comparison_that_is_held_open(
    folder: pathlib.Path,
) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        alone = await ullage("ab", "chat", "--url", runtime.url)
        assert alone.exit_code == 0
        assert "no two revisions of chat have been compared" in alone.stderr
        async with Listeners(runtime.url, count=8) as listeners:
            canary = {"steps": [{"weight": 25}]}
            await pool.apply(document(folder, "beta", 2, canary=canary))
            await until(
                pool,
                lambda m: (
                    m.swap is not None
                    and m.swap.step is SwapStep.CANARY
                    and len(m.swap.arms) == 2
                    and all(arm.requests >= 10 for arm in m.swap.arms)
                ),
            )
            shown = await ullage("ab", "chat", "--url", runtime.url)
            found = json.loads((await ullage("ab", "chat", "--url", runtime.url, "--json")).stdout)
        assert listeners.failed == listeners.mixed == []
    old, new = found["swap"]["arms"]
    assert (old["revision"], new["revision"]) == (found["active"], found["target"])
    assert (old["weight"], new["weight"]) == (75, 25)
    for arm in (old, new):
        assert (arm["requests"] >= 10, arm["errors"]) == (True, 0)
        assert 0 < arm["token_ms_p50"] <= arm["token_ms_p95"]
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["REVISION", "WEIGHT", "REQUESTS", "ERRORS", "TOKEN", "P50", "TOKEN", "P95"]
    assert [row[0] for row in rows[1:]] == [found["active"], found["target"]]
    assert f"Canary: revision {found['target']} gets 25 %" in shown.stderr


async def test_ab_of_a_model_that_is_not_there_says_so(folder: pathlib.Path) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        missing = await ullage("ab", "nobody", "--url", runtime.url)
    assert missing.exit_code == 1
    assert "there is no model 'nobody'" in missing.stderr


async def test_a_pod_of_a_cluster_says_how_one_goes_back_there(folder: pathlib.Path) -> None:
    pool = pool_with()
    async with serving(folder, pool) as runtime:
        await pool.apply(document(folder, "alpha", 1))
        await settled(pool, "alpha")
        refused = await ullage("rollback", "chat", "--url", runtime.url)
    assert refused.exit_code == 1
    words = "kubectl annotate modeldeployments.ullage.dev chat ullage.dev/rollback-to=<revision>"
    assert words in refused.stderr


def test_going_back_lasts_until_the_manifest_asks_for_something_else(folder: pathlib.Path) -> None:
    # The canary would never end: going back must not go through it.
    rollout = {"canary": {"steps": [{"weight": 50}]}}

    def want(name: str, **spec: Any) -> None:
        file = folder / "m.yaml"
        file.with_suffix(".new").write_text(manifest("chat", f"file:{name}.gguf", **spec))
        file.with_suffix(".new").rename(file)

    def rollout_until(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = client.get("/rollouts/chat").json()
            if holds(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def said() -> str:
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
        answer = client.post("/v1/chat/completions", json=body).json()
        text: str = answer["choices"][0]["message"]["content"]
        return text

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--url", url])

    want("alpha")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("up", "m.yaml", "--port", str(port))
    with (
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
        running_process(ULLAGE, environment(folder), *command, cwd=folder) as process,
    ):
        process.wait_for_error_line("Serving at")
        alpha = rollout_until(lambda r: r["transition"] == "UpToDate")["active"]
        nowhere = run("rollback", "chat")
        assert nowhere.exit_code == 1
        assert "no earlier revision of 'chat' has answered" in nowhere.stderr

        want("beta")
        process.wait_for_error_line("manifest read again")
        beta = rollout_until(lambda r: r["active"] != alpha and r["transition"] == "UpToDate")
        assert [known["name"] for known in beta["revisions"]] == [beta["active"], alpha]
        want("beta", rollout=rollout, serving={"maxQueue": 9})
        process.wait_for_error_line("manifest read again")

        back = run("rollback", "chat")
        assert back.exit_code == 0, back.stderr
        assert alpha in back.stdout
        rollout_until(lambda r: r["active"] == alpha and r["transition"] == "UpToDate")
        assert said() == TEXTS["alpha"]

        unknown = run("rollback", "chat", "0123456789")
        assert unknown.exit_code == 1
        assert "no revision '0123456789' of 'chat' has answered" in unknown.stderr
        assert beta["active"] in unknown.stderr

        forth = json.loads(run("rollback", "chat", beta["active"], "--json").stdout)
        assert forth["id"] == "chat"
        rollout_until(lambda r: r["active"] == beta["active"] and r["transition"] == "UpToDate")
        assert said() == TEXTS["beta"]
        assert run("rollback", "chat", alpha).exit_code == 0
        rollout_until(lambda r: r["active"] == alpha and r["transition"] == "UpToDate")

        want("beta", serving={"maxQueue": 10})
        rollout_until(lambda r: r["active"] == beta["active"] and r["transition"] == "UpToDate")
        assert process.end() == 0
