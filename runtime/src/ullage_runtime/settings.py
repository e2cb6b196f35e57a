"""Settings: what they are, where each value came from, and how they are read.

Command line > `ULLAGE_*` environment > plain environment names > `.env` > `ullage.toml` > defaults.
Each source is read by itself, so that the origin of every value is known and an error can say
where to mend it.
"""

import difflib
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ullage_api.names import HTTP_PORT, INTERNAL_PORT

PREFIX = "ULLAGE_"

PLAIN_NAMES = {
    "DEFAULT_COLLECTION": "default_collection",
    "HOST": "host",
    "PORT": "port",
    "MODEL_CACHE_DIR": "model_cache_dir",
    "MAX_CONCURRENT_REQUESTS": "max_concurrent_requests",
    "GPU_MEMORY_MAX_PERCENT": "gpu_memory_max_percent",
    "GPU_MEMORY_RESERVE_PERCENT": "gpu_memory_reserve_percent",
    "CPU_MEMORY_MAX_PERCENT": "cpu_memory_max_percent",
    "CPU_MEMORY_RESERVE_PERCENT": "cpu_memory_reserve_percent",
    "ENABLE_CPU_OFFLOAD": "enable_cpu_offload",
    "EVICTION_IDLE_THRESHOLD_SECONDS": "eviction_idle_threshold_seconds",
}
"""Names without prefix that are honoured too, below `ULLAGE_*`."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names it, its origin and the fix."""


def _home(variable: str, fallback: str) -> pathlib.Path:
    base = os.environ.get(variable) or str(pathlib.Path.home() / fallback)
    return pathlib.Path(base) / "ullage"


