"""Models from a real S3 server and a real OCI registry, over connections that break."""

import asyncio
import hashlib
import pathlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.file_server import Fault, FileServer, listening
from tests.support.model_folders import TREE_FILES, contents, encoder_files, tree_digest
from tests.support.model_sources import content, fetched, make_cache, model_bytes
from tests.support.source_servers import (
    KEY_ID,
    KEY_SECRET,
    Registry,
    Relay,
    S3Gateway,
    TokenService,
    oci_registry_at,
    s3_gateway_at,
    token_registry_at,
)
from ullage_api.conditions import Reason
from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources import Dialing, ModelCache, S3Access
from ullage_runtime.models.sources.dialing import IPAddress, private_kind

MIB = 1 << 20
MODEL = model_bytes(2 * MIB)
DIGEST = hashlib.sha256(MODEL).hexdigest()
FILES = encoder_files()
PATIENCE = 60
PUBLIC = "127.0.0.2"
"""Plays an address of the internet that a test can listen on."""


@pytest.fixture(scope="module")
def s3_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Gateway]:
    with s3_gateway_at(tmp_path_factory.mktemp("s3")) as gateway:
        gateway.put("models", "a/m.gguf", MODEL)
        for name, data in FILES.items():
            gateway.put("models", f"enc/{name}", data)
        yield gateway


@pytest.fixture(scope="module")
def oci_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with oci_registry_at(tmp_path_factory.mktemp("registry")) as registry:
        registry.push_artifact("team/m", {"m.gguf": MODEL})
        registry.push_artifact("team/enc", FILES)
        registry.push_image("team/car", {"m.gguf": MODEL, "README.md": b"# A model"})
        yield registry


def only_127_0_0_1_is_private(address: IPAddress) -> str | None:
    return None if str(address) == PUBLIC else private_kind(address)


class Place:
    """A server behind a relay, the addresses of its models, and a pod's cache."""

    def __init__(
        self, relay: Relay, folder: pathlib.Path, scheme: str, host: str = "127.0.0.1"
    ) -> None:
        self.relay = relay
        self.scheme = scheme
        self._folder = folder
        self._host = host
        self.listings = 2 if scheme == "oci" else 0
        """Requests before the one for the file: a 401, and the manifest."""

    def uri(self, model: str = "m") -> str:
        if self.scheme == "s3":
            names = {"m": "s3://models/a/m.gguf", "enc": "s3://models/enc/"}
            return names.get(model, f"s3://models/{model}")
        return f"oci://{self._host}:{self.relay.port}/team/{model}"

    def cache(self, secret: str | None = KEY_SECRET, **changes: object) -> ModelCache:
        """Return a new cache, with that secret in the pod's credentials; None: with none."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self._folder))
        (folder / "credentials").mkdir()
        if secret is not None:
            (folder / "credentials" / self._host).write_text(f"{KEY_ID}:{secret}")
        endpoint = self.relay.url("", self._host)
        return make_cache(
            folder / "cache",
            s3=S3Access(region="us-east-1", endpoint=endpoint, key=None),
            credentials=folder / "credentials",
            # On a busy machine a server may be slow, which is no fault that a test counts.
            **{"connect_seconds": PATIENCE, "read_seconds": PATIENCE, **changes},  # type: ignore[arg-type]
        )

    def downloads(self) -> list[int]:
        """Return how many bytes each request for the model's own got."""
        marks = ("/models/", "/blobs/")
        return [seen.sent for seen in self.relay.gets() if any(m in seen.path for m in marks)]


