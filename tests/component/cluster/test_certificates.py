from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from e2e.cluster.certificates import Authority
from e2e.cluster.processes import run


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("certificates") / "pki")


def test_what_an_authority_issues_it_vouches_for(authority: Authority) -> None:
    pair = authority.issue("server", user="server", hosts=["IP:127.0.0.1", "DNS:localhost"])
    run(["openssl", "verify", "-CAfile", authority.own.certificate, pair.certificate])


def test_a_certificate_names_its_user_and_groups(authority: Authority) -> None:
    pair = authority.issue("admin", user="ullage-admin", groups=["system:masters"])
    shown = run(["openssl", "x509", "-in", pair.certificate, "-noout", "-subject"]).stdout
    assert "O = system:masters" in shown
    assert "CN = ullage-admin" in shown


def test_a_certificate_serves_on_its_hosts(authority: Authority) -> None:
    pair = authority.issue("hosts", user="server", hosts=["IP:10.1.2.3", "DNS:kubernetes"])
    shown = run(["openssl", "x509", "-in", pair.certificate, "-noout", "-text"]).stdout
    assert "IP Address:10.1.2.3" in shown
    assert "DNS:kubernetes" in shown


def test_python_can_serve_with_a_pair_and_trust_its_authority(authority: Authority) -> None:
    pair = authority.issue("python", user="server", hosts=["DNS:localhost"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    ssl.create_default_context(cafile=str(authority.own.certificate))


def test_keys_are_readable_by_their_owner_only(authority: Authority) -> None:
    key = authority.signing_key("tokens")
    assert Path(key).stat().st_mode & 0o077 == 0
    assert authority.folder.stat().st_mode & 0o077 == 0
