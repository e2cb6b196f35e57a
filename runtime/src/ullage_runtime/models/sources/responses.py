"""What a server's answer means for a download: a pure table from headers to a verdict."""

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources.failures import AttemptFailed, refused

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_TRANSIENT = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


@dataclass(frozen=True, slots=True)
class Validators:
    """What identifies one version of a file on its server."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Validators":
        """Return the validators that a response carries."""
        return cls(headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def if_range(self) -> str | None:
        """The value for `If-Range`; a weak tag may not be used there (RFC 9110, 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified if not self.etag else None

    def conditions(self) -> dict[str, str]:
        """Return the headers that ask for the file only if it is another one by now."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.last_modified} if self.last_modified else {}


@dataclass(frozen=True, slots=True)
class Body:
    """The response's body is the file from `start` on."""

    start: int
    total: int | None
    validators: Validators


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file is the one that the cache holds."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The partial file already has all bytes."""


@dataclass(frozen=True, slots=True)
class Anew:
    """The partial file is of another version: drop it and ask again."""


Verdict = Body | Unchanged | Whole | Anew


def verdict(
    status: int,
    headers: Mapping[str, str],
    *,
    host: str,
    offset: int,
    total: int | None,
    validators: Validators,
    now: datetime,
    hint: str = "",
) -> Verdict:
    """Return what to do with a response to a request for the bytes from `offset` on.

    `total` and `validators` are those of the partial file, if there is one. Raises AttemptFailed
    for what may pass, LoadError for what will not.
    """
    match status:
        case HTTPStatus.OK:
            _check_coding(headers, host)
            return Body(0, _number(headers.get("Content-Length")), Validators.of(headers))
        case HTTPStatus.PARTIAL_CONTENT:
            _check_coding(headers, host)
            return _partial(headers, host, offset, total, validators)
        case HTTPStatus.NOT_MODIFIED:
            return Unchanged()
        case HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE if offset:
            _, size = _content_range(headers)
            return Whole() if size == offset and total in {None, size} else Anew()
    raise failure(status, headers, host=host, now=now, hint=hint)


def _partial(
    headers: Mapping[str, str], host: str, offset: int, total: int | None, ours: Validators
) -> Verdict:
    start, size = _content_range(headers)
    theirs = Validators.of(headers)
    if not offset or start is None:
        raise AttemptFailed(f"{host} sent a part of the file that was not asked for")
    other_size = total is not None and size is not None and size != total
    other_tag = bool(ours.etag and theirs.etag and ours.etag != theirs.etag)
    if start != offset or other_size or other_tag:
        return Anew()
    return Body(start, size if size is not None else total, ours)


def failure(
    status: int, headers: Mapping[str, str], *, host: str, now: datetime, hint: str = ""
) -> AttemptFailed | LoadError:
    """Return the error that an answer other than the file amounts to; `hint` ends its advice."""
    said = f"{host} answered {status} {_phrase(status)}".rstrip()
    if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return AttemptFailed(said, retry_after=_retry_after(headers, now))
    match status:
        case HTTPStatus.UNAUTHORIZED:
            advice = "the file needs credentials, or those that were sent are not valid"
        case HTTPStatus.FORBIDDEN:
            advice = "the credentials, if any, do not allow reading the file"
        case HTTPStatus.NOT_FOUND:
            advice = "there is no such file; check model.uri"
        case HTTPStatus.GONE:
            advice = "the file was removed; set model.uri to where it is now"
        case _:
            advice = "the address cannot be downloaded; check model.uri"
    return refused("; ".join(filter(None, (f"{said}: {advice}", hint))))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _check_coding(headers: Mapping[str, str], host: str) -> None:
    coding = headers.get("Content-Encoding", "identity").lower()
    if coding != "identity":
        raise refused(
            f"{host} sends the file {coding}-encoded although it was asked not to; use an address "
            "that serves the plain file"
        )


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return (_number(match[1]), _number(match[3])) if match else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of `Retry-After`, which is a number or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
