"""The paths of sessions."""

from typing import Annotated

from fastapi import Path, Query, Request

from ullage_runtime.core.errors import DiskFull, OperationNotFound, SessionNotFound
from ullage_runtime.http.openapi import CALLED, SENT, refusals
from ullage_runtime.http.retrieval.access import collection_of, named, searcher_of, tenant_of
from ullage_runtime.http.retrieval.objects import SearchObject
from ullage_runtime.http.retrieval.router import EMBED, WRITE
from ullage_runtime.http.retrieval.service import found_object
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import ServicesOf
from ullage_runtime.http.sessions.objects import (
    DeletedSession,
    SessionObject,
    TurnList,
    TurnObject,
)
from ullage_runtime.http.sessions.schema import (
    RecallBody,
    SessionBody,
    SessionSearchBody,
    TurnsBody,
)
from ullage_runtime.retrieval.sessions.file import Session, Turn
from ullage_runtime.retrieval.sessions.sessions import USER

TAG = "Sessions"

router = Router(prefix="/v1/sessions", tag=TAG)

Id = Annotated[str, Path(max_length=64)]

_KNOWN = refusals(*CALLED, *SENT, SessionNotFound)
_CHANGED = refusals(*CALLED, *SENT, SessionNotFound, DiskFull)
_SEARCHED = refusals(*EMBED, SessionNotFound, DiskFull)


@router.post("", status_code=201, responses=refusals(*WRITE, OperationNotFound))
async def create_session(
    body: SessionBody, request: Request, services: ServicesOf
) -> SessionObject:
    """Begin a session, which remembers what is asked and what was found."""
    name = await named(services, request, body)
    collection_of(services, request, name)
    made = await services.sessions.create(tenant_of(request), name, body.ttl_seconds)
    return _object(made)


@router.get("/{session}", responses=_KNOWN)
async def get_session(session: Id, request: Request, services: ServicesOf) -> SessionObject:
    """Say how a session stands."""
    return _object(await services.sessions.get(tenant_of(request), session))


@router.delete("/{session}", responses=_CHANGED)
async def delete_session(session: Id, request: Request, services: ServicesOf) -> DeletedSession:
    """Forget a session and all that was said in it, on the disk too."""
    await services.sessions.delete(tenant_of(request), session)
    return DeletedSession(id=session, deleted=True)


@router.get("/{session}/turns", responses=_KNOWN)
async def list_turns(
    session: Id,
    request: Request,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many of the last ones.")] = 100,
) -> TurnList:
    """Return the last turns, in their order."""
    found = await services.sessions.get(tenant_of(request), session)
    turns = await services.sessions.turns(found, limit)
    return TurnList(turns=[TurnObject(role=each.role, text=each.text) for each in turns])


@router.post("/{session}/turns", responses=_CHANGED)
async def append_turns(
    session: Id, body: TurnsBody, request: Request, services: ServicesOf
) -> SessionObject:
    """Remember turns."""
    found = await services.sessions.get(tenant_of(request), session)
    await services.sessions.append(found, [Turn(each.role, each.text) for each in body.turns])
    return _object(await services.sessions.get(tenant_of(request), session))


@router.post("/{session}/search", responses=_SEARCHED, response_model_exclude_none=True)
async def search_in_session(
    session: Id, body: SessionSearchBody, request: Request, services: ServicesOf
) -> SearchObject:
    """Search the session's collection, building on what was asked before."""
    sessions, tenant = services.sessions, tenant_of(request)
    found = await sessions.get(tenant, session)
    searcher = searcher_of(services, request, found.collection)
    search = body.search(searcher.collection)
    findings = await sessions.search(
        found, searcher, search, tenant=tenant, demote=body.demote_shown
    )
    if body.remember and body.query is not None and not body.offset:
        await sessions.append(found, [Turn(USER, body.query)])
    return found_object(findings)


@router.post("/{session}/recall", responses=_SEARCHED, response_model_exclude_none=True)
async def recall_turns(
    session: Id, body: RecallBody, request: Request, services: ServicesOf
) -> TurnList:
    """Return the turns that are most like a question."""
    tenant = tenant_of(request)
    found = await services.sessions.get(tenant, session)
    collection = collection_of(services, request, found.collection)
    turns = await services.sessions.remembered(
        found, collection, body.query, body.limit, tenant=tenant
    )
    return TurnList(
        turns=[
            TurnObject(role=each.turn.role, text=each.turn.text, score=each.score) for each in turns
        ]
    )


def _object(session: Session) -> SessionObject:
    return SessionObject(
        id=session.id,
        collection=session.collection,
        created=int(session.created),
        expires=int(session.expires),
        turns=session.turns,
    )
