"""The addresses a model may have, parsed: of a file, or of a folder of files."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from ullage_api.kinds.model_source import SCHEMES
from ullage_runtime.models.sources.failures import refused

DEFAULT_REVISION = "main"
DEFAULT_TAG = "latest"

_HUB = re.compile(
    r"(?P<owner>[^/@]+)/(?P<name>[^/@]+)(?:/(?P<path>[^@]*?))?(?:@(?P<revision>[-._A-Za-z0-9]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_S3 = re.compile(r"(?P<bucket>[a-z0-9][-.a-z0-9]{1,62})(?:/(?P<key>.*))?")
_OCI = re.compile(
    r"(?P<registry>[-.A-Za-z0-9]+(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?)"
    r"/(?P<repository>[a-z0-9]+(?:[-._/]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][-._A-Za-z0-9]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))?"
    r"(?:#(?P<path>.+))?"
)


@dataclass(frozen=True, slots=True)
class FileUri:
    """A file of the pod: an absolute path, or a name to look up beneath the pool's folders."""

    path: str

    @property
    def is_absolute(self) -> bool:
        """Whether the path begins at the root."""
        return self.path.startswith("/")


@dataclass(frozen=True, slots=True)
class WebUri:
    """A file behind `https://` or `http://`."""

    url: str

    @property
    def label(self) -> str:
        """The address without its query, which may hold a secret."""
        return url_label(self.url)


@dataclass(frozen=True, slots=True)
class HubUri:
    """A file or folder of a repository of the Hugging Face hub, or of what speaks like it."""

    repository: str
    path: str
    """Of a folder it ends in a slash; empty for the whole repository."""
    revision: str = DEFAULT_REVISION

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, whose files never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def label(self) -> str:
        """The address, for messages."""
        return f"hf://{self.repository}/{self.path}".rstrip("/") + f"@{self.revision}"


@dataclass(frozen=True, slots=True)
class S3Uri:
    """An object of S3, or of what speaks like it, or all beneath a prefix that ends in a slash."""

    bucket: str
    key: str

    @property
    def label(self) -> str:
        """The address, for messages."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class OciUri:
    """An artifact or image of a registry, or one file of it."""

    registry: str
    repository: str
    reference: str
    """A tag, or a digest with its algorithm."""
    path: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether it names a digest, behind which nothing ever changes."""
        return self.reference.startswith("sha256:")

    @property
    def scheme(self) -> str:
        """How the registry is spoken to: as the field's tools do, plainly on this machine only."""
        host = httpx.URL(f"https://{self.registry}").host
        is_own = host in {"localhost", "::1"} or host.startswith("127.")
        return "http" if is_own else "https"

    @property
    def label(self) -> str:
        """The address, for messages."""
        mark = "@" if self.is_pinned else ":"
        path = f"#{self.path}" if self.path else ""
        return f"oci://{self.registry}/{self.repository}{mark}{self.reference}{path}"


RemoteUri = WebUri | HubUri | S3Uri | OciUri
SourceUri = FileUri | RemoteUri


def parsed(uri: str) -> SourceUri:
    """Return the parts of a model's address; raises LoadError when it has no known form."""
    scheme, separator, rest = uri.partition(":")
    match scheme.lower():
        case "file" if separator:
            return _file_uri(rest)
        case "http" | "https" if rest.startswith("//"):
            return _web_uri(uri)
        case "hf" if rest.startswith("//"):
            return _hub_uri(rest.removeprefix("//"))
        case "s3" if rest.startswith("//"):
            return _s3_uri(rest.removeprefix("//"))
        case "oci" if rest.startswith("//"):
            return _oci_uri(rest.removeprefix("//"))
        case "pvc" if rest.startswith("//"):
            raise refused(
                f"model.uri {uri[:80]!r} names a claim that the pool's pods do not mount; an admin "
                "mounts it with volumes and volumeMounts in the pool's profile"
            )
        case _:
            raise refused(
                f"model.uri {uri[:80]!r} is of no known kind; it must begin with "
                f"{', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
            )


def url_label(url: str) -> str:
    """Return a URL without query, fragment and user, as messages show it."""
    parts = httpx.URL(url)
    return str(parts.copy_with(query=None, fragment=None, userinfo=b""))


def _file_uri(rest: str) -> FileUri:
    path = rest
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host not in {"", "localhost"}:
            raise refused(
                f"model.uri names the host {host!r}; a file's address has none: write "
                "file:///<path>, or file:<name> for a file beneath the pool's model folders"
            )
        path = slash + tail
    path = unquote(path)
    if "\0" in path or not path.strip("/"):
        raise refused("model.uri names no file; write file:///<path> or file:<name>")
    return FileUri(path)


def _web_uri(uri: str) -> WebUri:
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL as error:
        raise refused(f"model.uri is not a URL: {error}") from error
    if not url.host:
        raise refused("model.uri names no host")
    if url.userinfo:
        raise refused(
            "model.uri holds a user name or password, which everybody who may read the resource "
            "would see; give the file an address without them"
        )
    return WebUri(str(url.copy_with(fragment=None)))


def _hub_uri(rest: str) -> HubUri:
    match = _HUB.fullmatch(rest)
    path = unquote((match and match["path"]) or "")
    if match is None or _is_astray(path):
        raise refused(
            f"model.uri hf://{rest[:80]} must be "
            "hf://<owner>/<repository>[/<file, or folder/>][@<revision>]"
        )
    return HubUri(
        repository=f"{match['owner']}/{match['name']}",
        path=path,
        revision=match["revision"] or DEFAULT_REVISION,
    )


def _s3_uri(rest: str) -> S3Uri:
    match = _S3.fullmatch(rest)
    key = unquote((match and match["key"]) or "")
    if match is None or _is_astray(key):
        raise refused(f"model.uri s3://{rest[:80]} must be s3://<bucket>/<object, or prefix/>")
    return S3Uri(match["bucket"], key)


def _oci_uri(rest: str) -> OciUri:
    match = _OCI.fullmatch(rest)
    path = unquote((match and match["path"]) or "")
    if match is None or _is_astray(path):
        raise refused(
            f"model.uri oci://{rest[:80]} must be "
            "oci://<registry>/<repository>[:<tag> or @sha256:<digest>][#<file>]"
        )
    reference = match["tag"] or match["digest"] or DEFAULT_TAG
    return OciUri(match["registry"], match["repository"], reference, path or None)


def _is_astray(path: str) -> bool:
    """Whether a path could lead out of where it begins."""
    parts = path.removesuffix("/").split("/") if path else []
    return "\0" in path or any(part in {"", ".", ".."} for part in parts)
