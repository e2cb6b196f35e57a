"""One key's crowd of requests does not keep another key waiting."""

import asyncio
import pathlib

from tests.support.guide_runtime import guide, reported
from tests.support.runtimes import eventually
from ullage_runtime.http.auth import entry_line

CROWD, FEW = 40, 2


async def test_a_key_with_many_requests_does_not_hold_up_one_with_few(
    tmp_path: pathlib.Path,
) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    for tenant in ("many", "few"):
        (keys / tenant).write_text(entry_line(f"key-{tenant}"))
    done: list[str] = []
    async with guide(tmp_path, api_keys_dir=keys) as (runtime, client):

        async def asked(tenant: str, number: int) -> None:
            content = f"Tell me a long story about tank {number}"
            answer = await client.post(
                "/v1/chat/completions",
                headers={"Authorization": f"Bearer key-{tenant}"},
                json={
                    "model": "guide",
                    "messages": [{"role": "user", "content": content}],
                    "max_tokens": 60,
                    "temperature": 0,
                },
            )
            assert answer.status_code == 200, answer.text
            done.append(tenant)

        crowd = [asyncio.create_task(asked("many", n)) for n in range(CROWD)]
        # The crowd holds every place and most of the queue before the other one comes.
        await eventually(lambda: reported(runtime).requests_waiting >= CROWD // 2)
        few = [asyncio.create_task(asked("few", n)) for n in range(FEW)]
        await asyncio.gather(*crowd, *few)
    # In the order of arrival they would be the last ones.
    last = max(at for at, tenant in enumerate(done) if tenant == "few")
    assert last < CROWD - 10, done
