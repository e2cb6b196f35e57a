"""The embedded store through Qdrant's client, and what only it can be asked."""

from dataclasses import asdict
from functools import lru_cache
from typing import Any, ClassVar

import httpx
import pydantic_core

from ullage_runtime.retrieval.stores.port import (
    Carried,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    Stretch,
)
from ullage_runtime.retrieval.stores.qdrant import CONNECTIONS, WRITE_SECONDS, QdrantStore, words_of
from ullage_runtime.retrieval.stores.transport import AiohttpTransport

_parsed = lru_cache(maxsize=256)(httpx.URL)


class EmbeddedStore(QdrantStore):
    """The shards of this machine's owner process; a `Store`."""

    written_at_once: ClassVar = 32
    """Few: its owner does one thing after the other, and searches wait for the end of a request."""

    def __init__(
        self, url: str, key: str, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._owner = transport or AiohttpTransport(CONNECTIONS)
        super().__init__(url, key, transport=self._owner)
        self._base = url
        self._headers = {"api-key": key, "content-type": "application/json"}

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
        request = httpx.Request(
            method,
            _parsed(f"{self._base}/collections/{collection}/{path}"),
            headers=self._headers,
            content=pydantic_core.to_json(body),
            extensions={"timeout": httpx.Timeout(seconds).as_dict()},
        )
        try:
            answer = await self._owner.handle_async_request(request)
            content = await answer.aread()
        except httpx.TimeoutException as error:
            raise StoreTimeout("the store on this machine took too long") from error
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"the store cannot be reached: {error!r}") from error
        if answer.is_server_error:
            raise StoreUnavailable(words_of(content))
        if answer.is_error:
            raise StoreRefused(words_of(content))
        return pydantic_core.from_json(content)["result"]
