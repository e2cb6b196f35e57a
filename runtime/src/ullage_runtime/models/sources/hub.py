"""Files and folders of the Hugging Face hub, or of a mirror that speaks like it.

Address, headers and their names are `huggingface_hub`'s. The request itself is ours, so that a
file of the hub has the same address checks, retries, limits and cancellation as any other.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
import huggingface_hub
from huggingface_hub import constants

# Public, but exported lazily, which type checkers do not see.
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from ullage_api.names import CREDENTIALS_SECRET
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.access import Access, Origin
from ullage_runtime.models.sources.documents import Question, asked, refusal_of
from ullage_runtime.models.sources.failures import refused
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.listing import Listing, RemoteFile
from ullage_runtime.models.sources.needed import needed, needs_others
from ullage_runtime.models.sources.responses import Validators
from ullage_runtime.models.sources.retry import with_retries
from ullage_runtime.models.sources.uris import HubUri
from ullage_runtime.models.sources.web import Web

PUBLIC_HUB = "https://huggingface.co"

_FIRST_ERROR = 400

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Which hub is meant by `hf://`, and the token it gets."""

    endpoint: str = field(default_factory=_endpoint)
    token: str | None = field(default_factory=huggingface_hub.get_token, repr=False)

    def access(self) -> Access:
        """Return what requests to the hub may show, and to whom.

        An endpoint that an admin set is trusted: a mirror within the cluster has a private address
        and often no TLS. The hub's own name must lead to a public address like any other.
        """
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return Access(
            origin=Origin.of(httpx.URL(self.endpoint)),
            headers=tuple(headers.items()),
            trusted=self.endpoint.rstrip("/") != PUBLIC_HUB,
        )

    def url(self, uri: HubUri, path: str, commit: str | None = None) -> str:
        """Return the address of a repository's file, at a commit if it is known."""
        return huggingface_hub.hf_hub_url(
            uri.repository,
            path,
            revision=commit or uri.revision,
            endpoint=self.endpoint.rstrip("/"),
        )

    def listing_url(self, uri: HubUri) -> str:
        """Return the address of the list of a repository's files."""
        revision = quote(uri.revision, safe="")
        base = self.endpoint.rstrip("/")
        return f"{base}/api/models/{uri.repository}/revision/{revision}?blobs=true"

    def hints(self) -> dict[int, str]:
        """Return what to do about the hub's answers: it says 401 of what only a token may see."""
        if self.token:
            hint = "the token in HF_TOKEN may not read it, or the repository does not exist"
        else:
            hint = (
                "the repository does not exist, is private or is gated; for the latter two put a "
                f"token into the Secret {CREDENTIALS_SECRET}, as key "
                f"{httpx.URL(self.endpoint).host}, or set HF_TOKEN in the pool's environment"
            )
        return {HTTPStatus.UNAUTHORIZED: hint, HTTPStatus.FORBIDDEN: hint}

    def headers(self) -> dict[str, str]:
        """Return the headers of a request, without the token."""
        return build_hf_headers(token=False, library_name="ullage")


class HubSource:
    """One `hf://` address."""

    def __init__(self, uri: HubUri, hub: HubAccess, limits: Limits) -> None:
        self.label = uri.label
        self.main = uri.path if uri.path and not uri.path.endswith("/") else None
        self.is_pinned = uri.is_pinned
        self._uri = uri
        self._hub = hub
        self._limits = limits

    async def listing(self, web: Web, precision: PrecisionType) -> Listing:
        """Ask what the revision stands for, and of which files, sizes and digests."""
        if self.main is None or needs_others(self.main):
            return await self._of_repository(web, precision)
        found = await self._described(web)
        file = self._file(self.main, found.commit, found.etag, found.size, found.sha256)
        return Listing((file,), self.main, commit=found.commit)

    async def _of_repository(self, web: Web, precision: PrecisionType) -> Listing:
        question = Question(
            url=self._hub.listing_url(self._uri),
            what=self.label,
            headers=self._hub.headers(),
            access=self._hub.access(),
            hint=self._hub.hints(),
        )
        answer = (await asked(web, question, self._limits)).json(self.label)
        commit, folder = str(answer.get("sha") or ""), "" if self.main else self._uri.path
        listed = {
            str(entry["rfilename"]).removeprefix(folder): entry
            for entry in answer.get("siblings") or ()
            if isinstance(entry, dict) and str(entry.get("rfilename", "")).startswith(folder)
        }
        if not listed:
            raise refused(f"{self.label} holds no files; check the repository and folder")
        chosen = needed(list(listed), self.main, self.label, precision)
        files = [self._listed(name, folder, listed[name], commit) for name in chosen.files]
        version = None if chosen.is_single else commit
        return Listing(tuple(files), chosen.main, version=version, commit=commit)

    def _listed(self, name: str, folder: str, entry: Mapping[str, Any], commit: str) -> RemoteFile:
        large = entry.get("lfs") or {}
        sha256 = str(large.get("sha256") or "")
        size = large.get("size", entry.get("size"))
        known = sha256 if _SHA256.fullmatch(sha256) else None
        etag = known or (str(entry["blobId"]) if entry.get("blobId") else None)
        file = self._file(
            folder + name, commit, etag, size if isinstance(size, int) else None, known
        )
        return replace(file, name=name)

    def _file(
        self, path: str, commit: str | None, etag: str | None, size: int | None, sha256: str | None
    ) -> RemoteFile:
        return RemoteFile(
            name=path,
            url=self._hub.url(self._uri, path, commit),
            access=self._hub.access(),
            headers=tuple(self._hub.headers().items()),
            sha256=sha256,
            size=size,
            etag=etag,
            hints=self._hub.hints(),
        )

    async def _described(self, web: Web) -> "HubFile":
        hub = self._hub

        async def attempt() -> HubFile:
            request = web.request(
                "HEAD",
                hub.url(self._uri, self._uri.path),
                headers=hub.headers(),
                access=hub.access(),
                leave_origin=False,
            )
            async with request as response:
                if response.status_code >= _FIRST_ERROR:
                    raise refusal_of(response, hub.hints())
                return described(response)

        return await with_retries(attempt, what=self.label, limits=self._limits)


@dataclass(frozen=True, slots=True)
class HubFile:
    """What the hub says of a file."""

    commit: str | None
    etag: str | None
    size: int | None

    @property
    def sha256(self) -> str | None:
        """The file's digest: what the tag is for a large file (kept in LFS or Xet)."""
        return self.etag if self.etag and _SHA256.fullmatch(self.etag) else None


def described(response: httpx.Response) -> HubFile:
    """Return what the answer to a HEAD request says of the file."""
    headers = response.headers
    etag = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_ETAG)
    size = headers.get(constants.HUGGINGFACE_HEADER_X_LINKED_SIZE)
    if not response.is_redirect:
        etag = etag or Validators.of(headers).etag
        size = size or headers.get("Content-Length")
    return HubFile(
        commit=headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT),
        etag=etag.removeprefix("W/").strip('"') if etag else None,
        size=int(size) if size and size.isdecimal() else None,
    )
