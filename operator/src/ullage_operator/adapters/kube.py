"""The Kubernetes client, behind the controller's port.

Plain requests through `kubernetes.aio`'s ApiClient, which brings authentication, TLS and the
refresh of tokens; its typed models are left aside, for what we build and read are mappings.

Objects are created by POST, so that a foreign object of the same name is never taken over, and
afterwards applied on the server's side under the uid we saw. A POST leaves its fields to an
`Update` of our field manager, and server-side apply removes only fields of an `Apply`: so the entry
is turned into one at once (what kubectl does when it migrates client-side applied objects).
"""

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

from ullage_api.names import API_VERSION
from ullage_operator.adapters.metrics import ApiMetrics
from ullage_operator.controller.errors import (
    ConflictError,
    GoneError,
    NameTakenError,
    RefusedError,
    TransientError,
)
from ullage_operator.controller.ports import RawObject
from ullage_operator.reconcile.plan import Delete, Manifest

FIELD_MANAGER: Final = "ullage-operator"
STATUS_MANAGER: Final = "ullage-operator-status"

CALL_SECONDS: Final = 20.0
TRIES: Final = 4
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
PAGE: Final = 500

APPLY_PATCH: Final = "application/apply-patch+yaml"
JSON_PATCH: Final = "application/json-patch+json"

PLURALS: Final[Mapping[tuple[str, str], str]] = {
    (API_VERSION, "ModelDeployment"): "modeldeployments",
    (API_VERSION, "VectorCollection"): "vectorcollections",
    (API_VERSION, "ReindexJob"): "reindexjobs",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "Pod"): "pods",
    ("v1", "Secret"): "secrets",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("apps/v1", "ControllerRevision"): "controllerrevisions",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("batch/v1", "Job"): "jobs",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("events.k8s.io/v1", "Event"): "events",
}
"""Every kind the operator touches; what it may do with each is in `adapters.rules`."""

_NOT_THAT_KIND: Final = ("unable to convert unstructured object", "failed to create typed patch")
"""What the API server says, with a 500, of an apply whose values do not fit the object's types."""

_BUSY: Final = frozenset({401, 410, 429, 500, 502, 503, 504})
"""Answers after which asking again helps: a token that has just expired is read anew (401), and an
expired list begins anew (410)."""


async def connect(user_agent: str) -> aio_client.ApiClient:
    """Return a client for the cluster we run in, or else for the kubeconfig's current context."""
    configuration = aio_client.Configuration()
    # The library's own annotations are incomplete, here and below.
    try:
        aio_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except aio_config.ConfigException:
        await aio_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    api = aio_client.ApiClient(configuration)
    api.user_agent = user_agent
    return api


