"""Artifacts and images of an OCI registry, by the distribution protocol.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md. Two ways to hold a model are
in use: an artifact whose layers are the files, named by annotations, as ORAS and ModelPack push
them; and an image ("modelcar") whose layers are archives with the files beneath `/models`.
"""

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from ullage_api.names import CREDENTIALS_SECRET
from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.access import Access, Origin
from ullage_runtime.models.sources.digests import sha256_of
from ullage_runtime.models.sources.documents import Document, Question, asked
from ullage_runtime.models.sources.failures import checksum_mismatch, refused, unavailable
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.listing import Listing, RemoteFile
from ullage_runtime.models.sources.needed import MAX_FILES, needed
from ullage_runtime.models.sources.registry_tokens import RegistryLogin
from ullage_runtime.models.sources.uris import OciUri
from ullage_runtime.models.sources.web import Web

IMAGE_FOLDER: Final = "models/"
"""Where a modelcar image holds its files."""

_TITLE: Final = "org.opencontainers.image.title"
_UNPACK: Final = "io.deis.oras.content.unpack"
_FILE_PATHS: Final = (_TITLE, "org.cncf.model.filepath")
_INDEXES: Final = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_MANIFESTS: Final = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_ARCHIVES: Final = re.compile(r".*(\.|\+|-)tar(\+gzip|\.gzip|\+zstd)?$")
_SHA256: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class OciSource:
    """One `oci://` address."""

    def __init__(self, uri: OciUri, credentials: Path | None, limits: Limits) -> None:
        self.label = uri.label
        self.main = uri.path
        self.is_pinned = uri.is_pinned
        self._uri = uri
        self._credentials = credentials
        self._limits = limits

    async def listing(self, web: Web, precision: PrecisionType) -> Listing:
        """Read the manifest: it has the digests and sizes of all layers."""
        access = self._access(web)
        manifest, digest = await self._manifest(web, access, self._uri.reference)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            manifest, _ = await self._manifest(web, access, self._of_platform(manifest))
        layers = _objects(manifest, "layers")
        if not layers or len(layers) > MAX_FILES:
            raise refused(f"{self.label} has {len(layers)} layers; a model has 1 to {MAX_FILES}")
        named = [self._file(layer, access) for layer in layers]
        if all(file.name for file in named) and not any(map(_is_packed, layers)):
            files = {file.name: file for file in named}
            chosen = needed(list(files), self.main, self.label, precision)
            return Listing(tuple(files[n] for n in chosen.files), chosen.main, version=digest)
        return self._of_archives(layers, named, digest)

    def _of_archives(
        self, layers: list[dict[str, Any]], named: list[RemoteFile], digest: str
    ) -> Listing:
        archives = [
            (layer, file)
            for layer, file in zip(layers, named, strict=True)
            if _ARCHIVES.fullmatch(str(layer.get("mediaType", "")))
        ]
        if len(archives) != len(layers):
            kinds = sorted({str(layer.get("mediaType", "")) for layer in layers})
            raise refused(
                f"{self.label} is neither an artifact with named files nor an image: its layers "
                f"are {', '.join(kinds)[:200]}"
            )
        title = named[0].name if len(named) == 1 and _is_packed(layers[0]) else ""
        folder = f"{title.strip('/')}/" if title else IMAGE_FOLDER
        return Listing(
            tuple(file for _, file in archives), self.main, version=digest, unpacked=folder
        )

    def _access(self, web: Web) -> Access:
        url = httpx.URL(self._url(""))
        login = RegistryLogin(web, self._credentials, url.host, self._uri.repository, self._limits)
        return Access(origin=Origin.of(url), authorizer=login)

    def _url(self, path: str) -> str:
        uri = self._uri
        return f"{uri.scheme}://{uri.registry}/v2/{uri.repository}/{path}"

    async def _manifest(
        self, web: Web, access: Access, reference: str
    ) -> tuple[dict[str, Any], str]:
        question = Question(
            url=self._url(f"manifests/{reference}"),
            what=self.label,
            headers={"Accept": ", ".join(sorted(_MANIFESTS | _INDEXES))},
            access=access,
            hint=self._hints(),
        )
        document = await asked(web, question, self._limits)
        return document.json(self.label), self._digest(document, reference)

    def _digest(self, document: Document, reference: str) -> str:
        actual = sha256_of(document.body)
        wanted = _SHA256.fullmatch(reference)
        if wanted and wanted[1] != actual:
            raise checksum_mismatch(f"{self.label}'s manifest", expected=wanted[1], actual=actual)
        return f"sha256:{actual}"

    def _of_platform(self, index: dict[str, Any]) -> str:
        entries = _objects(index, "manifests")
        machine = _MACHINES.get(platform.machine(), platform.machine())
        fitting = [
            entry
            for entry in entries
            if (entry.get("platform") or {}).get("architecture") in {None, machine, "unknown"}
        ]
        exact = [e for e in fitting if (e.get("platform") or {}).get("architecture") == machine]
        chosen = (exact or fitting or [{}])[0].get("digest")
        if not isinstance(chosen, str) or not _SHA256.fullmatch(chosen):
            raise refused(f"{self.label} is an index without an entry for linux/{machine}")
        return chosen

    def _file(self, layer: dict[str, Any], access: Access) -> RemoteFile:
        digest, size = str(layer.get("digest", "")), layer.get("size")
        match = _SHA256.fullmatch(digest)
        if match is None:
            raise refused(f"{self.label} names a layer by {digest[:80]!r}, which is no SHA-256")
        notes = layer.get("annotations") or {}
        return RemoteFile(
            name=next((str(notes[key]) for key in _FILE_PATHS if notes.get(key)), ""),
            url=self._url(f"blobs/{digest}"),
            access=access,
            sha256=match[1],
            size=size if isinstance(size, int) and size >= 0 else None,
            hints=self._hints(),
        )

    def _hints(self) -> Mapping[int, str]:
        host = httpx.URL(self._url("")).host
        secret = f"the Secret {CREDENTIALS_SECRET}, as {host}: <user>:<password>"
        return {
            401: f"the repository does not exist or is private; put a login into {secret}",
            403: f"the login may not pull from the repository; correct it in {secret}",
            404: "there is no such repository or tag",
        }


def _is_packed(layer: dict[str, Any]) -> bool:
    return (layer.get("annotations") or {}).get(_UNPACK) == "true"


def _objects(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = data.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise unavailable(f"the registry's manifest has no list of {name}")
    return found
