"""Chats that go on a session: the model is shown its turns, and what it answers becomes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from starlette.requests import Request

from ullage_runtime.core.domain import Message
from ullage_runtime.http.auth import Key
from ullage_runtime.http.middleware import KEY
from ullage_runtime.http.services import Services
from ullage_runtime.retrieval.sessions.file import Session, Turn
from ullage_runtime.retrieval.sessions.sessions import MAX_TEXT, USER, Sessions

SHOWN_TURNS: Final = 20
SHOWN_CHARACTERS: Final = 8000
"""How much of a session a model is shown, the latest of it."""

_ASSISTANT: Final = "assistant"


@dataclass(frozen=True, slots=True)
class Remembering:
    """A session, and the turns of it that a model is shown."""

    sessions: Sessions
    session: Session
    turns: tuple[Turn, ...]
    question: str
    """What the user says now."""

    def shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Return a chat with the session's turns after its instructions."""
        first = next((i for i, each in enumerate(messages) if each.role != "system"), len(messages))
        turns = (Message(each.role, each.text) for each in self.turns)
        return (*messages[:first], *turns, *messages[first:])

    async def keep(self, answer: str) -> None:
        """Remember what the user has said, and what was answered."""
        said = [Turn(USER, self.question), Turn(_ASSISTANT, answer)]
        turns = [Turn(each.role, each.text[:MAX_TEXT]) for each in said if each.text]
        await self.sessions.append(self.session, turns)


async def remembering_of(
    services: Services, request: Request, session_id: str | None, messages: Sequence[Message]
) -> Remembering | None:
    """Return the session that a chat goes on, if it names one; raises SessionNotFound."""
    if session_id is None:
        return None
    key: Key = request.scope[KEY]
    sessions = services.sessions
    session = await sessions.get(key.id, session_id)
    turns = _latest(await sessions.turns(session, SHOWN_TURNS))
    question = next((each.content for each in reversed(messages) if each.role == USER), "")
    return Remembering(sessions, session, tuple(_taking_turns(turns)), question)


def _latest(turns: Sequence[Turn]) -> list[Turn]:
    """Return the last turns, as many as a model is shown."""
    room, kept = SHOWN_CHARACTERS, 0
    for turn in reversed(turns):
        room -= len(turn.text)
        if room < 0:
            break
        kept += 1
    return list(turns[len(turns) - kept :])


def _taking_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Return turns of user and assistant one after the other, as chat templates want them."""
    joined = [
        Turn(role, "\n\n".join(each.text for each in group))
        for role, group in groupby(turns, lambda turn: turn.role)
    ]
    begin = 1 if joined and joined[0].role == _ASSISTANT else 0
    end = -1 if joined and joined[-1].role == USER else None
    return joined[begin:end]
