"""A worker copies, keeps the pace, judges, and stops when another one drives."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from tests.support.played_reindex import PlayedPod, refused
from tests.support.virtual_time import in_virtual_time
from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_api.kinds.reindex_phase import ReindexPlan
from ullage_runtime.core.reindexing.ranges import LEAST_POINTS
from ullage_runtime.core.reindexing.rate import Pace
from ullage_runtime.retrieval.reindex.wire import Load, Probes
from ullage_runtime.retrieval.reindex.worker.copying import EMBEDDED_PAGE
from ullage_runtime.retrieval.reindex.worker.driving import Driving, ExitCode
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod


def driven(
    played: PlayedPod, after: dict[float, Callable[[], object]] | None = None
) -> tuple[ExitCode, float]:
    """Drive a job; return how that ended and how long it took. Things happen after some seconds."""

    async def drive() -> tuple[ExitCode, float]:
        loop = asyncio.get_running_loop()
        for seconds, happens in (after or {}).items():
            loop.call_later(seconds, happens)
        pod = Pod("http://pod", "job", "secret", transport=played.transport(), clock=loop.time)
        try:
            leased = Leased(pod, "one", Pace(), loop.time)
            return await Driving(pod, leased).run(), loop.time()
        finally:
            await pod.close()

    return in_virtual_time(drive())


def ended(played: PlayedPod, after: dict[float, Callable[[], object]] | None = None) -> ExitCode:
    return driven(played, after)[0]


def many(count: int = LEAST_POINTS + 500) -> dict[int | str, int]:
    return {number: number + 1 for number in range(count)}


def test_a_worker_copies_everything_and_judges_it() -> None:
    played = PlayedPod(many())
    assert ended(played) is ExitCode.DONE
    assert played.target == played.source
    assert played.judgement is not None
    assert played.judgement.passed
    assert played.judgement.results["compared"] == len(played.source)
    assert len(played.checkpoint) == 2


def test_an_empty_collection_is_copied() -> None:
    played = PlayedPod({})
    assert ended(played) is ExitCode.DONE
    assert played.judgement is not None
    assert played.judgement.passed


def test_a_model_embeds_while_other_pages_are_read_and_written() -> None:
    played = PlayedPod(many(4 * EMBEDDED_PAGE), plan=ReindexPlan.REEMBED, page_seconds=5.0)
    code, seconds = driven(played)
    assert code is ExitCode.DONE
    assert played.target == played.source
    assert played.pages == 4
    assert seconds < 2 * played.page_seconds, "they came one by one"


def test_a_worker_goes_on_from_the_checkpoint_of_the_one_before() -> None:
    played = PlayedPod(many())
    ended(played)
    pages, played.phase = played.pages, Phase.COPYING
    last = played.checkpoint[-1].model_copy(update={"is_done": False})
    played.checkpoint = (*played.checkpoint[:-1], last)
    played.holder = None
    assert ended(played) is ExitCode.DONE
    assert played.pages == pages + 2


@pytest.mark.parametrize("path", ["/pages", "/checkpoint", "/verification", "/lease"])
def test_a_worker_whose_lease_was_taken_ends_and_changes_nothing_more(path: str) -> None:
    played = PlayedPod(many())

    def taken(asked: str) -> None:
        if asked == path and played.token == 1 and played.pages > 3:
            played.take_over()

    played.before = taken
    assert ended(played) is ExitCode.FENCED
    assert played.judgement is None


def test_a_worker_waits_for_a_lease_that_another_one_has() -> None:
    played = PlayedPod(many(10))
    played.take_over()
    code, seconds = driven(played, {20: lambda: setattr(played, "holder", None)})
    assert code is ExitCode.DONE
    assert played.token == 2
    assert seconds >= 20


def test_a_pod_that_restarts_is_waited_for() -> None:
    played = PlayedPod(many(1000))
    played.before = lambda path: refused(503, "starting") if path == "/pages" else None
    code, _ = driven(played, {300: lambda: setattr(played, "before", lambda _: None)})
    assert code is ExitCode.DONE
    assert played.target == played.source


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refused(503, "starting"), ExitCode.POD_AWAY),
        (refused(404, "reindex_not_found"), ExitCode.POD_AWAY),
        (refused(401, "unauthorized"), ExitCode.FORBIDDEN),
    ],
)
def test_a_worker_gives_up_on_a_pod_with_a_status_that_says_why(
    answer: httpx.Response, code: ExitCode
) -> None:
    played = PlayedPod(many(10))
    played.before = lambda _: answer
    assert ended(played) is code


def test_a_pause_ends_with_the_page_and_the_copy_goes_on_afterwards() -> None:
    played = PlayedPod(many(), points_per_second=256)
    pages: list[int] = []

    def paused() -> None:
        pages.append(played.pages)
        played.phase = Phase.PAUSED

    def resumed() -> None:
        pages.append(played.pages)
        played.phase = Phase.COPYING

    code, seconds = driven(played, {5: paused, 500: resumed})
    assert code is ExitCode.DONE
    assert 0 < pages[0] <= pages[1] < 20  # of 128 points each
    assert played.target == played.source
    assert 500 < seconds < 530


def test_a_rate_is_kept_and_one_that_changes_is_followed() -> None:
    played = PlayedPod(many(), points_per_second=64)
    _, slowly = driven(played)
    assert len(played.source) / 64 - 6 < slowly < len(played.source) / 64 + 6
    # So slowly that a page is less than a range, and no part of it.
    played = PlayedPod(many(800), points_per_second=40, plan=ReindexPlan.REEMBED)
    _, slowly = driven(played)
    assert 20 - 3 < slowly < 20 + 3
    played = PlayedPod(many(), points_per_second=64)
    code, seconds = driven(played, {20: lambda: setattr(played, "points_per_second", 6400)})
    assert code is ExitCode.DONE
    assert 20 < seconds < 35


def test_nothing_is_copied_while_memory_is_critical() -> None:
    played = PlayedPod(many(), load=Load(level="Critical"))
    seen: list[int] = []

    def relieved() -> None:
        seen.append(played.pages)
        played.load = Load()

    assert ended(played, {60: relieved}) is ExitCode.DONE
    assert seen[0] <= 4, "only what was under way before it was known"


def test_points_that_cannot_be_copied_end_the_job_when_there_are_too_many() -> None:
    played = PlayedPod(many(1000), plan=ReindexPlan.REEMBED, failing=frozenset({3, 500}))
    played.max_failed = 1
    assert ended(played) is ExitCode.DONE
    assert played.failure == "2 points cannot be copied, 1 may be left out"
    assert played.judgement is None


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda p: p.target.update({7: 3}), "1 points differ: point 7 has version 3, 8 in the"),
        (lambda p: p.target.pop(7), "point 7 is missing, version 8 in the source"),
        (lambda p: p.target.update({999: 0}), "is not in the source (a foreign writer's)"),
        (
            lambda p: p.contents.update({"notes-2": {7: "other"}}),
            "of 100 samples: point 7 has another payload",
        ),
        (
            lambda p: setattr(p, "probes", Probes(samples=10, recall_percent=41)),
            "searches find 41 % of the ten nearest; 90 % are wanted",
        ),
        (lambda p: setattr(p, "differences", ("hnsw is 1, wanted is 2",)), "hnsw is 1, wanted"),
    ],
)
def test_a_judgement_names_what_is_wrong(harm: Callable[[PlayedPod], object], says: str) -> None:
    played = PlayedPod(many(100), phase=Phase.VERIFYING)
    played.target = dict(played.source)
    harm(played)
    assert ended(played) is ExitCode.DONE
    assert played.judgement is not None
    assert not played.judgement.passed
    assert says in played.judgement.message


def test_texts_that_do_not_find_themselves_were_embedded_by_another_model() -> None:
    probes = Probes(samples=10, recall_percent=100, self_retrieval_percent=12)
    played = PlayedPod(many(10), phase=Phase.VERIFYING, plan=ReindexPlan.REEMBED, probes=probes)
    played.target = dict(played.source)
    ended(played)
    assert played.judgement is not None
    assert "12 % of the texts are found first by themselves" in played.judgement.message


def test_what_is_being_written_is_looked_at_again_until_it_agrees() -> None:
    played = PlayedPod(many(100), phase=Phase.VERIFYING)
    played.target = dict(played.source)
    played.target[7] = 2
    looks: list[str] = []

    def written(path: str) -> None:
        if path == "/versions":
            looks.append(path)
            if len(looks) == 6:
                played.target[7] = played.source[7]

    played.before = written
    ended(played)
    assert played.judgement is not None
    assert played.judgement.passed


def test_in_place_nothing_is_compared_and_searches_are_probed() -> None:
    played = PlayedPod(many(10), phase=Phase.VERIFYING, plan=ReindexPlan.IN_PLACE)
    ended(played)
    assert played.judgement is not None
    assert played.judgement.passed
    assert "compared" not in played.judgement.results
    assert played.judgement.results["recallPercent"] == 100