class AioKubeClient:
    """KubeClient on `kubernetes.aio`; every call has a deadline and a few tries."""

    def __init__(self, api: aio_client.ApiClient, metrics: ApiMetrics) -> None:
        self._api = api
        self._metrics = metrics

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> RawObject | None:
        """Return an object, or None when there is none."""
        try:
            return await self._call("get", "GET", path(api_version, kind, namespace, name))
        except GoneError:
            return None

    async def list(
        self, api_version: str, kind: str, namespace: str, labels: str = ""
    ) -> Sequence[RawObject]:
        """Return all objects of a kind in a namespace that match, page by page."""
        found: list[RawObject] = []
        query: dict[str, Any] = {"limit": PAGE} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._call("list", "GET", path(api_version, kind, namespace), query=query)
            found.extend(page.get("items") or ())
            more = page["metadata"].get("continue")
            if not more:
                return found
            query["continue"] = more

    async def create(self, manifest: Manifest) -> RawObject:
        """Create an object and make its fields ours to apply."""
        made = await self._call(
            "create",
            "POST",
            path_of(manifest, named=False),
            query={"fieldManager": FIELD_MANAGER},
            body=manifest,
        )
        return await self._owned(manifest, made)

    async def apply(self, manifest: Manifest) -> RawObject:
        """Apply a manifest on the server's side, over other managers' claims to our fields."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        url = path_of(manifest)
        made = await self._call(
            "apply", "PATCH", url, query=query, body=manifest, type_=APPLY_PATCH
        )
        return await self._owned(manifest, made)

    async def apply_status(self, manifest: Manifest) -> RawObject:
        """Apply an object's status subresource."""
        query = {"fieldManager": STATUS_MANAGER, "force": "true"}
        url = path_of(manifest) + "/status"
        return await self._call(
            "apply_status", "PATCH", url, query=query, body=manifest, type_=APPLY_PATCH
        )

    async def delete(self, namespace: str, target: Delete) -> None:
        """Delete an object if it still is the one that was seen; one that is gone is fine."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": target.uid},
            "propagationPolicy": "Background",
        }
        url = path(target.api_version, target.kind, namespace, target.name)
        try:
            await self._call("delete", "DELETE", url, body=body)
        except (GoneError, ConflictError):
            return

    async def serves(self, api_version: str, kind: str) -> bool:
        """Return whether the API server knows a kind of ours."""
        try:
            known = await self._call("discover", "GET", f"/apis/{api_version}")
        except GoneError:
            return False
        return any(resource["kind"] == kind for resource in known["resources"])

    async def _owned(self, manifest: Manifest, made: RawObject) -> RawObject:
        """Turn our `Update` of an object's fields into an `Apply`, if there is one."""
        if manifest["kind"] in {"Event", "Secret", "PersistentVolumeClaim", "Job"}:
            # None ever changes: Events, claims, Jobs, and the one Secret we POST, our own.
            return made
        for _ in range(TRIES):
            index = _update_entry(made)
            if index is None:
                return made
            entry = f"/metadata/managedFields/{index}"
            patch = [
                {"op": "test", "path": f"{entry}/manager", "value": FIELD_MANAGER},
                {"op": "test", "path": f"{entry}/operation", "value": "Update"},
                {"op": "replace", "path": f"{entry}/operation", "value": "Apply"},
            ]
            try:
                return await self._call(
                    "migrate", "PATCH", path_of(manifest), body=patch, type_=JSON_PATCH
                )
            except RefusedError:
                # Another manager's entry has come before ours meanwhile.
                metadata = manifest["metadata"]
                seen = await self.get(
                    manifest["apiVersion"],
                    manifest["kind"],
                    metadata["namespace"],
                    metadata["name"],
                )
                made = seen if seen is not None else {}
        return made

    async def _call(
        self,
        verb: str,
        method: str,
        url: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        type_: str = "application/json",
    ) -> RawObject:
        """Make a call, again while the server is busy; a POST only if it surely did nothing."""
        pause = FIRST_PAUSE
        for attempt in range(1, TRIES + 1):
            try:
                return await self._once(verb, method, url, dict(query or {}), body, type_)
            except TransientError as error:
                sure = error.retry_after is not None
                if attempt == TRIES or (method == "POST" and not sure):
                    raise
                wait = max(pause, min(error.retry_after or 0.0, LONGEST_PAUSE))
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
                pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the last try either returns or raises")

    async def _once(
        self, verb: str, method: str, url: str, query: dict[str, Any], body: Any, type_: str
    ) -> RawObject:
        headers = {"Accept": "application/json", "Content-Type": type_}
        code = "error"
        try:
            request = await self._api.param_serialize(
                method,
                url,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(
                *request, _request_timeout=aiohttp.ClientTimeout(total=CALL_SECONDS)
            )
            text = await response.read()  # type: ignore[no-untyped-call]
            code = str(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"{method} {url}: {str(error) or type(error).__name__}") from error
        finally:
            self._metrics.called(verb, code)
        if response.status < 300:  # noqa: PLR2004 - HTTP's successes
            result: RawObject = json.loads(text)
            return result
        raise problem(method, url, response.status, text, response.headers)


def problem(
    method: str, url: str, status: int, text: bytes, headers: Mapping[str, str]
) -> Exception:
    """Return the error that an answer of the API server stands for."""
    try:
        document = json.loads(text)
        message = str(document.get("message") or text[:300])
        reason = str(document.get("reason", ""))
        causes = (document.get("details") or {}).get("causes") or ()
        ending = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    except (ValueError, AttributeError):
        message, reason, ending = text[:300].decode(errors="replace"), "", False
    unfit = any(words in message for words in _NOT_THAT_KIND)
    found: Exception = RefusedError(f"{status} {message}")
    match status:
        case 404:
            found = GoneError(message)
        case 403 if ending:
            found = GoneError(message)
        case 409 if method == "POST" and reason == "AlreadyExists":
            found = NameTakenError(message)
        case 409:
            found = ConflictError(message)
        case _ if status in _BUSY and not unfit:
            after = headers.get("Retry-After", "")
            seconds = float(after) if after.isdigit() else None
            found = TransientError(f"{method} {url}: {status} {message}", seconds)
    return found


def path(api_version: str, kind: str, namespace: str, name: str = "") -> str:
    """Return the path of an object, or of a namespace's collection."""
    root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
    plural = PLURALS[api_version, kind]
    tail = f"/{quote(name, safe='')}" if name else ""
    return f"{root}/namespaces/{quote(namespace, safe='')}/{plural}{tail}"


def path_of(manifest: Manifest, *, named: bool = True) -> str:
    """Return the path of a manifest's object, or of the collection it goes into."""
    metadata = manifest["metadata"]
    name = metadata["name"] if named else ""
    return path(manifest["apiVersion"], manifest["kind"], metadata["namespace"], name)


def _update_entry(raw: RawObject) -> int | None:
    """Return the index of the entry by which our manager owns fields from a POST."""
    entries = raw.get("metadata", {}).get("managedFields") or ()
    for index, entry in enumerate(entries):
        ours = entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")
        if ours and entry.get("operation") == "Update":
            return index
    return None
