"""What every engine that embeds must do, whatever it computes with."""

import asyncio

from tests.support.workers import eventually
from ullage_runtime.core.pooled import EmbedRequest
from ullage_runtime.engines.base import Engine


async def check_that_a_bulk_load_holds_no_query_up(engine: Engine) -> None:
    """Embed 1,500 texts and one of somebody else beside them, then cancel the many."""
    many = tuple("the red fox jumped. " * 8 for _ in range(1500))
    bulk = asyncio.create_task(engine.embed(EmbedRequest("bulk", many, tenant="a")))

    async def running() -> bool:
        return (await engine.stats()).steps > 1

    await eventually(running)
    await engine.embed(EmbedRequest("query", ("the fox",), tenant="b"))
    assert not bulk.done()
    bulk.cancel()

    async def idle() -> bool:
        return (await engine.stats()).requests_running == 0

    await eventually(idle)
    assert (await engine.stats()).prompt_tokens < 1500 * 40, "the rest was not computed"
