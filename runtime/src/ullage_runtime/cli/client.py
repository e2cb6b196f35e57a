"""The client side of OpenAI's API, as much of it as the command line needs."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from ullage_runtime.cli.console import CliError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 600.0
"""A stream at rest gets comments, so this much silence means that the server is gone."""


@dataclass(slots=True)
class Answer:
    """One generation, as it comes in."""

    text: str = ""
    model: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    first_token_seconds: float | None = None
    seconds: float = 0.0

    def to_wire(self) -> dict[str, Any]:
        """Return the answer for scripts."""
        return {
            "model": self.model,
            "text": self.text,
            "finishReason": self.finish_reason,
            "usage": self.usage,
            "firstTokenSeconds": self.first_token_seconds,
            "seconds": round(self.seconds, 3),
        }

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens generated per second after the first one, if that can be said."""
        tokens = self.usage.get("completion_tokens", 0)
        rest = self.seconds - (self.first_token_seconds or 0.0)
        return (tokens - 1) / rest if tokens > 1 and rest > 0 else None


class Refused(CliError):  # noqa: N818 - named after what is so
    """What was sent is at fault; something else may be taken."""


class ApiClient:
    """A server, at an address or at a Unix socket of this machine."""

    def __init__(
        self, url: str, *, api_key: str | None = None, socket_path: str | None = None
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=httpx.HTTPTransport(uds=socket_path) if socket_path else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Return the server's models; raises CliError."""
        return list(self._asked("GET", "/v1/models")["data"])

    def collections(self) -> list[dict[str, Any]]:
        """Return the server's collections; raises CliError."""
        return list(self._asked("GET", "/v1/collections")["collections"])

    def search(self, collection: str, body: dict[str, Any]) -> dict[str, Any]:
        """Search a collection; raises CliError."""
        return self._asked("POST", f"{_path(collection)}/search", json=body)

    def ingest(self, collection: str, documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Have a collection take documents in; return the operation; raises CliError."""
        body = {"documents": list(documents)}
        return self._asked("POST", f"{_path(collection)}/documents", json=body)

    def upload(self, collection: str, name: str, data: bytes, media_type: str) -> dict[str, Any]:
        """Have a collection read a file; return the operation; raises Refused or CliError."""
        return self._asked(
            "POST",
            f"{_path(collection)}/documents/upload",
            params={"id": name},
            content=data,
            headers={"content-type": media_type},
        )

    def operation(self, name: str) -> dict[str, Any]:
        """Return how far the documents of a call have come; raises CliError."""
        return self._asked("GET", f"/v1/operations/{quote(name, safe='')}")

    def cache_stats(self) -> dict[str, Any]:
        """Return what the server's caches hold and how they helped; raises CliError."""
        return self._asked("GET", "/cache/stats")

    def clear_cache(self, **meant: str | None) -> dict[str, Any]:
        """Have the server forget what it keeps of answers; return how much; raises CliError.

        `cache` and `model` say what is meant, where not all of it is.
        """
        given = {name: value for name, value in meant.items() if value is not None}
        return self._asked("DELETE", "/cache", params=given)

    def embed(self, model: str, texts: Sequence[str], input_type: str | None) -> dict[str, Any]:
        """Have a model embed texts, as queries or documents where that is said; raises CliError."""
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "base64"}
        if input_type is not None:
            body["input_type"] = input_type
        return self._asked("POST", "/v1/embeddings", json=body)

    def rollout(self, model: str) -> dict[str, Any]:
        """Return how a model's revisions take each other's place; raises CliError."""
        return self._asked("GET", f"/rollouts/{quote(model, safe='')}")

    def roll_back(self, model: str, revision: str | None) -> dict[str, Any]:
        """Have an earlier revision of a model answer; raises CliError."""
        body = {} if revision is None else {"revision": revision}
        return self._asked("POST", f"/rollouts/{quote(model, safe='')}/rollback", json=body)

    def reindexes(self) -> list[dict[str, Any]]:
        """Return the server's reindex jobs; raises CliError."""
        return list(self._asked("GET", "/v1/reindexes")["reindexes"])

    def reindex(self, job: str) -> dict[str, Any]:
        """Return how a reindex job stands; raises CliError."""
        return self._asked("GET", _job(job))

    def start_reindex(self, job: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Begin to bring a collection to its spec; raises CliError."""
        return self._asked("POST", "/v1/reindexes", json={"name": job, "spec": spec})

    def steer_reindex(self, job: str, verb: str) -> dict[str, Any]:
        """Pause, resume, cancel, approve or roll back a job; raises CliError."""
        return self._asked("POST", f"{_job(job)}/{verb}")

    def change_reindex(self, job: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change how fast a job goes, or which goes first; raises CliError."""
        return self._asked("PATCH", _job(job), json=change)

    def _asked(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **content)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        _check(response)
        answer: dict[str, Any] = response.json()
        return answer

    def chat(
        self, model: str, messages: Sequence[dict[str, str]], options: dict[str, Any]
    ) -> Iterator[Answer]:
        """Ask a chat and yield the growing answer, each time with more text; raises CliError."""
        body = {"model": model, "messages": list(messages), **options}
        return self._generate("/v1/chat/completions", body)

    def complete(self, model: str, prompt: str, options: dict[str, Any]) -> Iterator[Answer]:
        """Continue a prompt and yield the growing answer; raises CliError."""
        return self._generate("/v1/completions", {"model": model, "prompt": prompt, **options})

    def _generate(self, path: str, body: dict[str, Any]) -> Iterator[Answer]:
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        answer = Answer()
        began = time.monotonic()
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                _check(response)
                for data in _events(response):
                    _take(answer, data)
                    answer.seconds = time.monotonic() - began
                    if answer.text and answer.first_token_seconds is None:
                        answer.first_token_seconds = round(answer.seconds, 3)
                    yield answer
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.finish_reason is None:
            raise CliError("the answer broke off", "the server's log says why")

    def _unreachable(self, error: Exception) -> CliError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return CliError(
                f"nothing answers at {self.url}",
                "start a server with `ullage up FILE`, or name another with --url",
            )
        return CliError(f"{self.url}: {str(error) or type(error).__name__}")


def _job(name: str) -> str:
    return f"/v1/reindexes/{quote(name, safe='')}"


def _path(collection: str) -> str:
    return f"/v1/collections/{quote(collection, safe='')}"


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if not line.startswith("data: "):
            continue
        text = line.removeprefix("data: ")
        if text == "[DONE]":
            return
        data = json.loads(text)
        if "error" in data:
            raise CliError(str(data["error"]["message"]))
        yield data


def _take(answer: Answer, data: dict[str, Any]) -> None:
    answer.model = data.get("model", answer.model)
    answer.usage = data.get("usage") or answer.usage
    for choice in data["choices"]:
        delta = choice.get("delta", choice)
        answer.text += delta.get("content") or delta.get("text") or ""
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {response.status_code}"
    hint = HINTS.get(response.status_code)
    if "no chat template" in message:
        hint = "`ullage run --raw` continues a text without one"
    kind = Refused if response.status_code in _ABOUT_THE_BODY else CliError
    raise kind(message, hint)


_ABOUT_THE_BODY = frozenset({400, 413})

HINTS = {
    401: "set ULLAGE_API_KEY to a key that the server knows",
    403: "`ullage models` lists what this key may use",
    404: "`ullage models` lists what the server has",
}
