"""How well rankings answer questions: our own measures, held against pytrec_eval's."""

from dataclasses import dataclass

import pytest
import pytrec_eval

from tests.support import ranking

DEPTH = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over all questions."""

    ndcg: float
    recall: float
    reciprocal_rank: float


def judged(rankings: dict[int, list[int]]) -> Scores:
    """Return the means of our own measures; fails unless pytrec_eval has the same."""
    count = len(rankings)
    ours = Scores(
        sum(ranking.ndcg(found, answer, DEPTH) for answer, found in rankings.items()) / count,
        sum(ranking.recall(found, answer, DEPTH) for answer, found in rankings.items()) / count,
        sum(ranking.reciprocal_rank(found, answer) for answer, found in rankings.items()) / count,
    )
    judge = pytrec_eval.RelevanceEvaluator(
        {str(answer): {str(answer): 1} for answer in rankings},
        {f"ndcg_cut.{DEPTH}", f"recall.{DEPTH}", "recip_rank"},
    )
    theirs = judge.evaluate(
        {
            # Where scores are equal it has its own order, so that ranks are given as scores.
            str(answer): {str(each): float(-rank) for rank, each in enumerate(found)}
            for answer, found in rankings.items()
        }
    )
    for name, mean in (
        (f"ndcg_cut_{DEPTH}", ours.ndcg),
        (f"recall_{DEPTH}", ours.recall),
        ("recip_rank", ours.reciprocal_rank),
    ):
        assert sum(each[name] for each in theirs.values()) / count == pytest.approx(mean, abs=1e-6)
    return ours
