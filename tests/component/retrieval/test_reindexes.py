"""Reindex jobs on the real embedded store: what is searched, written, gone back to and removed."""

import pathlib

from tests.support.reindexed import place, spec


async def test_a_model_takes_over_and_goes_back_with_the_writes_made_since(
    tmp_path: pathlib.Path,
) -> None:
    async with place(tmp_path, spec()) as here:
        await here.write(*range(300))
        await here.wants(spec("large"), 2)
        await here.job(rollbackSeconds=600)
        soaking = await here.reached("Soaking")
        assert soaking.plan == "Reembed"
        assert soaking.points.copied == 300
        assert (here.notes.model, here.notes.layout.dimensions) == ("large", 16)
        assert [await here.found(n) for n in range(0, 300, 30)] == list(range(0, 300, 30))
        await here.write(7, 300, again=True)
        await here.notes.delete([8], wait=True)

        await here.job(rollbackSeconds=600, rollback=True)
        back = await here.reached("Cancelled")
        assert back.reason == "RolledBack"
        assert (here.notes.model, here.notes.layout.dimensions) == ("small", 8)
        assert await here.found(300) == 300
        (seven,) = await here.notes.retrieve([7], vectors=False)
        assert seven.payload["again"] is True
        assert await here.notes.retrieve([8], vectors=False) == []
        assert await here.notes.store.describe("notes-2") is None
        assert await here.notes.store.aliases() == {"notes": "notes-1"}
