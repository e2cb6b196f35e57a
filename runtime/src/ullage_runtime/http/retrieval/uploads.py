"""Documents as the files they are, and points as streams of any length."""

import json
from email.message import Message
from typing import Annotated, Any, Final

import pydantic
from fastapi import Path, Query, Request, Response

from ullage_runtime.core.errors import DocumentNotFound, InvalidRequest, RequestTimeout
from ullage_runtime.http.openapi import refusals
from ullage_runtime.http.retrieval import service
from ullage_runtime.http.retrieval.access import CollectionOf, IngestionOf, TenantOf
from ullage_runtime.http.retrieval.importing import MEDIA_TYPES as POINT_TYPES
from ullage_runtime.http.retrieval.importing import imported
from ullage_runtime.http.retrieval.objects import ChangeObject, OperationObject
from ullage_runtime.http.retrieval.router import EMBED, READ, TAG, WRITE, Wait
from ullage_runtime.http.retrieval.schema import MAX_DOCUMENTS, DocumentBody, DocumentsBody
from ullage_runtime.http.routes import Router
from ullage_runtime.retrieval.ingest.documents import Original
from ullage_runtime.retrieval.ingest.reading.formats import (
    DERIVED,
    MEDIA_TYPES,
    Format,
    Unreadable,
)
from ullage_runtime.retrieval.ingest.reading.reader import Reader

router = Router(prefix="/v1", tag=TAG)

_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
_ANY: Final[dict[str, Any]] = {"content": {"*/*": _FILE}, "description": "The file."}
_READER: Final = Reader()


def _taking(types: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": dict.fromkeys(types, _FILE)}}


@router.post(
    "/collections/{collection}/documents/upload",
    status_code=202,
    responses=refusals(*WRITE),
    openapi_extra=_taking(MEDIA_TYPES),
)
async def upload_document(
    ingestion: IngestionOf,
    request: Request,
    *,
    document: Annotated[
        str | None,
        Query(alias="id", min_length=1, max_length=512, description="Its id; not for JSONL."),
    ] = None,
    wait: Wait = False,
) -> OperationObject:
    """Take a file in: text, Markdown, HTML, PDF, or JSONL with a document in each line.

    The Content-Type says which, with a `charset` where it is not UTF-8. What cannot be read is
    refused with its reason.
    """
    form, charset = _form(request)
    content = await request.body()
    originals: dict[str, Original] = {}
    try:
        read = await _READER.read(content, form, charset)
    except Unreadable as error:
        raise InvalidRequest(f"document {document or form.value!r}: {error}") from error
    if form is Format.JSONL:
        if document is not None:
            raise InvalidRequest("the lines of JSONL have ids of their own", param="id")
        body = _lines(read.text)
    elif document is None:
        raise InvalidRequest("the document's id is needed: add ?id=… to the path", param="id")
    else:
        metadata = {"title": read.title} if read.title else {}
        body = DocumentsBody(
            documents=[DocumentBody(id=document, text=read.text, metadata=metadata)]
        )
        if form in DERIVED:
            originals[document] = Original(_media_type(request)[0], content)
    return await service.ingested(ingestion, body, wait=wait, originals=originals)


@router.get(
    "/collections/{collection}/originals/{document:path}",
    responses={**refusals(*READ, DocumentNotFound), 200: _ANY},
    response_class=Response,
)
async def get_original(
    ingestion: IngestionOf, document: Annotated[str, Path(min_length=1, max_length=512)]
) -> Response:
    """Return the file that a document's text was read from, such as a PDF."""
    found = await ingestion.original(document)
    # Whoever opens it in a browser must not run what it has in it.
    headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
    return Response(found.body, media_type=found.media_type, headers=headers)


@router.post(
    "/collections/{collection}/points/import",
    responses=refusals(*EMBED, RequestTimeout),
    openapi_extra=_taking(POINT_TYPES),
)
async def import_points(
    found: CollectionOf, request: Request, tenant: TenantOf, *, wait: Wait = False
) -> ChangeObject:
    """Write any number of points: JSONL, an Arrow stream, or a Parquet file, by the Content-Type.

    Columns are those of a point: `id`, and `text` or `vector`; all others become its payload. It
    is read no faster than the store takes it. Points before one that is refused stay written; the
    error says how many there are.
    """
    kind, _ = _media_type(request)
    return await imported(found, kind, request.stream(), wait=wait, tenant=tenant)


def _media_type(request: Request) -> tuple[str, str | None]:
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    charset = message.get_param("charset")
    return message.get_content_type(), charset if isinstance(charset, str) else None


def _form(request: Request) -> tuple[Format, str | None]:
    kind, charset = _media_type(request)
    form = MEDIA_TYPES.get(kind)
    if form is None:
        raise InvalidRequest(
            f"Content-Type {kind!r} cannot be read; known are {', '.join(MEDIA_TYPES)}",
            param="content-type",
        )
    return form, charset


def _lines(text: str) -> DocumentsBody:
    documents = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            documents.append(DocumentBody.model_validate(json.loads(line)))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"line {number}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise InvalidRequest(f"line {number} is no JSON: {error}") from error
        if len(documents) > MAX_DOCUMENTS:
            raise InvalidRequest(f"a request may bring {MAX_DOCUMENTS} documents; send several")
    if not documents:
        raise InvalidRequest("there is no document in it")
    return DocumentsBody(documents=documents)
