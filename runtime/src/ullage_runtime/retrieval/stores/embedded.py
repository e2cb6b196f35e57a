"""The embedded store through Qdrant's client, and what only it can be asked."""

from dataclasses import asdict
from typing import Any, ClassVar, Final

import httpx
import pydantic_core

from ullage_runtime.retrieval.edge.client import Ask, Client
from ullage_runtime.retrieval.stores.port import (
    Carried,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    Stretch,
)
from ullage_runtime.retrieval.stores.qdrant import WRITE_SECONDS, QdrantStore, words_of

_SERVER_ERROR: Final = 500


class EmbeddedStore(QdrantStore):
    """The shards of this machine's owner process; a `Store`."""

    written_at_once: ClassVar = 32
    """Few: its owner does one thing after the other, and searches wait for the end of a request."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        ask: Ask | None = None,
    ) -> None:
        """`transport` and `ask` lead to an owner that is not at the URL."""
        super().__init__(url, key, transport=transport)
        self._owner = Client(url, key)
        self._ask = ask or self._owner.ask

    async def build(self, collection: str) -> None:
        """Have its index built now, however little has changed."""
        await self._asked("POST", collection, "optimise/soon", {}, {})

    async def carry(self, stretch: Stretch) -> Carried | None:
        """Have the owner copy a page: the points need not be put into words, there and back."""
        found = await self._asked("POST", stretch.target, "points/carry", asdict(stretch), {})
        return Carried(found["next_page_offset"], found["seen"], found["copied"])

    async def _asked(
        self, method: str, collection: str, path: str, body: object, params: dict[str, str]
    ) -> Any:
        """Ask without the clients in between, which take longer than the engine does."""
        seconds = float(params.get("timeout", WRITE_SECONDS))
        where = f"/collections/{collection}/{path}"
        try:
            status, content = await self._ask(method, where, pydantic_core.to_json(body), seconds)
        except TimeoutError as error:
            raise StoreTimeout("the store on this machine took too long") from error
        except OSError as error:
            raise StoreUnavailable(f"the store cannot be reached: {error!r}") from error
        if status >= _SERVER_ERROR:
            raise StoreUnavailable(words_of(content))
        if status != httpx.codes.OK:
            raise StoreRefused(words_of(content))
        return pydantic_core.from_json(content)["result"]

    async def close(self) -> None:
        """Let go of connections."""
        self._owner.close()
        await super().close()
