"""Real servers that models come from, and a relay before them that misbehaves as it is told."""

import base64
import contextlib
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from e2e.cluster.binaries import program
from tests.support.file_server import Fault, FileServer, Seen
from tests.support.processes import environment, free_port, running_process, wait_until_answers

KEY_ID, KEY_SECRET = "reader", "s3cret"
"""What both let in: as an access key, and as user and password."""
_BCRYPT: Final = "$2b$04$IX5PcGrY6JxXqQXWqPHs2ucQKtAE7M27z6jen6y7EYUNKKnFSdPiG"
"""Of the secret, as the registry wants it."""
_LAYER: Final = "application/octet-stream"
_ARCHIVE: Final = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_TITLE: Final = "org.opencontainers.image.title"
_SERVICE, _ISSUER = "models.test", "tokens.test"
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Relay(FileServer):
    """Passes requests on to another server, and its answers back, unless a fault is scripted."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = upstream

    async def _found(self, seen: Seen, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        del fault
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = await client.request(
                seen.method, f"{self._upstream}{seen.path}", headers=seen.headers
            )
        headers = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP}
        return answer.status_code, headers, answer.content


@dataclass(frozen=True, slots=True)
class S3Gateway:
    """Versity's S3 gateway: a bucket is a folder beneath `folder`, an object a file in it."""

    url: str
    folder: pathlib.Path

    def put(self, bucket: str, name: str, data: bytes) -> None:
        """Put an object where the gateway looks for it, with the tag that S3 would give it."""
        path = self.folder / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        os.setxattr(path, "user.etag", tag.encode())


@contextlib.contextmanager
def s3_gateway_at(folder: pathlib.Path) -> Iterator[S3Gateway]:
    """Run the gateway for the length of a block."""
    port = free_port()
    given = {
        **environment(folder),
        "ROOT_ACCESS_KEY": KEY_ID,
        "ROOT_SECRET_KEY": KEY_SECRET,
        "VGW_HEALTH": "/health",
    }
    buckets = folder / "buckets"
    buckets.mkdir()
    command = (str(program("versitygw")), "--quiet", "--port", f"127.0.0.1:{port}")
    with running_process(command, given, "posix", str(buckets), cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/health", process)
        yield S3Gateway(f"http://127.0.0.1:{port}", buckets)


@dataclass(frozen=True, slots=True)
class Registry:
    """CNCF's registry, which lets in only who has the login, or a token for it."""

    url: str
    shown: Callable[[str], str] = lambda _: basic(KEY_SECRET)
    """Takes a repository; returns what is shown to push to it."""

    def push_artifact(self, repository: str, files: Mapping[str, bytes]) -> str:
        """Push files as ORAS does, each a layer that is named; return the manifest's digest."""
        layers = [
            self._pushed(repository, data, _LAYER) | {"annotations": {_TITLE: name}}
            for name, data in files.items()
        ]
        return self._push_manifest(repository, layers)

    def push_image(self, repository: str, files: Mapping[str, bytes]) -> str:
        """Push files beneath `/models` of an image of one layer; return the manifest's digest."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(f"models/{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        layer = self._pushed(repository, archive.getvalue(), _ARCHIVE)
        return self._push_manifest(repository, [layer])

    def _push_manifest(self, repository: str, layers: list[dict[str, object]]) -> str:
        config = self._pushed(repository, b"{}", "application/vnd.oci.empty.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config,
            "layers": layers,
        }
        answer = httpx.put(
            f"{self.url}/v2/{repository}/manifests/latest",
            content=json.dumps(manifest),
            headers={"Content-Type": _MANIFEST, "Authorization": self.shown(repository)},
            trust_env=False,
        )
        answer.raise_for_status()
        return str(answer.headers["docker-content-digest"])

    def _pushed(self, repository: str, data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        headers = {"Authorization": self.shown(repository)}
        with httpx.Client(headers=headers, trust_env=False, timeout=60) as client:
            begun = client.post(f"{self.url}/v2/{repository}/blobs/uploads/")
            begun.raise_for_status()
            place = httpx.URL(self.url).join(begun.headers["location"])
            client.put(place.copy_merge_params({"digest": digest}), content=data).raise_for_status()
        return {"mediaType": kind, "digest": digest, "size": len(data)}


@contextlib.contextmanager
def oci_registry_at(folder: pathlib.Path) -> Iterator[Registry]:
    """Run a registry that asks for user and password, for the length of a block."""
    (folder / "htpasswd").write_text(f"{KEY_ID}:{_BCRYPT}\n")
    auth = {"htpasswd": {"realm": "models", "path": str(folder / "htpasswd")}}
    with _registry_at(folder, auth) as url:
        yield Registry(url)


@contextlib.contextmanager
def token_registry_at(folder: pathlib.Path, tokens: "TokenService") -> Iterator[Registry]:
    """Run a registry that asks for tokens of a service, for the length of a block."""
    auth = {
        "token": {
            "realm": tokens.url("/token", tokens.host),
            "service": _SERVICE,
            "issuer": _ISSUER,
            "rootcertbundle": str(tokens.chain),
        }
    }
    with _registry_at(folder, auth) as url:
        yield Registry(url, lambda repository: f"Bearer {tokens.token(repository, 'pull,push')}")


@contextlib.contextmanager
def _registry_at(folder: pathlib.Path, auth: Mapping[str, object]) -> Iterator[str]:
    port = free_port()
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": auth,
    }
    (folder / "config.yml").write_text(json.dumps(config))
    given = {**environment(folder), "OTEL_TRACES_EXPORTER": "none"}
    command = (str(program("registry")), "serve")
    with running_process(command, given, str(folder / "config.yml"), cwd=folder) as process:
        wait_until_answers(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}"


class TokenService(FileServer):
    """Signs tokens for a registry, as Docker Hub's and GitHub's do, to who has the login."""

    def __init__(self, folder: pathlib.Path, host: str) -> None:
        super().__init__()
        self.host = host
        self.chain = folder / "chain.pem"
        self._key = folder / "key.pem"
        subprocess.run(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=tokens.test "
            f"-keyout {self._key} -out {self.chain}".split(),
            check=True,
            capture_output=True,
        )

    def token(self, repository: str, actions: str) -> str:
        """Return a token that allows something with a repository for a minute."""
        now = int(time.time())
        pem = self.chain.read_text()
        head = {"alg": "RS256", "typ": "JWT", "x5c": ["".join(pem.splitlines()[1:-1])]}
        access = {"type": "repository", "name": repository, "actions": actions.split(",")}
        claims = {
            "iss": _ISSUER,
            "aud": _SERVICE,
            "sub": KEY_ID,
            "nbf": now,
            "iat": now,
            "exp": now + 60,
            "jti": uuid.uuid4().hex,
            "access": [access],
        }
        signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=signed.encode(),
            check=True,
            capture_output=True,
        ).stdout
        return f"{signed}.{_encoded(signature)}"

    async def _found(self, seen: Seen, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        del fault
        if seen.headers.get("authorization") != basic(KEY_SECRET):
            return 401, {"Content-Length": "0"}, b""
        asked = httpx.URL(seen.path).params
        kind, repository, actions = asked["scope"].split(":")
        assert (kind, asked["service"]) == ("repository", _SERVICE)
        body = json.dumps({"token": self.token(repository, actions)}).encode()
        return 200, {"Content-Length": str(len(body))}, body


def basic(secret: str) -> str:
    """Return the login as HTTP's basic authentication shows it."""
    return f"Basic {base64.b64encode(f'{KEY_ID}:{secret}'.encode()).decode()}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
