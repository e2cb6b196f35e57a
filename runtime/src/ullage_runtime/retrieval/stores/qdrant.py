"""Qdrant through its own client: a server anywhere, or the embedded store on this machine."""

import json
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import httpx
import pydantic_core

from ullage_runtime.retrieval.stores.objects import (
    dense_params_of,
    description_of,
    point_json,
    point_of,
    portions,
    quantization_of,
    query_json,
)
from ullage_runtime.retrieval.stores.port import (
    DELETED,
    SPARSE,
    VERSION,
    Carried,
    Description,
    Filter,
    Found,
    Layout,
    Point,
    PointId,
    Query,
    StoreError,
    StoreRefused,
    StoreTimeout,
    StoreUnavailable,
    Stretch,
    older,
)
from ullage_runtime.retrieval.stores.transport import AiohttpTransport

if TYPE_CHECKING:  # importing it takes seconds and 80 MB, which a pod without collections saves
    from qdrant_client.http import models

T = TypeVar("T")

WRITE_SECONDS: Final = 60
CONNECTIONS: Final = 32
_UNAVAILABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_KEY_REFUSED: Final = frozenset({401, 403})

KeyNow = Callable[[], str | None]


class _ApiKey(httpx.Auth):
    """Shows a server its key, and another one when that is refused and there is another by now."""

    def __init__(self, key: str | None, now: KeyNow) -> None:
        self._key = key
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        shown = self._key
        answer = yield self._shown(request, shown)
        if answer.status_code in _KEY_REFUSED:
            self._key = self._now()
            if self._key != shown:
                yield self._shown(request, self._key)

    def _shown(self, request: httpx.Request, key: str | None) -> httpx.Request:
        if key is not None:
            request.headers["api-key"] = key
        return request