@pytest.fixture(params=["s3", "oci"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def upstream(scheme: str, s3_gateway: S3Gateway, oci_registry: Registry) -> str:
    return s3_gateway.url if scheme == "s3" else oci_registry.url


@pytest.fixture
async def place(scheme: str, upstream: str, tmp_path: pathlib.Path) -> AsyncIterator[Place]:
    async with listening(Relay(upstream)) as relay:
        yield Place(relay, tmp_path, scheme)


async def failed(cache: ModelCache, uri: str, **settings: object) -> LoadError:
    with pytest.raises(LoadError) as caught:
        await fetched(cache, uri, **settings)
    assert caught.value.reason is Reason.SOURCE_UNAVAILABLE
    return caught.value


async def test_a_model_arrives_and_is_found_again(place: Place) -> None:
    cache = place.cache()
    model = await fetched(cache, place.uri())
    assert hashlib.sha256(content(model)).hexdigest() == DIGEST
    assert model.sha256 == DIGEST
    before = sum(place.downloads())
    assert await fetched(cache, place.uri()) == model
    assert sum(place.downloads()) == before


async def test_a_folder_has_the_same_digest_wherever_it_comes_from(place: Place) -> None:
    model = await fetched(place.cache(), place.uri("enc"))
    assert model.sha256 == tree_digest(FILES)
    assert contents(model.path) == {name: FILES[name] for name in TREE_FILES}


async def test_a_connection_cut_at_twenty_random_bytes_costs_no_byte_twice(place: Place) -> None:
    chance = random.Random(11)  # noqa: S311 - test data
    place.relay.faults.extend([Fault()] * place.listings)
    place.relay.faults.extend(Fault(cut_after=chance.randrange(100, 120_000)) for _ in range(20))
    model = await fetched(place.cache(), place.uri())
    assert model.sha256 == DIGEST
    assert not place.relay.faults
    assert len(place.downloads()) == 21
    assert sum(place.downloads()) == len(MODEL)


async def test_an_answer_that_is_shorter_than_it_says_is_asked_for_again(place: Place) -> None:
    place.relay.faults.extend([Fault()] * place.listings)
    place.relay.faults.append(Fault(cut_after=len(MODEL) - 10))
    assert (await fetched(place.cache(), place.uri())).sha256 == DIGEST
    assert sum(place.downloads()) == len(MODEL)


async def test_a_length_that_is_wrong_is_never_a_model(place: Place) -> None:
    place.relay.faults.extend([Fault()] * place.listings)
    place.relay.faults.extend([Fault(declared_length=len(MODEL) + 10)] * 50)
    error = await failed(place.cache(attempts=3), place.uri())
    assert not error.final


async def test_too_many_requests_are_waited_out_as_the_server_asks(place: Place) -> None:
    place.relay.faults.append(Fault(status=429, headers={"Retry-After": "1"}))
    began = time.monotonic()
    assert (await fetched(place.cache(), place.uri())).sha256 == DIGEST
    assert time.monotonic() - began >= 1


async def test_without_a_login_the_message_says_where_it_belongs(place: Place) -> None:
    error = await failed(place.cache(None), place.uri())
    assert error.final
    assert ("403" if place.scheme == "s3" else "401") in error.message
    assert "ullage-credentials, as 127.0.0.1" in error.message


async def test_a_wrong_login_is_refused_and_asked_for_once(place: Place) -> None:
    error = await failed(place.cache("wrong"), place.uri())
    assert error.final
    assert ("403" if place.scheme == "s3" else "401") in error.message
    assert "wrong" not in error.message
    assert len(place.relay.seen) == (1 if place.scheme == "s3" else 2)


async def test_what_is_forbidden_is_final(place: Place) -> None:
    place.relay.faults.append(Fault(status=403))
    error = await failed(place.cache(), place.uri())
    assert error.final
    assert "403" in error.message


async def test_what_is_not_there_is_final(place: Place) -> None:
    error = await failed(place.cache(), place.uri("none"))
    assert error.final
    assert "404" in error.message
    assert "there is no such" in error.message


async def test_a_redirect_to_a_private_address_is_refused(
    scheme: str, upstream: str, server: FileServer, tmp_path: pathlib.Path
) -> None:
    server.add("/secret", MODEL)
    dialing = Dialing(rule=only_127_0_0_1_is_private, proxies={})
    async with listening(Relay(upstream), PUBLIC) as relay:
        place = Place(relay, tmp_path, scheme, PUBLIC)
        strict = {"allow_private_addresses": False}
        model = await fetched(place.cache(dialing=dialing), place.uri(), **strict)
        assert model.sha256 == DIGEST
        relay.faults.extend([Fault()] * place.listings)
        relay.faults.append(Fault(status=307, headers={"Location": server.url("/secret")}))
        error = await failed(place.cache(dialing=dialing), place.uri(), **strict)
    assert error.final
    assert "127.0.0.1" in error.message
    assert "runtime.allowPrivateAddresses" in error.message
    assert server.seen == []


async def test_an_image_holds_its_model_beneath_its_models_folder(
    tmp_path: pathlib.Path, oci_registry: Registry
) -> None:
    async with listening(Relay(oci_registry.url)) as relay:
        place = Place(relay, tmp_path, "oci")
        model = await fetched(place.cache(), place.uri("car"))
        assert model.sha256 == DIGEST


# Registries whose tokens come from elsewhere ------------------------------------------------------


@pytest.fixture
async def tokens(tmp_path: pathlib.Path) -> AsyncIterator[TokenService]:
    (tmp_path / "tokens").mkdir()
    async with listening(TokenService(tmp_path / "tokens", PUBLIC), PUBLIC) as service:
        yield service


@pytest.fixture
async def hub(tokens: TokenService, tmp_path: pathlib.Path) -> AsyncIterator[Relay]:
    (tmp_path / "hub").mkdir()
    with token_registry_at(tmp_path / "hub", tokens) as registry:
        await asyncio.to_thread(registry.push_artifact, "team/m", {"m.gguf": MODEL})
        async with listening(Relay(registry.url)) as relay:
            yield relay


def pod(folder: pathlib.Path, secret: str) -> ModelCache:
    """Return a new cache that has a login for the token service, whose host is another one."""
    (folder / "credentials").mkdir()
    (folder / "credentials" / PUBLIC).write_text(f"{KEY_ID}:{secret}")
    return make_cache(
        folder / "cache",
        credentials=folder / "credentials",
        connect_seconds=PATIENCE,
        read_seconds=PATIENCE,
    )


async def test_a_registry_says_where_its_tokens_come_from_and_gets_one(
    tokens: TokenService, hub: Relay, tmp_path: pathlib.Path
) -> None:
    cache = pod(tmp_path, KEY_SECRET)
    # A manifest's 401, the manifest, a blob that is cut, and its rest with a token that has ended.
    realm = tokens.url("/token", PUBLIC)
    ended = {"WWW-Authenticate": f'Bearer realm="{realm}",service="models.test"'}
    hub.faults.extend([Fault(), Fault(), Fault(cut_after=MIB), Fault(status=401, headers=ended)])
    model = await fetched(cache, f"oci://127.0.0.1:{hub.port}/team/m")
    assert model.sha256 == DIGEST
    assert len(tokens.seen) == 2
    shown = [seen.headers.get("authorization", "") for seen in hub.seen]
    assert [text.partition(" ")[0] for text in shown] == ["", *["Bearer"] * (len(shown) - 1)]
    assert sum(seen.sent for seen in hub.gets() if "/blobs/" in seen.path) == len(MODEL)


async def test_a_token_service_that_refuses_the_login_is_named(
    tokens: TokenService, hub: Relay, tmp_path: pathlib.Path
) -> None:
    error = await failed(pod(tmp_path, "wrong"), f"oci://127.0.0.1:{hub.port}/team/m")
    assert error.final
    assert f"entry {PUBLIC} of the Secret ullage-credentials" in error.message
    assert "wrong" not in error.message
    assert len(tokens.seen) == 1
