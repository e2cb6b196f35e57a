"""A runtime for one command: it serves one model on a Unix socket only this user can reach."""

import asyncio
import contextlib
import pathlib
import re
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

from rich.live import Live

from ullage_api.kinds.base import ObjectMeta
from ullage_api.kinds.engine_settings import EngineSettings
from ullage_api.kinds.model_deployment import ModelDeployment, ModelDeploymentSpec, Task
from ullage_api.kinds.model_source import SCHEMES, ModelSource
from ullage_api.wire.pod_report import PodReport
from ullage_api.wire.pool_desired import PoolDesired
from ullage_runtime.cli.client import ApiClient
from ullage_runtime.cli.console import CliError, err
from ullage_runtime.cli.display import has_failed, is_settled, models_table
from ullage_runtime.local import Manifests, local_document, local_profile
from ullage_runtime.settings import Settings

if TYPE_CHECKING:  # importing it takes a second, which `ullage --help` need not wait for
    from ullage_runtime.app import Runtime

T = TypeVar("T")

START_SECONDS: Final = 15.0
STOP_SECONDS: Final = 20.0


def source_of(model: str) -> ModelSource | None:
    """Return what a MODEL argument names: a URI or a file, or None for a name on a server.

    Raises CliError for a file that is not there.
    """
    if model.startswith(SCHEMES):
        return ModelSource(uri=model)
    path = pathlib.Path(model).expanduser()
    if path.is_file():
        return ModelSource(uri=path.resolve().as_uri())
    if model.endswith(".gguf") or model.startswith(("/", "./", "../", "~")):
        raise CliError(f"there is no file {model}", "give a GGUF file, a URI, or a model's name")
    return None


def name_for(source: ModelSource) -> str:
    """Return a valid resource name that resembles a model's file."""
    stem = source.uri.rsplit("/", 1)[-1].split("@")[0].split("?")[0].removesuffix(".gguf")
    return resource_name(stem)


def resource_name(text: str) -> str:
    """Return a valid resource name that resembles a text."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return slug if slug[:1].isalpha() else f"model-{slug}"[:40].strip("-")


@contextlib.contextmanager
def private_server(
    settings: Settings,
    source: ModelSource,
    *,
    context_length: int | None = None,
    allow_http: bool = False,
) -> Iterator[tuple[ApiClient, str]]:
    """Load a model in this process's own runtime; yield its client and the model's name."""
    with tempfile.TemporaryDirectory(prefix="ullage-") as folder:
        home = pathlib.Path(folder)
        own = settings.model_copy(
            update={
                "state_dir": home,
                "api_keys_dir": None,
                "internal_token_file": None,
                "drain_seconds": 0.0,
            }
        )
        name = name_for(source)
        document = _document(source, name, context_length, allow_http=allow_http)
        thread = _RuntimeThread(own, home / "http.sock")
        with thread, ApiClient("http://private", socket_path=str(home / "http.sock")) as client:
            thread.call(thread.runtime.models.apply(document.sealed(1)))
            _wait_until_served(thread)
            yield client, name


def _document(
    source: ModelSource, name: str, context_length: int | None, *, allow_http: bool
) -> PoolDesired:
    spec = ModelDeploymentSpec(
        pool="private",
        task=Task.CHAT,
        model=source,
        engine=EngineSettings(context_length=context_length),
    )
    resource = ModelDeployment(metadata=ObjectMeta(name=name), spec=spec)
    folders = [pathlib.Path.cwd()]
    if source.uri.startswith("file:///"):
        folders.insert(0, pathlib.Path(_path_of(source.uri)).parent)
    manifests = Manifests((resource,), tuple(folders))
    return local_document(manifests, local_profile(manifests, allow_http=allow_http))


def _path_of(uri: str) -> str:
    return unquote(urlsplit(uri).path)


def _wait_until_served(thread: "_RuntimeThread") -> None:
    models = thread.runtime.models
    report = models.report()
    with Live(models_table(report), console=err, transient=True, refresh_per_second=8) as live:
        while not all(is_settled(m) for m in report.models):
            report = thread.call(models.changed(report.sequence, 0.5))
            live.update(models_table(report))
    _check(report)


def _check(report: PodReport) -> None:
    for model in report.models:
        if has_failed(model):
            raise CliError(f"{model.reason.value}: {model.message}")


class _RuntimeThread:
    """A runtime in an event loop of its own, so that the terminal may block this thread."""

    def __init__(self, settings: Settings, socket_path: pathlib.Path) -> None:
        self._settings = settings
        self._socket_path = socket_path
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._runtime: Runtime | None = None
        self._thread = threading.Thread(target=self._work, name="runtime", daemon=True)

    @property
    def runtime(self) -> "Runtime":
        """The running runtime."""
        if self._runtime is None:
            raise RuntimeError("the runtime has not been started")
        return self._runtime

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns in the runtime's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(START_SECONDS)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was waited for
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        from ullage_runtime.app import running

        async with running(self._settings, socket_path=self._socket_path) as runtime:
            self._runtime = runtime
            self._ready.set()
            await self._stop.wait()
