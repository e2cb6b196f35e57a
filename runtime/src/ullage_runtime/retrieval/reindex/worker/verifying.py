"""Judging: whether the target is what the source is, and is searched as well as it should be.

Every id of both sides is compared with its version; contents are sampled. What is written meanwhile
differs for a moment: it is looked at again, source, target and source, until it agrees or stays as
it is.
"""

import math
import random
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ullage_runtime.core.reindexing.joining import Difference, Join, PointId, Side, is_consistent
from ullage_runtime.retrieval.reindex.wire import (
    MAX_VERSIONS,
    PointHash,
    ProbesRequest,
    VerificationRequest,
)
from ullage_runtime.retrieval.reindex.worker.leasing import Leased
from ullage_runtime.retrieval.reindex.worker.pod import Pod

log = structlog.stdlib.get_logger(__name__)

SAMPLES: Final = 100
"""Points whose contents are compared, if nobody says."""
RECALL_PERCENT: Final = 90
"""Share of the nearest that searches must find, if nobody says."""
SELF_RETRIEVAL_PERCENT: Final = 90
"""Share of the texts that must be found first by themselves: fewer are of another model."""
LOOKS: Final = 6
"""How often what differs is looked at again."""
NAMED: Final = 5
"""Differences that are named."""
MOST_SUSPECTS: Final = 100_000


@dataclass(slots=True)
class Findings:
    """What the gates found."""

    failures: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)

    def require(self, *, holds: bool, message: str) -> None:
        """Note a failure unless something holds."""
        if not holds:
            self.failures.append(message)