class QdrantStore:
    """A Qdrant at a URL; a `Store`."""

    written_at_once: ClassVar = 128
    """Points of one request."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        key_now: KeyNow | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`key_now` returns the key as it is by now; asked when the one before is refused."""
        from qdrant_client import AsyncQdrantClient
        from qdrant_client.http import models

        self._models = models
        self._host = httpx.URL(url).netloc.decode("ascii")
        self._client = AsyncQdrantClient(
            url=url,
            # The client's own parameter for it warns about plain http, which loopback is.
            auth=_ApiKey(key, key_now or (lambda: key)),
            check_compatibility=False,
            timeout=WRITE_SECONDS,
            trust_env=False,
            transport=transport or AiohttpTransport(CONNECTIONS),
        )

    async def create(self, collection: str, layout: Layout) -> None:
        """Make a collection."""
        models = self._models
        modifier = models.Modifier.IDF if layout.has_idf else None
        sparse = models.SparseVectorParams(modifier=modifier)
        await self._done(
            self._client.create_collection(
                collection,
                vectors_config=dense_params_of(layout),
                sparse_vectors_config={SPARSE: sparse} if layout.has_sparse else None,
                hnsw_config=models.HnswConfigDiff(**layout.hnsw) if layout.hnsw else None,
                quantization_config=quantization_of(layout.quantization),
                metadata=dict(layout.metadata) or None,
            )
        )

    async def describe(self, collection: str) -> Description | None:
        """Return what there is; None if there is no such collection."""
        try:
            info = await self._done(self._client.get_collection(collection))
        except StoreRefused as error:
            if getattr(error.__cause__, "status_code", None) == httpx.codes.NOT_FOUND:
                return None
            raise
        return description_of(collection, info)

    async def alter(
        self, collection: str, hnsw: Mapping[str, int], quantization: Mapping[str, Any] | None
    ) -> None:
        """Change how it is indexed, if it differs."""
        found = await self.describe(collection)
        if found is None:
            raise StoreRefused(f"collection {collection!r} does not exist")
        changed = {k: v for k, v in hnsw.items() if found.layout.hnsw.get(k) != v}
        differs = quantization != found.layout.quantization
        if not changed and not differs:
            return
        wanted = quantization_of(quantization)
        if quantization is None:
            wanted = self._models.Disabled.DISABLED
        await self._done(
            self._client.update_collection(
                collection,
                hnsw_config=self._models.HnswConfigDiff(**changed) if changed else None,
                quantization_config=wanted if differs else None,
            )
        )

    async def index_field(self, collection: str, field_name: str, kind: str) -> None:
        """Index a field of the payload."""
        await self._completed(
            self._client.create_payload_index(
                collection, field_name, self._models.PayloadSchemaType(kind), wait=True
            )
        )

    async def drop(self, collection: str) -> None:
        """Remove a collection and all that it holds, if it exists."""
        await self._done(self._client.delete_collection(collection))

    async def write(self, collection: str, points: Sequence[Point], version: int) -> None:
        """Write points over what is older than the version, or missing; return once it is so."""
        whole = [replace(point, payload={**point.payload, VERSION: version}) for point in points]
        await self.copy(collection, whole, version)

    async def copy(self, collection: str, points: Sequence[Point], before: int) -> None:
        """Write points with the versions they have, over what is older than one, or missing."""
        condition = older(before)
        # In portions: while a request is put into words, nobody else has a turn.
        for portion in portions(points, self.written_at_once):
            body = {"points": [point_json(each) for each in portion], "update_filter": condition}
            result = await self._asked("PUT", collection, "points", body, {"wait": "true"})
            self._check_completed(result["status"])

    async def carry(self, stretch: Stretch) -> Carried | None:
        """Return None: a server hands its points out, and has them brought back."""
        del stretch
        return None

    async def build(self, collection: str) -> None:
        """Have its index built now: servers see to that by themselves, but for what they put off.

        After a restart what is left to build waits for a change, and an empty one is enough.
        """
        found = await self.describe(collection)
        if found is not None and found.is_put_off:
            nothing = self._models.OptimizersConfigDiff()
            await self._done(self._client.update_collection(collection, optimizers_config=nothing))

    async def purge(self, collection: str, version: int) -> None:
        """Remove tombstones up to a version."""
        old = {
            "must": [
                {"key": DELETED, "match": {"value": True}},
                {"key": VERSION, "range": {"lte": version}},
            ]
        }
        selector = self._models.FilterSelector(filter=self._filter(old))
        await self._completed(self._client.delete(collection, selector, wait=True))

    async def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: bool = False
    ) -> list[Point]:
        """Return those of the points that exist, tombstones among them."""
        records = await self._done(
            self._client.retrieve(collection, list(ids), with_payload=True, with_vectors=vectors)
        )
        return [point_of(record) for record in records]

    async def scroll(
        self,
        collection: str,
        *,
        after: PointId | None = None,
        limit: int,
        where: Filter | None = None,
        vectors: bool = False,
        fields: Sequence[str] | None = None,
    ) -> tuple[list[Point], PointId | None]:
        """Return a page in the order of ids, and where the next one begins; tombstones included."""
        records, following = await self._done(
            self._client.scroll(
                collection,
                scroll_filter=self._filter(where),
                limit=limit,
                offset=after,
                with_payload=True if fields is None else list(fields),
                with_vectors=vectors,
            )
        )
        return [point_of(record) for record in records], following  # type: ignore[return-value]

    async def count(self, collection: str, where: Filter | None = None) -> int:
        """Count points exactly."""
        answer = await self._done(
            self._client.count(collection, count_filter=self._filter(where), exact=True)
        )
        return answer.count

    async def query(
        self, collection: str, queries: Sequence[Query], *, seconds: float
    ) -> list[list[Found]]:
        """Answer queries; tombstones are never found, as they have no vectors."""
        for each in queries:
            self._filter(each.filter)
        answers = await self._asked(
            "POST",
            collection,
            "points/query/batch",
            {"searches": [query_json(each) for each in queries]},
            {"timeout": str(max(1, math.ceil(seconds)))},
        )
        return [
            [Found(each["id"], each["score"], each["payload"] or {}) for each in answer["points"]]
            for answer in answers
        ]

    async def _asked(
        self, method: str, collection: str, path: str, body: object, params: dict[str, str]
    ) -> Any:
        """Return what REST answers, past the client's models: they look at every number."""
        answer = await self._done(
            self._client.http.client.request(
                type_=dict[str, Any],
                method=method,
                url=f"/collections/{{name}}/{path}",
                path_params={"name": collection},
                params=params,
                headers={"Content-Type": "application/json"},
                content=pydantic_core.to_json(body),
            )
        )
        return answer["result"]

    async def aliases(self) -> dict[str, str]:
        """Return every alias with its collection."""
        answer = await self._done(self._client.get_aliases())
        return {each.alias_name: each.collection_name for each in answer.aliases}

    async def point_alias(self, alias: str, collection: str) -> None:
        """Make an alias, or have an existing one point elsewhere, in one step."""
        models = self._models
        action = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
        await self._done(self._client.update_collection_aliases([action]))

    async def drop_alias(self, alias: str) -> None:
        """Remove an alias, if it exists; what it pointed to stays."""
        models = self._models
        action = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        await self._done(self._client.update_collection_aliases([action]))

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.close()

    def _filter(self, data: Filter | None) -> "models.Filter | None":
        if not data:
            return None
        try:
            return self._models.Filter.model_validate(data)
        except ValueError as error:
            raise StoreRefused(f"filter: {_first_line(error)}") from error

    async def _completed(self, work: Awaitable[Any]) -> None:
        """Await a change and make sure that it is made."""
        self._check_completed((await self._done(work)).status.value)

    def _check_completed(self, status: str) -> None:
        """Raise StoreTimeout for a change that is not made: Qdrant answers 200 to that too."""
        if status != "completed":
            raise StoreTimeout(f"the store at {self._host} has not finished: {status}")

    async def _done(self, work: Awaitable[T]) -> T:
        """Await a request and say what went wrong in the port's terms."""
        from pydantic import ValidationError
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            return await work
        except UnexpectedResponse as error:
            raise self._refusal(error.status_code, words_of(error.content)) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException):
                raise StoreTimeout(f"the store at {self._host} took too long") from error
            raise StoreUnavailable(
                f"the store at {self._host} cannot be reached: {error.source!r}"
            ) from error
        except QdrantException as error:
            raise StoreUnavailable(str(error)) from error
        except (ValidationError, ValueError) as error:
            raise StoreRefused(_first_line(error)) from error

    def _refusal(self, status: int | None, words: str) -> StoreError:
        """Return what an answer other than 200 amounts to."""
        if status in _KEY_REFUSED:
            # What was accepted meanwhile is not lost: the next key may do.
            return StoreUnavailable(
                f"the store at {self._host} does not accept the key that it is shown, if any "
                f"({words or status}); put the right one under {self._host.partition(':')[0]} into "
                "the Secret ullage-credentials"
            )
        said = words or f"HTTP {status}"
        return StoreUnavailable(said) if status in _UNAVAILABLE else StoreRefused(said)


def words_of(content: bytes) -> str:
    """Return what a store says went wrong."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:3])
