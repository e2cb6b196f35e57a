"""The embedded store through Qdrant's client, and what only it can be asked."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import httpx

from ullage_runtime.retrieval.stores.port import (
    Carried,
    StoreRefused,
    StoreUnavailable,
    Stretch,
)
from ullage_runtime.retrieval.stores.qdrant import QdrantStore, words_of

ASK_SECONDS: Final = 60.0


class EmbeddedStore(QdrantStore):
    """The shards of this machine's owner process; a `Store`."""

    def __init__(self, url: str, key: str, **options: Any) -> None:
        super().__init__(url, key, **options)
        self._owner = httpx.AsyncClient(
            base_url=url,
            headers={"api-key": key},
            timeout=ASK_SECONDS,
            trust_env=False,
            transport=options.get("transport"),
        )

    async def build(self, collection: str) -> None:
        """Have its index built now, however little has changed."""
        await self._asked(f"/collections/{collection}/optimise/soon")

    async def carry(self, stretch: Stretch) -> Carried | None:
        """Have the owner copy a page: the points need not be put into words, there and back."""
        found = await self._asked(f"/collections/{stretch.target}/points/carry", asdict(stretch))
        return Carried(found["next_page_offset"], found["seen"], found["copied"])

    async def _asked(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = await self._owner.post(path, json=body)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"the store cannot be reached: {error!r}") from error
        if answer.is_server_error:
            raise StoreUnavailable(words_of(answer.content))
        if answer.is_error:
            raise StoreRefused(words_of(answer.content))
        return answer.json()["result"]

    async def close(self) -> None:
        """Let go of connections."""
        await self._owner.aclose()
        await super().close()
