"""The embedded store through Qdrant's client, and what only it can be asked."""

from typing import Any, Final

import httpx

from ullage_runtime.retrieval.stores.port import StoreRefused, StoreUnavailable
from ullage_runtime.retrieval.stores.qdrant import QdrantStore

ASK_SECONDS: Final = 10.0


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
        try:
            answer = await self._owner.post(f"/collections/{collection}/optimise/soon")
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"the store cannot be reached: {error!r}") from error
        if answer.is_server_error:
            raise StoreUnavailable(answer.text)
        if answer.is_error:
            raise StoreRefused(answer.text)

    async def close(self) -> None:
        """Let go of connections."""
        await self._owner.aclose()
        await super().close()
