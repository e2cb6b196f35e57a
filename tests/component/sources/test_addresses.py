"""Which hosts a source may lead to, at every hop, and what is shown to them."""

import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.file_server import FileServer, file_server
from tests.support.model_sources import SETTINGS, fetched, make_cache, model_bytes
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import Dialing, ModelCache
from ullage_runtime.models.sources.dialing import IPAddress, private_kind

STRICT = {"allow_private_addresses": False}


class Names:
    """A name server that answers as scripted, the last answer for good."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def only_127_0_0_1_is_private(address: IPAddress) -> str | None:
    """Stand in for the rule: 127.0.0.2 plays the public address that a test can listen on."""
    return None if str(address) == "127.0.0.2" else private_kind(address)


@pytest.fixture
async def public() -> AsyncIterator[FileServer]:
    async with file_server("127.0.0.2") as running:
        yield running


def dialing(names: Names, tls: ssl.SSLContext | None = None) -> Dialing:
    more = {"tls": tls} if tls else {}
    return Dialing(resolve=names, rule=only_127_0_0_1_is_private, proxies={}, **more)


async def refusal(cache: ModelCache, uri: str, **settings: object) -> str:
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, **settings)
    assert (caught.value.reason, caught.value.final) == (Reason.SOURCE_UNAVAILABLE, True)
    return caught.value.message


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]"],
)
async def test_loopback_is_refused_however_it_is_written(
    server: FileServer, cache: ModelCache, host: str
) -> None:
    server.add("/m.gguf", model_bytes(1000))
    message = await refusal(cache, server.url("/m.gguf", host), **STRICT)
    assert "loopback" in message
    assert "runtime.allowPrivateAddresses" in message
    assert server.seen == []


async def test_a_name_with_one_private_address_among_public_ones_is_refused(
    tmp_path: Path,
) -> None:
    names = Names(["127.0.0.2", "10.0.0.7"])
    cache = make_cache(tmp_path / "cache", dialing=dialing(names))
    message = await refusal(cache, "https://models.test/m.gguf", **STRICT)
    assert "models.test leads to 10.0.0.7, a private address" in message


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(
    public: FileServer, tmp_path: Path
) -> None:
    digest = public.add("/m.gguf", model_bytes(1000))
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    cache = make_cache(tmp_path / "cache", dialing=dialing(names))
    model = await fetched(cache, public.url("/m.gguf", "models.test"), **STRICT)
    assert model.sha256 == digest
    assert names.asked == ["models.test"]
    assert public.seen[0].headers["host"] == f"models.test:{public.port}"


async def test_the_next_address_is_tried_when_one_does_not_answer(
    public: FileServer, tmp_path: Path
) -> None:
    public.add("/m.gguf", model_bytes(1000))
    names = Names(["127.0.0.3", "127.0.0.2"])
    one = Dialing(resolve=names, rule=lambda _: None, proxies={})
    cache = make_cache(tmp_path / "cache", dialing=one)
    await fetched(cache, public.url("/m.gguf", "models.test"), **STRICT)
    assert names.asked == ["models.test"]


async def test_a_redirect_to_a_private_address_is_refused(
    public: FileServer, server: FileServer, tmp_path: Path
) -> None:
    server.add("/secret", model_bytes(1000))
    public.add("/m.gguf", b"", location=server.url("/secret"))
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    cache = make_cache(tmp_path / "cache", dialing=dialing(names))
    message = await refusal(cache, public.url("/m.gguf", "models.test"), **STRICT)
    assert "127.0.0.1" in message
    assert server.seen == []


async def test_http_is_refused_with_the_setting_that_allows_it(
    server: FileServer, cache: ModelCache
) -> None:
    message = await refusal(cache, server.url("/m.gguf"), allow_http=False)
    assert "runtime.allowHttp" in message
    assert server.seen == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x.test/m.gguf"])
async def test_a_redirect_away_from_http_is_refused(
    server: FileServer, cache: ModelCache, location: str
) -> None:
    server.add("/m.gguf", b"", location=location)
    assert "redirects to" in await refusal(cache, server.url("/m.gguf"))


async def test_redirects_are_followed_but_not_for_ever(
    server: FileServer, cache: ModelCache
) -> None:
    digest = server.add("/real.gguf", model_bytes(1000))
    server.add("/m.gguf", b"", location="/real.gguf")
    server.add("/loop", b"", location="/loop")
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest
    assert "more than 10 times" in await refusal(cache, server.url("/loop"))


async def test_tls_asks_for_and_verifies_the_hosts_name(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "models.test")
    asked: list[str | None] = []
    server_tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    cache = make_cache(tmp_path / "cache", dialing=dialing(Names(["127.0.0.2"]), client_tls))
    async with file_server("127.0.0.2", server_tls) as public:
        digest = public.add("/m.gguf", model_bytes(1000))
        model = await fetched(cache, public.url("/m.gguf", "models.test"), **STRICT)
        assert model.sha256 == digest
        assert asked == ["models.test"]


async def test_a_certificate_of_another_name_is_said_and_not_tried_again(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "other.test")
    names = Names(["127.0.0.2"])
    cache = make_cache(tmp_path / "cache", dialing=dialing(names, client_tls))
    async with file_server("127.0.0.2", server_tls) as public:
        with pytest.raises(LoadError, match=r"certificate of models\.test is not valid") as caught:
            await fetched(cache, public.url("/m.gguf", "models.test"), **STRICT)
    assert not caught.value.final
    assert names.asked == ["models.test"]


async def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    server_tls, client_tls = certificate(tmp_path, "models.test")
    cache = make_cache(tmp_path / "cache", dialing=dialing(Names(["127.0.0.2"]), client_tls))
    async with file_server("127.0.0.2", server_tls) as public:
        public.add("/m.gguf", b"", location="http://models.test/m.gguf")
        url = public.url("/m.gguf", "models.test")
        assert "not encrypted" in await refusal(cache, url, allow_http=False, **STRICT)


async def test_a_proxy_gets_names_it_may_resolve_but_no_private_address(
    server: FileServer, tmp_path: Path
) -> None:
    digest = server.add("http://models.test/m.gguf", model_bytes(1000))
    names = Names(["10.0.0.7"])
    proxied = Dialing(resolve=names, proxies={"http": server.url(""), "no": "direct.test"})
    cache = make_cache(tmp_path / "cache", dialing=proxied)
    assert (await fetched(cache, "http://models.test/m.gguf", **STRICT)).sha256 == digest
    assert names.asked == []
    for host in ("10.0.0.7", "169.254.169.254", "0x7f000001", "localhost"):
        assert "address" in await refusal(cache, f"http://{host}/m.gguf", **STRICT)
    assert "leads to 10.0.0.7" in await refusal(cache, "http://direct.test/m.gguf", **STRICT)
    assert len(server.seen) == 1


async def test_a_private_address_is_fine_where_the_profile_says_so(
    server: FileServer, cache: ModelCache
) -> None:
    assert SETTINGS.allow_private_addresses
    digest = server.add("/m.gguf", model_bytes(1000))
    assert (await fetched(cache, server.url("/m.gguf", "localhost"))).sha256 == digest


async def test_a_hosts_token_goes_to_that_host_and_not_where_it_redirects(
    server: FileServer, public: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "127.0.0.1").write_text("s3cret\n")
    digest = public.add("/real.gguf", model_bytes(1000))
    server.add("/m.gguf", b"", location=public.url("/real.gguf", "127.0.0.2"), token="s3cret")
    cache = make_cache(tmp_path / "cache", credentials=tmp_path / "credentials")
    assert (await fetched(cache, server.url("/m.gguf"))).sha256 == digest
    assert server.seen[0].headers["authorization"] == "Bearer s3cret"
    assert "authorization" not in public.seen[0].headers


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a server with a new certificate and of a client that trusts it."""
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={name} -addext "
        f"subjectAltName=DNS:{name} -keyout {key} -out {chain}".split(),
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    return server, ssl.create_default_context(cafile=str(chain))
