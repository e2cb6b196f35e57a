"""Two pods and one volume: the second holds back, says why, and takes over from the first."""

import contextlib
import pathlib

from tests.support.collection_pods import (
    HEADS,
    TEXTS,
    C,
    document,
    notes,
    pod,
    posted,
    ready,
    refused,
)
from tests.support.stores import eventually
from ullage_runtime.app import COLLECTIONS_FOLDER


async def test_a_second_pod_leaves_a_volume_alone_until_the_first_has_let_it_go(
    tmp_path: pathlib.Path, files: pathlib.Path
) -> None:
    wanted = document(files, HEADS, notes())
    volume = tmp_path / "one" / "state" / COLLECTIONS_FOLDER
    volume.mkdir(parents=True)
    (tmp_path / "two" / "state").mkdir(parents=True)
    (tmp_path / "two" / "state" / COLLECTIONS_FOLDER).symlink_to(volume)
    async with contextlib.AsyncExitStack() as first_pod:
        _, first = await first_pod.enter_async_context(pod(tmp_path / "one", wanted))
        await ready(first)
        points = [{"id": n, "text": text} for n, text in TEXTS.items()]
        answer = await first.put(f"{C}/points", params={"wait": True}, json={"points": points})
        assert answer.status_code == 200, answer.text
        async with pod(tmp_path / "two", wanted) as (runtime, second):

            async def is_told() -> bool:
                return "is owned by another process" in (await second.get(C)).json()["message"]

            await eventually(is_told)
            refusal = await second.post(f"{C}/search", json={"query": TEXTS[2]})
            message = refused(refusal, 503, "collection_unavailable")
            assert "one process at a time can hold these shards" in message
            refused(
                await second.put(f"{C}/points", json={"points": points}),
                503,
                "collection_unavailable",
            )
            (entry,) = runtime.services.collections.reported()
            assert "is owned by another process" in entry.message

            # The first one did not notice.
            found = await posted(first, f"{C}/search", {"query": TEXTS[2]})
            assert found["results"][0]["id"] == 2
            more = {"points": [{"id": 9, "text": TEXTS[1]}]}
            answer = await first.put(f"{C}/points", params={"wait": True}, json=more)
            assert answer.status_code == 200, answer.text

            await first_pod.aclose()
            await ready(second)
            count = await posted(second, f"{C}/points/count", {})
            assert count["count"] == len(TEXTS) + 1
