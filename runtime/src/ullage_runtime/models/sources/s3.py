"""Objects of S3, or of what speaks like it: one of them, or those beneath a prefix.

Requests are signed here (`signatures`) and sent by ourselves, so that an object has the same
address checks, retries, limits and resumption as any other file. Addresses are path-style, which
every server of the protocol understands.
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import httpx

from ullage_api.names import CREDENTIALS_SECRET
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.access import Access, Origin
from ullage_runtime.models.sources.credentials import credential
from ullage_runtime.models.sources.documents import Question, asked
from ullage_runtime.models.sources.failures import refused, unavailable
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.listing import Listing, RemoteFile
from ullage_runtime.models.sources.needed import MAX_FILES, needed, needs_others
from ullage_runtime.models.sources.signatures import Key, signed_headers
from ullage_runtime.models.sources.store import key_of
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.uris import S3Uri
from ullage_runtime.models.sources.web import Web

DEFAULT_REGION = "us-east-1"

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_KEY_PARTS = 2


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _ambient_key() -> Key | None:
    name, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not name or not secret:
        return None
    return Key(name, secret, os.environ.get("AWS_SESSION_TOKEN") or None)


@dataclass(frozen=True, slots=True)
class S3Access:
    """Which server is meant by `s3://`, and the key it is shown; names as AWS's tools have them."""

    region: str = field(default_factory=_region)
    endpoint: str | None = field(default_factory=_endpoint)
    """Another server than AWS's, which an admin set and which is trusted therefore."""
    key: Key | None = field(default_factory=_ambient_key, repr=False)

    @property
    def url(self) -> str:
        """The server's address."""
        return (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs requests with a key, or leaves them anonymous; an `Authorizer`."""

    key: Key | None
    region: str

    def headers(self, method: str, url: httpx.URL) -> Mapping[str, str]:
        """Return the signature of a request that is sent now."""
        if self.key is None:
            return {}
        return signed_headers(method, url, self.key, region=self.region, now=datetime.now(UTC))

    async def renewed(self, refusal: httpx.Response) -> bool:  # noqa: ARG002 - the port's signature
        """Return False: another signature with the same key is refused alike."""
        return False


def key_from(text: str | None, host: str) -> Key | None:
    """Return the key that a credential of a host holds; raises LoadError when it is none."""
    if text is None:
        return None
    name, *rest = text.split(":", _KEY_PARTS)
    if not name or not rest or not rest[0]:
        raise refused(
            f"the credential for {host} in {CREDENTIALS_SECRET} is no S3 key; write "
            "<access key id>:<secret access key>, and :<session token> if there is one"
        )
    return Key(name, rest[0], rest[1] if len(rest) == _KEY_PARTS else None)


class S3Source:
    """One `s3://` address."""

    def __init__(
        self, uri: S3Uri, access: S3Access, credentials: Path | None, limits: Limits
    ) -> None:
        self.label = uri.label
        self.main = uri.key.rsplit("/", 1)[-1] if uri.key and not uri.key.endswith("/") else None
        self.is_pinned = False
        self._uri = uri
        self._server = access
        self._credentials = credentials
        self._limits = limits

    async def listing(self, web: Web, precision: PrecisionType) -> Listing:
        """Ask for the objects beneath a folder; an object that stands alone needs no question."""
        access = await self._access()
        key, main = self._uri.key, self.main
        if main is not None and not needs_others(main):
            return Listing((self._file(main, key, access, None),), main)
        prefix = key[: len(key) - len(main)] if main else key
        found = await self._objects(web, access, prefix)
        chosen = needed(list(found), main, self.label, precision)
        files = tuple(
            self._file(name, prefix + name, access, found[name][0]) for name in chosen.files
        )
        if chosen.is_single:
            return Listing(files, chosen.main)
        tags = "".join(f"{name} {found[name][1]}\n" for name in chosen.files)
        return Listing(files, chosen.main, version=key_of(tags))

    async def _access(self) -> Access:
        url = httpx.URL(self._server.url)
        text = await in_thread(credential, self._credentials, url.host)
        key = key_from(text, url.host) or self._server.key
        return Access(
            origin=Origin.of(url),
            trusted=self._server.endpoint is not None,
            authorizer=Signer(key, self._server.region),
        )

    def _file(self, name: str, key: str, access: Access, size: int | None) -> RemoteFile:
        return RemoteFile(name, self._url(key), access, size=size, hints=self._hints())

    def _url(self, key: str) -> str:
        return f"{self._server.url}/{_quoted(self._uri.bucket)}/{_quoted(key, safe='/')}"

    async def _objects(self, web: Web, access: Access, prefix: str) -> dict[str, tuple[int, str]]:
        """Return size and tag of the objects beneath a prefix, by their name beneath it."""
        found: dict[str, tuple[int, str]] = {}
        token = ""
        while True:
            query = {"list-type": "2", "prefix": prefix}
            query |= {"continuation-token": token} if token else {}
            text = "&".join(f"{name}={_quoted(query[name])}" for name in sorted(query))
            question = Question(
                url=f"{self._server.url}/{_quoted(self._uri.bucket)}?{text}",
                what=self.label,
                headers={},
                access=access,
                hint=self._hints(),
            )
            page = _page((await asked(web, question, self._limits)).body, self.label)
            found |= {name.removeprefix(prefix): value for name, value in page[0].items()}
            if len(found) > MAX_FILES:
                raise refused(f"{self.label} holds more than {MAX_FILES} objects; name a folder")
            token = page[1]
            if not token:
                return found

    def _hints(self) -> dict[int, str]:
        host = httpx.URL(self._server.url).host
        secret = f"the key in the Secret {CREDENTIALS_SECRET}, as {host}"
        return {
            301: f"the bucket lies in another region than {self._server.region}; set AWS_REGION",
            403: f"{secret}, must allow s3:GetObject and s3:ListBucket",
            404: "there is no such bucket or object",
        }


def _page(body: bytes, what: str) -> tuple[dict[str, tuple[int, str]], str]:
    """Return the objects of one page of a listing, and the token of the next one."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - bounded, and expat bounds entities
    except ET.ParseError as error:
        raise unavailable(f"{what}: the server's list is no XML: {error}") from error
    found: dict[str, tuple[int, str]] = {}
    token = ""
    for element in root:
        tag = _NAMESPACE.sub("", element.tag)
        if tag == "NextContinuationToken":
            token = element.text or ""
        elif tag == "Contents":
            fields = {_NAMESPACE.sub("", e.tag): e.text or "" for e in element}
            key, size = fields.get("Key", ""), fields.get("Size", "")
            if key and not key.endswith("/") and size.isdecimal():
                found[key] = (int(size), fields.get("ETag", ""))
    return found, token


def _quoted(text: str, safe: str = "") -> str:
    return quote(text, safe=f"-._~{safe}")
