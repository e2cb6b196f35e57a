"""A cluster's own certificate authority, made with the `openssl` command.

Keys are P-256: one takes milliseconds to make, an RSA key a noticeable part of a cluster's start.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.cluster.errors import MissingRequirementError
from e2e.cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Authority", "KeyPair"]

VALID_DAYS = "365"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder; every certificate it issues is kept beside it."""

    folder: Path

    @property
    def own(self) -> KeyPair:
        """The authority's own self-signed pair."""
        return self._pair("ca")

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """Make a new authority in `folder`, readable by its owner only."""
        if shutil.which("openssl") is None:
            message = "the `openssl` command is missing: install the package openssl"
            raise MissingRequirementError(message)
        folder.mkdir(parents=True, mode=0o700)
        authority = cls(folder)
        own = authority.own
        _new_key(own.key)
        lines = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
        with _extensions("\n".join(lines)) as extensions:
            request = _request(own.key, "/CN=ullage-ca")
            run(_sign(extensions, own.certificate, "-signkey", own.key), stdin=request)
        return authority

    def issue(
        self, name: str, *, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> KeyPair:
        """Issue a certificate that speaks for `user` and, where `hosts` are given, serves on them.

        Args:
            name: what the files are called.
            user: the subject's common name; Kubernetes takes it as the user's name.
            groups: the subject's organisations; Kubernetes takes them as the user's groups.
            hosts: `IP:…` and `DNS:…` names to serve on.
        """
        pair = self._pair(name)
        _new_key(pair.key)
        lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"]
        if hosts:
            lines.append(f"subjectAltName={','.join(hosts)}")
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        authority: list[str | Path] = [
            "-CA",
            self.own.certificate,
            "-CAkey",
            self.own.key,
            "-CAcreateserial",
        ]
        with _extensions("\n".join(lines)) as extensions:
            run(_sign(extensions, pair.certificate, *authority), stdin=_request(pair.key, subject))
        return pair

    def signing_key(self, name: str) -> Path:
        """Make a bare private key, as service account tokens are signed with."""
        path = self.folder / f"{name}.key"
        _new_key(path)
        return path

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def _new_key(path: Path) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])
    path.chmod(0o600)


def _request(key: Path, subject: str) -> str:
    return run(["openssl", "req", "-new", "-sha256", "-key", key, "-subj", subject]).stdout


def _sign(extensions: str, certificate: Path, *signer: str | Path) -> list[str | Path]:
    command: list[str | Path] = ["openssl", "x509", "-req", "-sha256", "-days", VALID_DAYS]
    return [*command, "-extfile", extensions, "-out", certificate, *signer]


@contextlib.contextmanager
def _extensions(text: str) -> Iterator[str]:
    """Give the path of a file of X.509 extensions, for as long as the block runs."""
    with tempfile.NamedTemporaryFile("w", suffix=".ext") as handle:
        handle.write(text)
        handle.flush()
        yield handle.name
