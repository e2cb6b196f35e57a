"""What an answer means for a download."""

from datetime import UTC, datetime

import httpx
import pytest

from ullage_runtime.core.errors import LoadError
from ullage_runtime.models.sources.failures import AttemptFailed
from ullage_runtime.models.sources.responses import (
    Anew,
    Body,
    Unchanged,
    Validators,
    Verdict,
    Whole,
    verdict,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OURS = Validators(etag='"one"')


def judged(
    status: int, headers: dict[str, str], offset: int = 0, total: int | None = None
) -> Verdict:
    return verdict(
        status,
        httpx.Headers(headers),
        host="h.test",
        offset=offset,
        total=total,
        validators=OURS if offset else Validators(),
        now=NOW,
    )


def test_a_whole_answer_begins_at_the_start_even_if_a_part_was_asked_for() -> None:
    body = judged(200, {"content-length": "9", "etag": '"two"'}, offset=4, total=9)
    assert body == Body(0, 9, Validators(etag='"two"'))


def test_a_partial_answer_goes_on_where_we_are() -> None:
    assert judged(206, {"Content-Range": "bytes 4-8/9", "ETag": '"one"'}, 4, 9) == Body(4, 9, OURS)
    assert judged(206, {"Content-Range": "bytes 4-8/*"}, 4, 9) == Body(4, 9, OURS)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 3-8/9"},
        {"Content-Range": "bytes 4-9/10"},
        {"Content-Range": "bytes 4-8/9", "ETag": '"two"'},
    ],
)
def test_a_part_of_another_version_is_never_appended(headers: dict[str, str]) -> None:
    assert judged(206, headers, 4, 9) == Anew()


@pytest.mark.parametrize(("headers", "offset"), [({}, 4), ({"Content-Range": "bytes 0-8/9"}, 0)])
def test_a_part_that_was_not_asked_for_is_a_failed_attempt(
    headers: dict[str, str], offset: int
) -> None:
    with pytest.raises(AttemptFailed):
        judged(206, headers, offset)


def test_a_range_beyond_the_end_means_whole_or_anew() -> None:
    assert judged(416, {"Content-Range": "bytes */9"}, 9, None) == Whole()
    assert judged(416, {"Content-Range": "bytes */9"}, 9, 9) == Whole()
    assert judged(416, {"Content-Range": "bytes */5"}, 9, 9) == Anew()
    assert judged(416, {}, 9, 9) == Anew()


def test_not_modified_leaves_the_cached_copy() -> None:
    assert judged(304, {}) == Unchanged()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("Fri, 20 Nov 2026 12:00:30 GMT", 30.0),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str, seconds: float | None) -> None:
    with pytest.raises(AttemptFailed) as caught:
        judged(503, {"Retry-After": value})
    assert caught.value.retry_after == seconds


def test_an_encoded_body_is_refused() -> None:
    with pytest.raises(LoadError, match="gzip-encoded") as caught:
        judged(200, {"Content-Encoding": "gzip"})
    assert caught.value.final


def test_a_weak_tag_is_not_used_to_resume_but_to_revalidate() -> None:
    weak = Validators(etag='W/"one"', last_modified="Tue, 03 Nov 2026 10:00:00 GMT")
    assert weak.if_range is None
    assert weak.conditions() == {"If-None-Match": 'W/"one"'}
    dated = Validators(last_modified="Tue, 03 Nov 2026 10:00:00 GMT")
    assert dated.if_range == dated.last_modified
