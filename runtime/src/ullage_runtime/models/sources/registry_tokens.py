"""Logging in to a registry: its 401 says where tokens come from, and for what they are asked.

https://distribution.github.io/distribution/spec/auth/token/. Tokens last minutes and downloads
hours, so every 401 fetches another one.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from ullage_api.names import CREDENTIALS_SECRET
from ullage_runtime.models.sources.access import Access, Origin
from ullage_runtime.models.sources.credentials import credential
from ullage_runtime.models.sources.documents import Question, asked
from ullage_runtime.models.sources.failures import refused
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.web import Web

_CHALLENGE = re.compile(r"\s*(?P<scheme>\w+)\s+(?P<rest>.*)", re.DOTALL)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Login:
    """User and password, as a token service takes them; an `Authorizer`."""

    shown: str

    def headers(self, method: str, url: httpx.URL) -> Mapping[str, str]:  # noqa: ARG002 - the port
        """Return the login, if there is one."""
        return {"Authorization": self.shown} if self.shown else {}

    async def renewed(self, refusal: httpx.Response) -> bool:  # noqa: ARG002 - the port
        """Return False: there is one login only."""
        return False


class RegistryLogin:
    """What one registry is shown for one repository; an `Authorizer`.

    A host's credential is `<user>:<password>`, or a token that is sent as it is. A token service on
    another host than the registry's has an entry of its own.
    """

    def __init__(
        self, web: Web, credentials: Path | None, host: str, repository: str, limits: Limits
    ) -> None:
        self._web = web
        self._credentials = credentials
        self._host = host
        self._repository = repository
        self._limits = limits
        self._shown = ""

    def headers(self, method: str, url: httpx.URL) -> Mapping[str, str]:  # noqa: ARG002 - the port
        """Return what was last agreed with the registry."""
        return {"Authorization": self._shown} if self._shown else {}

    async def renewed(self, refusal: httpx.Response) -> bool:
        """Do what the registry's refusal asks for; False if that changes nothing."""
        challenge = _CHALLENGE.fullmatch(refusal.headers.get("WWW-Authenticate", ""))
        scheme = challenge["scheme"].lower() if challenge else ""
        before = self._shown
        text = await self._text(self._host)
        if text and ":" not in text and not before:
            self._shown = f"Bearer {text}"
        elif scheme == "basic":
            self._shown = _basic(text)
        elif challenge and scheme == "bearer":
            self._shown = f"Bearer {await self._token(dict(_PARAMETER.findall(challenge['rest'])))}"
        return self._shown != before

    async def _text(self, host: str) -> str:
        return await in_thread(credential, self._credentials, host) or ""

    async def _token(self, asked_for: Mapping[str, str]) -> str:
        try:
            realm = httpx.URL(asked_for.get("realm", ""))
        except httpx.InvalidURL as error:
            raise refused(f"{self._host} names no place for tokens: {error}") from error
        query = {"scope": f"repository:{self._repository}:pull"}
        if service := asked_for.get("service"):
            query["service"] = service
        where = f"; it is the entry {realm.host} of the Secret {CREDENTIALS_SECRET}"
        question = Question(
            url=str(realm.copy_merge_params(query)),
            what=f"the token service of {self._host}",
            headers={},
            access=Access(
                origin=Origin.of(realm), authorizer=_Login(_basic(await self._text(realm.host)))
            ),
            hint={
                401: f"the registry's login is missing or not valid{where}",
                403: f"the registry's login may not pull from the repository{where}",
            },
        )
        answer = (await asked(self._web, question, self._limits)).json(question.what)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise refused(f"the token service of {self._host} answered without a token")
        return token


def _basic(text: str) -> str:
    if ":" not in text:
        return ""
    return f"Basic {base64.b64encode(text.encode()).decode()}"