class Verifying:
    """One worker's judgement of one job."""

    def __init__(self, pod: Pod, leased: Leased) -> None:
        self._pod = pod
        self._leased = leased
        # The same points again when it is repeated.
        self._dice = random.Random(leased.lease.uid)  # noqa: S311 - not for secrets

    async def run(self) -> VerificationRequest:
        """Go through every gate, say what came of it, and return that."""
        findings = Findings()
        await self._schema(findings)
        lease = self._leased.lease
        if lease.plan is not None and lease.plan.copies:
            ids = await self._joined(findings)
            await self._contents(findings, ids)
        await self._searches(findings)
        findings.require(
            holds=lease.failed <= lease.max_failed,
            message=f"{lease.failed} points were left out, {lease.max_failed} may be",
        )
        judgement = VerificationRequest(
            token=lease.token,
            passed=not findings.failures,
            results=findings.results,
            message="; ".join(findings.failures),
        )
        await self._pod.judge(judgement)
        log.info("verified", passed=judgement.passed, told=judgement.message, **findings.results)
        return judgement

    async def _schema(self, findings: Findings) -> None:
        schema = await self._pod.schema()
        findings.failures.extend(schema.differences)

    def _physical(self, side: Side) -> str:
        lease = self._leased.lease
        name = lease.source if side is Side.SOURCE else lease.target
        if name is None:
            raise RuntimeError(f"the pod names no {side.value} for plan {lease.plan}")
        return name

    async def _joined(self, findings: Findings) -> list[PointId]:
        """Compare all ids of both sides with their versions; return a sample of them."""
        join, following = Join(), dict[Side, PointId | None]()
        sample: list[PointId] = []
        seen = 0
        while (side := join.wants) is not None:
            page = await self._pod.versions(self._physical(side), following.get(side), MAX_VERSIONS)
            following[side] = page.next
            points = [(each.id, each.version) for each in page.points]
            join.add(side, points, is_last=page.next is None)
            if side is Side.SOURCE:
                for point, _ in points:
                    seen = self._sampled(sample, seen, point)
            if len(join.differences) > MOST_SUSPECTS:
                break
        differences = await self._confirmed(join.differences)
        findings.results |= {
            "compared": join.compared,
            "missing": sum(each.target is None for each in differences),
            "foreign": sum(each.source is None for each in differences),
            "differing": sum(None not in {each.source, each.target} for each in differences),
        }
        if differences:
            named = "; ".join(map(str, differences[:NAMED]))
            more = f"; and {len(differences) - NAMED} more" if len(differences) > NAMED else ""
            findings.failures.append(f"{len(differences)} points differ: {named}{more}")
        return sample

    def _sampled(self, sample: list[PointId], seen: int, point: PointId) -> int:
        """Take a point into the sample with the chance that makes all equally likely."""
        size = self._sample_size
        if len(sample) < size:
            sample.append(point)
        elif (place := self._dice.randrange(seen + 1)) < size:
            sample[place] = point
        return seen + 1

    @property
    def _sample_size(self) -> int:
        size = self._leased.lease.sample_size
        return SAMPLES if size is None else size

    async def _confirmed(self, suspects: list[Difference]) -> list[Difference]:
        """Return what differs however often it is looked at."""
        confirmed = []
        for first in range(0, len(suspects), MAX_VERSIONS):
            portion = suspects[first : first + MAX_VERSIONS]
            for _ in range(LOOKS):
                if not portion:
                    break
                portion = await self._looked_at(portion)
            confirmed.extend(portion)
        return confirmed

    async def _looked_at(self, suspects: list[Difference]) -> list[Difference]:
        ids = [each.id for each in suspects]
        before = await self._versions(Side.SOURCE, ids)
        between = await self._versions(Side.TARGET, ids)
        after = await self._versions(Side.SOURCE, ids)
        return [
            Difference(each, after.get(each), between.get(each))
            for each in ids
            if not is_consistent(before.get(each), between.get(each), after.get(each))
        ]

    async def _versions(self, side: Side, ids: list[PointId]) -> dict[PointId, int]:
        found = await self._pod.versions_of(self._physical(side), ids)
        return {each.id: each.version for each in found.points}

    async def _contents(self, findings: Findings, ids: list[PointId]) -> None:
        """Compare what sampled points hold, where both sides have the same version of them."""
        source = await self._hashes(Side.SOURCE, ids)
        target = await self._hashes(Side.TARGET, ids)
        keeps, wrong, compared = self._leased.lease.keeps_vectors, [], 0
        for each in ids:
            left, right = source.get(each), target.get(each)
            if left is None or right is None or left.version != right.version:
                continue  # it is being written to; that all is there is known
            compared += 1
            if left.payload != right.payload:
                wrong.append(f"point {each} has another payload")
            elif keeps and left.vectors != right.vectors:
                wrong.append(f"point {each} has other vectors")
        findings.results["sampled"] = compared
        findings.results["differing"] = findings.results.get("differing", 0) + len(wrong)
        findings.require(
            holds=not wrong, message=f"of {compared} samples: {'; '.join(wrong[:NAMED])}"
        )

    async def _hashes(self, side: Side, ids: list[PointId]) -> dict[PointId, PointHash]:
        found: dict[PointId, PointHash] = {}
        for first in range(0, len(ids), MAX_VERSIONS):
            portion = ids[first : first + MAX_VERSIONS]
            answer = await self._pod.hashes(self._physical(side), portion)
            found |= {each.id: each for each in answer.points}
        return found

    async def _searches(self, findings: Findings) -> None:
        """Have the target searched, by the index and exactly."""
        lease = self._leased.lease
        if not self._sample_size:
            return
        probes = await self._pod.probes(ProbesRequest(token=lease.token, samples=self._sample_size))
        least = RECALL_PERCENT if lease.min_recall_percent is None else lease.min_recall_percent
        findings.results |= {
            "recallPercent": probes.recall_percent,
            "selfRetrievalPercent": probes.self_retrieval_percent,
            "p95Milliseconds": probes.p95_seconds and math.ceil(1000 * probes.p95_seconds),
        }
        if probes.recall_percent is not None:
            findings.require(
                holds=probes.recall_percent >= least,
                message=f"searches find {probes.recall_percent} % of the ten nearest; "
                f"{least} % are wanted",
            )
        own = probes.self_retrieval_percent
        if own is not None and lease.plan is not None and lease.plan.embeds:
            findings.require(
                holds=own >= SELF_RETRIEVAL_PERCENT,
                message=f"{own} % of the texts are found first by themselves; "
                f"{SELF_RETRIEVAL_PERCENT} % are wanted",
            )