class Settings(BaseSettings):
    """What a runtime process is told by whoever starts it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: Annotated[str, Field(description="Address the public API listens on.")] = "0.0.0.0"
    port: Annotated[int, Field(ge=0, le=65535, description="Port of the public API; 0 = any.")] = (
        HTTP_PORT
    )
    internal_host: Annotated[str, Field(description="Address /internal listens on.")] = "0.0.0.0"
    internal_port: Annotated[int, Field(ge=0, le=65535, description="Port of /internal.")] = (
        INTERNAL_PORT
    )
    internal_token_file: Annotated[
        pathlib.Path | None,
        Field(description="File with the token /internal asks for; without it there is none."),
    ] = None
    model_cache_dir: Annotated[
        pathlib.Path,
        Field(
            default_factory=lambda: _home("XDG_CACHE_HOME", ".cache") / "models",
            description="Folder that keeps fetched models.",
        ),
    ]
    model_cache_max_bytes: Annotated[
        int | None,
        Field(
            ge=0,
            description="Largest size of all fetched models; above it those that were used least "
            "recently leave. Unset: the volume's.",
        ),
    ] = None
    state_dir: Annotated[
        pathlib.Path,
        Field(
            default_factory=lambda: _home("XDG_STATE_HOME", ".local/state"),
            description="Folder that keeps what must survive a restart.",
        ),
    ]
    desired_file: Annotated[
        pathlib.Path | None,
        Field(description="Mounted file with the pool's desired document; watched."),
    ] = None
    api_keys_dir: Annotated[
        pathlib.Path | None,
        Field(description="Folder with one hashed API key per file; unset lets everybody in."),
    ] = None
    credentials_dir: Annotated[
        pathlib.Path | None,
        Field(description="Folder with one token per file, named after the host that gets it."),
    ] = None
    pod_name: Annotated[str, Field(description="Name of this pod; ends in its ordinal.")] = (
        "ullage-local-0"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least severe log line.")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "pretty", "json"],
        Field(description="How log lines look; auto = pretty on a terminal."),
    ] = "auto"
    drain_seconds: Annotated[
        float, Field(ge=0, le=3600, description="Longest an ending process waits for its streams.")
    ] = 30.0
    linger_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=300,
            description="Seconds after SIGTERM in which requests are still taken while load "
            "balancers notice.",
        ),
    ] = 0.0
    heartbeat_seconds: Annotated[
        float, Field(gt=0, le=300, description="A stream at rest gets a comment this often.")
    ] = 15.0
    body_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest a request's body may take to arrive.")
    ] = 60.0
    max_concurrent_requests: Annotated[
        int | None, Field(ge=1, description="Requests worked on at once; unset: the pool's.")
    ] = None
    max_body_bytes: Annotated[
        int | None, Field(ge=1024, description="Largest request body; unset: the pool's.")
    ] = None
    gpu_memory_max_percent: Annotated[
        float | None,
        Field(
            description="Share of the memory that models are loaded into, the GPU's or, without "
            "one, the pod's, which they may take: 0.9 for 90 %; unset: the pool's."
        ),
    ] = None
    gpu_memory_reserve_percent: Annotated[
        float | None,
        Field(description="Share of it that always stays free: 0.1 for 10 %; unset: the pool's."),
    ] = None
    cpu_memory_max_percent: Annotated[
        float | None,
        Field(
            description="Share of the host's memory that models may take beside a GPU; unset: 0.5."
        ),
    ] = None
    cpu_memory_reserve_percent: Annotated[
        float | None, Field(description="Share of it that always stays free; unset: 0.2.")
    ] = None
    enable_cpu_offload: Annotated[
        bool,
        Field(description="Whether the pod's memory keeps models that left, to bring them back."),
    ] = True
    eviction_idle_threshold_seconds: Annotated[
        float | None,
        Field(
            ge=0,
            description="Seconds without requests after which a model leaves memory whose level "
            "is Moderate; at High it is 30 at most. Unset: 120 beside a GPU, if the warm tier is "
            "on, and else never below Critical.",
        ),
    ] = None
    responses_max_bytes: Annotated[
        int, Field(ge=0, description="Largest size of all stored responses; 0 stores none.")
    ] = 256 << 20
    responses_max_count: Annotated[
        int, Field(ge=1, description="Most responses that are stored.")
    ] = 100_000
    responses_keep_seconds: Annotated[
        float, Field(gt=0, description="How long a response is stored.")
    ] = 30 * 86400.0
    embeddings_cache_max_bytes: Annotated[
        int, Field(ge=0, description="Largest size of the vectors kept of texts; 0 keeps none.")
    ] = 64 << 20
    embeddings_cache_seconds: Annotated[
        float, Field(gt=0, description="How long a text's vector is kept.")
    ] = 86400.0
    embeddings_disk_cache_max_bytes: Annotated[
        int,
        Field(
            ge=0,
            description="Largest size of the vectors that are kept on disk, too; 0 keeps none.",
        ),
    ] = 0
    answers_cache_max_bytes: Annotated[
        int,
        Field(ge=0, description="Largest size of the answers kept of chats that ask for it."),
    ] = 32 << 20
    searches_cache_max_bytes: Annotated[
        int, Field(ge=0, description="Largest size of the answers kept of searches; 0 keeps none.")
    ] = 16 << 20
    searches_cache_seconds: Annotated[
        float, Field(gt=0, description="How long a search's answer is kept.")
    ] = 900.0
    reindex_workers: Annotated[
        Literal["auto", "child", "outside"],
        Field(
            description="Who starts the workers of reindex jobs: this process, or somebody "
            "outside, as the operator does; auto = outside where there is an internal token."
        ),
    ] = "auto"
    default_collection: Annotated[
        str | None,
        Field(description="Collection that /search and the like mean by default; or the pool's."),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...] | None,
        NoDecode,
        Field(description="Origins browsers may call from, comma separated; unset: the pool's."),
    ] = None
    url: Annotated[str, Field(description="Server that `ullage run`, `chat` and `models` ask.")] = (
        f"http://127.0.0.1:{HTTP_PORT}"
    )
    api_key: Annotated[
        SecretStr | None, Field(description="Key that `ullage run`, `chat` and `models` send.")
    ] = None

    @property
    def ordinal(self) -> int:
        """The pod's ordinal in its pool: the number its name ends in, else 0."""
        match = re.search(r"-(\d+)$", self.pod_name)
        return int(match.group(1)) if match else 0

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator(
        "gpu_memory_max_percent",
        "gpu_memory_reserve_percent",
        "cpu_memory_max_percent",
        "cpu_memory_reserve_percent",
    )
    @classmethod
    def _is_share(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None:
            return None
        reserve = str(info.field_name).endswith("reserve_percent")
        if not 0 <= value <= 1 or value == (1 if reserve else 0):
            raise ValueError("a share between 0 and 1 is meant, such as 0.9 for 90 %")
        return value

    @field_validator("model_cache_dir", "state_dir", mode="after")
    @classmethod
    def _expand(cls, value: pathlib.Path) -> pathlib.Path:
        return value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller only: `load_settings` reads the other sources itself."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings and where each value came from."""

    values: Settings
    origins: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    """Environment names with our prefix that mean nothing, with the nearest that does."""


def load_settings(
    command_line: Mapping[str, Any] | None = None,
    *,
    folder: pathlib.Path | None = None,
) -> LoadedSettings:
    """Read all sources and return the settings in effect; raises SettingsError.

    `command_line` holds what was given there; absent options are left out or None. `folder` is
    where `.env` and `ullage.toml` are looked for, by default the current one.
    """
    given = {k: v for k, v in (command_line or {}).items() if v is not None}
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for values in _sources(given, folder or pathlib.Path.cwd()):
        for name, (value, origin) in values.items():
            if name not in merged:
                merged[name], origins[name] = value, origin
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise SettingsError(_described(error, origins)) from error
    every = {name: origins.get(name, "default") for name in Settings.model_fields}
    return LoadedSettings(values=settings, origins=every, ignored=tuple(_ignored(os.environ)))


Values = dict[str, tuple[Any, str]]


def _sources(given: Mapping[str, Any], folder: pathlib.Path) -> Iterator[Values]:
    """Yield each source's values with their origins, the strongest source first."""
    yield {name: (value, "command line") for name, value in given.items()}
    env = EnvSettingsSource(Settings)()
    yield {name: (value, f"environment {PREFIX}{name.upper()}") for name, value in env.items()}
    yield _plain(os.environ, "environment ")
    dotenv = folder / ".env"
    if dotenv.is_file():
        yield _from_dotenv(dotenv)
    toml = folder / "ullage.toml"
    if toml.is_file():
        yield {name: (value, str(toml)) for name, value in _from_toml(toml).items()}


def _plain(environment: Mapping[str, str | None], origin: str) -> Values:
    return {
        field: (environment[name], f"{origin}{name}")
        for name, field in PLAIN_NAMES.items()
        if environment.get(name)
    }


def _from_dotenv(path: pathlib.Path) -> Values:
    source = DotEnvSettingsSource(Settings, env_file=path)
    # The file may hold names of other programs: only ours are taken, and they are read as text.
    values = {name.lower(): value for name, value in source.env_vars.items() if value is not None}
    ours: Values = {
        name: (values[PREFIX.lower() + name], f"{path} {PREFIX}{name.upper()}")
        for name in Settings.model_fields
        if PREFIX.lower() + name in values
    }
    plain = _plain({name: values.get(name.lower()) for name in PLAIN_NAMES}, f"{path} ")
    return {**plain, **ours}


def _from_toml(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: unknown setting {name!r}{_nearest(name)}")
    return values


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), list(Settings.model_fields), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "; `ullage config` lists them all"


def _ignored(environment: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environment):
        key = name.removeprefix(PREFIX).lower()
        if not name.startswith(PREFIX) or key in Settings.model_fields:
            continue
        close = difflib.get_close_matches(key, list(Settings.model_fields), n=1, cutoff=0.7)
        if close:
            yield f"{name} (did you mean {PREFIX}{close[0].upper()}?)"


def _described(error: ValidationError, origins: Mapping[str, str]) -> str:
    parts = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        origin = origins.get(name, "default")
        parts.append(f"{name} ({origin}): {problem['msg']}, got {problem['input']!r}")
    return "; ".join(parts)


def shown(settings: Settings, name: str) -> str:
    """Return a setting's value as `ullage config` shows it; secrets are masked."""
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ", ".join(value)
    return "" if value is None else str(value)
