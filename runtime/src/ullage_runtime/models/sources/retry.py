"""Attempts at something over the network: which failures pass, how long to wait, when to stop."""

import asyncio
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import structlog

from ullage_runtime.models.sources.failures import AttemptFailed, refused, unavailable
from ullage_runtime.models.sources.limits import Limits

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")


async def with_retries(
    attempt: Callable[[], Awaitable[Result]],
    *,
    what: str,
    limits: Limits,
    progress: Callable[[], int] = lambda: 0,
) -> Result:
    """Return what an attempt returns, trying again after failures that may pass.

    `progress` returns a number that grows when an attempt achieved something: only attempts in a
    row that achieved nothing count against `limits.attempts`. Raises LoadError in the end.
    """
    failures, reached = 0, progress()
    for tried in range(1, limits.total_attempts + 1):
        try:
            return await attempt()
        except AttemptFailed as error:
            failed = error
        except httpx.HTTPError as error:
            failed = explained(error, limits)
        except httpx.InvalidURL as error:
            raise refused(f"{what} cannot be fetched: {error}") from error
        now = progress()
        failures, reached = (1, now) if now > reached else (failures + 1, reached)
        asked = failed.retry_after or 0.0
        if asked > limits.retry_after_seconds:
            raise unavailable(f"{what}: {failed}, and asks to come back in {asked:.0f} s")
        if failed.pointless or failures >= limits.attempts or tried == limits.total_attempts:
            raise unavailable(f"{what}: {failed} (attempt {tried}); it will be tried again later")
        pause = max(asked, limits.backoff(failures, random.random()))  # noqa: S311 - no secret
        logger.info("source_attempt_failed", what=what, why=str(failed), retry_in=round(pause, 2))
        await asyncio.sleep(pause)
    raise unavailable(f"{what} was not tried at all: limits.total_attempts is below 1")


def explained(error: httpx.HTTPError, limits: Limits) -> AttemptFailed:
    """Return httpx's error as a failed attempt, in words."""
    try:
        host = error.request.url.host
    except RuntimeError:  # raised by httpx when it knows of no request
        host = "the server"
    if isinstance(error, httpx.ConnectTimeout):
        return AttemptFailed(f"{host} did not accept a connection in time")
    if isinstance(error, httpx.TimeoutException):
        return AttemptFailed(f"{host} sent nothing for {limits.read_seconds:.0f} s")
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AttemptFailed(
                f"the certificate of {host} is not valid: {cause.verify_message}", pointless=True
            )
        if isinstance(cause, socket.gaierror):
            return AttemptFailed(f"{host} cannot be resolved: {cause.strerror}")
    if isinstance(error, httpx.ConnectError):
        return AttemptFailed(f"{host} cannot be reached: {error}")
    return AttemptFailed(f"{host} broke off: {str(error) or type(error).__name__}")


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
