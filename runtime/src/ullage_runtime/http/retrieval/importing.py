"""Points from streams of any length: read no faster than they are applied."""

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import IO, Any, Final

import pydantic

from ullage_runtime.core.errors import InvalidRequest, RequestTimeout, ServingError
from ullage_runtime.http.retrieval.objects import ChangeObject
from ullage_runtime.http.retrieval.schema import PointBody, UpsertBody
from ullage_runtime.http.retrieval.service import upserted
from ullage_runtime.retrieval.collection import WAIT_SECONDS, Collection
from ullage_runtime.retrieval.failures import told

JSONL: Final = frozenset({"application/jsonl", "application/x-ndjson"})
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
MEDIA_TYPES: Final = (*sorted(JSONL), ARROW, PARQUET)

BATCH: Final = 256
"""Points that are written together."""
BEHIND: Final = 32
"""Changes that the store may have yet to see; until then no more is read."""
PART_SECONDS: Final = 30.0
"""How long the next part of the body may be on its way."""
LONGEST_LINE: Final = 16 << 20
LARGEST_FILE: Final = 16 << 30
"""Bytes of an Arrow stream or a Parquet file, which is put on the disk to be read."""
OWN_COLUMNS: Final = frozenset({"id", "text", "vector", "payload"})

Row = dict[str, Any]


async def imported(
    collection: Collection,
    kind: str,
    body: AsyncIterator[bytes],
    *,
    wait: bool,
    tenant: str,
) -> ChangeObject:
    """Write the points of a body; raises InvalidRequest, which says how many are written."""
    if kind not in MEDIA_TYPES:
        raise InvalidRequest(
            f"Content-Type {kind!r} cannot be read; known are {', '.join(MEDIA_TYPES)}",
            param="content-type",
        )
    count, last = 0, None
    batches = _batches(kind, _patient(body))
    try:
        async for first, rows in batches:
            points = [_point(number, row) for number, row in enumerate(rows, first)]
            written = UpsertBody(points=points)
            last = await upserted(collection, written, wait=False, tenant=tenant, urgent=False)
            count += len(points)
            with told(collection.name):
                await collection.changes.wait(last.version - BEHIND, WAIT_SECONDS)
    except ServingError as error:
        raise type(error)(
            f"{error.message}; {count} points before are written",
            error.param,
            error.retry_after,
            {**(error.details or {}), "written": count},
        ) from error
    finally:
        await batches.aclose()
    if last is None:
        raise InvalidRequest("there is no point in it")
    if wait:
        with told(collection.name):
            await collection.changes.wait(last.version, WAIT_SECONDS)
    status = "applied" if wait else "accepted"
    return last.model_copy(update={"points": count, "status": status})


def _point(number: int, row: Row) -> PointBody:
    given = {name: value for name, value in row.items() if name in OWN_COLUMNS}
    others = {n: v for n, v in row.items() if n not in OWN_COLUMNS and v is not None}
    payload = given.get("payload") or {}
    if not isinstance(payload, dict):
        raise InvalidRequest(f"point {number}: payload must be an object")
    try:
        return PointBody.model_validate({**given, "payload": {**others, **payload}})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(f"point {number}: {where}: {first['msg']}") from error


async def _patient(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    parts = aiter(body)
    while True:
        try:
            async with asyncio.timeout(PART_SECONDS):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestTimeout(f"the body did not go on within {PART_SECONDS:g} s") from None
        yield part


async def _batches(kind: str, body: AsyncIterator[bytes]) -> AsyncGenerator[tuple[int, list[Row]]]:
    """Yield rows in batches, each with the number of its first, counted from 1."""
    rows: list[Row] = []
    number = 1
    if kind in JSONL:
        async for line in _lines(body):
            rows.append(_object(number + len(rows), line))
            if len(rows) == BATCH:
                yield number, rows
                number, rows = number + len(rows), []
        if rows:
            yield number, rows
        return
    with tempfile.TemporaryFile() as file:
        await _spooled(body, file)
        tables = _tables(kind, file)
        while (rows := await asyncio.to_thread(_next_table, kind, tables)) != []:
            yield number, rows
            number += len(rows)


async def _lines(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    left = b""
    async for part in body:
        *whole, left = (left + part).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(left) > LONGEST_LINE:
            raise InvalidRequest(f"a line has more than {LONGEST_LINE} bytes")
    if left.strip():
        yield left


def _object(number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"point {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InvalidRequest(f"point {number} is no object")
    return row


async def _spooled(body: AsyncIterator[bytes], file: IO[bytes]) -> None:
    size = 0
    async for part in body:
        size += len(part)
        if size > LARGEST_FILE:
            raise InvalidRequest(f"the file has more than {LARGEST_FILE} bytes; send several")
        await asyncio.to_thread(file.write, part)
    file.seek(0)


def _tables(kind: str, file: IO[bytes]) -> Iterator[list[Row]]:
    import pyarrow as pa
    from pyarrow import ipc, parquet

    batches: Iterator[pa.RecordBatch]
    if kind == ARROW:
        batches = (batch for batch in ipc.open_stream(file))
    else:
        batches = parquet.ParquetFile(file).iter_batches(batch_size=BATCH)
    for batch in batches:
        for first in range(0, batch.num_rows, BATCH):
            yield batch.slice(first, BATCH).to_pylist()


def _next_table(kind: str, tables: Iterator[list[Row]]) -> list[Row]:
    import pyarrow as pa

    try:
        return next(tables, [])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidRequest(f"the body is no {kind}: {error}") from error
