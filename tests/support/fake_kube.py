"""An API server in memory, as far as the controller's port goes: uids, versions, conflicts."""

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ullage_api.wire.pool_desired import PoolDesired
from ullage_operator.controller.errors import ConflictError, GoneError, NameTakenError
from ullage_operator.controller.keys import Key
from ullage_operator.controller.ports import PodEndpoint, RawObject
from ullage_operator.reconcile.observed import Owner, ProfileView, ReportView
from ullage_operator.reconcile.plan import Delete, EventNote, Manifest

Place = tuple[str, str, str]


class FakeKube:
    """KubeClient over a dictionary; `before` may raise what a real server would."""

    def __init__(self) -> None:
        self.objects: dict[Place, RawObject] = {}
        self.writes: list[tuple[str, str]] = []
        self.before: Callable[[str, Manifest], None] = lambda _verb, _manifest: None
        self._numbers = itertools.count(1)

    def put(self, raw: RawObject) -> RawObject:
        """Place an object as somebody else would."""
        metadata = raw["metadata"]
        number = next(self._numbers)
        metadata.setdefault("uid", f"uid-{number}")
        metadata.setdefault("creationTimestamp", f"2026-11-20T10:00:{number % 60:02d}Z")
        metadata["resourceVersion"] = str(number)
        self.objects[self._place(raw)] = raw
        return raw

    def remove(self, kind: str, namespace: str, name: str) -> None:
        del self.objects[kind, namespace, name]

    def names(self, kind: str) -> list[str]:
        return sorted(name for k, _, name in self.objects if k == kind)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> RawObject | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: str = ""
    ) -> Sequence[RawObject]:
        wanted = dict(part.split("=") for part in labels.split(",") if part)
        return [
            copy.deepcopy(raw)
            for (k, ns, _), raw in self.objects.items()
            if (k, ns) == (kind, namespace)
            and wanted.items() <= (raw["metadata"].get("labels") or {}).items()
        ]

    async def create(self, manifest: Manifest) -> RawObject:
        self.before("create", manifest)
        await asyncio.sleep(0)  # as a real one, it lets others go on
        if self._place(manifest) in self.objects:
            raise NameTakenError("AlreadyExists")
        return self._store("create", copy.deepcopy(dict(manifest)))

    async def apply(self, manifest: Manifest) -> RawObject:
        self.before("apply", manifest)
        await asyncio.sleep(0)
        found = self.objects.get(self._place(manifest))
        metadata = manifest["metadata"]
        if metadata.get("uid") and (found is None or found["metadata"]["uid"] != metadata["uid"]):
            raise ConflictError("another uid")
        version = metadata.get("resourceVersion")
        if found is not None and version and found["metadata"]["resourceVersion"] != version:
            raise ConflictError("another version")
        if found is not None and manifest["kind"] == "Pod":
            found["metadata"]["labels"] |= metadata["labels"]
            return self._store("apply", found)
        merged = {**(found or {}), **copy.deepcopy(dict(manifest))}
        if found is not None and "finalizers" in metadata:
            # Whoever applies finalizers says nothing of the rest.
            merged["metadata"] = {**found["metadata"], **copy.deepcopy(dict(metadata))}
        return self._store("apply", merged)

    async def apply_status(self, manifest: Manifest) -> RawObject:
        self.before("status", manifest)
        found = self.objects.get(self._place(manifest))
        if found is None:
            raise GoneError("NotFound")
        found["status"] = copy.deepcopy(manifest["status"])
        return self._store("status", found)

    async def delete(self, namespace: str, target: Delete) -> None:
        self.writes.append(("delete", f"{target.kind} {target.name}"))
        self.objects.pop((target.kind, namespace, target.name), None)

    def _store(self, verb: str, raw: RawObject) -> RawObject:
        self.writes.append((verb, f"{raw['kind']} {raw['metadata']['name']}"))
        return copy.deepcopy(self.put(raw))

    @staticmethod
    def _place(raw: Any) -> Place:
        metadata = raw["metadata"]
        return raw["kind"], metadata["namespace"], metadata["name"]


class FakeReports:
    """PodReports that a test fills."""

    def __init__(self) -> None:
        self.followed: dict[Key, list[PodEndpoint]] = {}
        self.views: dict[Key, tuple[ReportView, ...]] = {}
        self.pushed: list[tuple[tuple[str, ...], PoolDesired]] = []
        self.on_push: Callable[[], Awaitable[None]] | None = None

    def follow(self, pool: Key, endpoints: Sequence[PodEndpoint], token: str) -> None:
        self.followed[pool] = list(endpoints)

    def forget(self, pool: Key) -> None:
        self.followed.pop(pool, None)

    def latest(self, pool: Key) -> tuple[ReportView, ...]:
        return self.views.get(pool, ())

    async def push(self, pool: Key, pods: Sequence[str], document: PoolDesired) -> None:
        self.pushed.append((tuple(pods), document))
        if self.on_push is not None:
            await self.on_push()


class FakeProfiles:
    """Profiles that a test sets."""

    def __init__(self, view: ProfileView) -> None:
        self.current = view

    def view(self, pool: str) -> ProfileView:
        return self.current


class Events:
    """EventRecorder that remembers."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    async def record(self, resource: Owner, note: EventNote) -> None:
        self.notes.append((resource.metadata.name, note.reason))


class Counters:
    """Metrics that remember."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self.statuses = 0

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        self.outcomes.append((kind, outcome))

    def status_written(self, kind: str) -> None:
        self.statuses += 1
