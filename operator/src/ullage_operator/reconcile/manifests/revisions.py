"""ControllerRevisions: what is kept of a model's revisions."""

from typing import Final

from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.names import GROUP, MANAGED_BY, POOL_LABEL, revision_object_name
from ullage_operator.reconcile.manifests.common import MODEL_LABEL, Manifest, manifest
from ullage_operator.reconcile.observed import RevisionRecord

COMPONENT: Final = "revision"
"""Value of `app.kubernetes.io/component`, by which they are told from the StatefulSet's own."""

REVISION_LABEL: Final = f"{GROUP}/revision"
TIME: Final = f"{GROUP}/time"
OUTCOME: Final = f"{GROUP}/outcome"
REASON: Final = f"{GROUP}/reason"
MESSAGE: Final = f"{GROUP}/message"
GENERATION: Final = f"{GROUP}/generation"
HELD_GENERATION: Final = f"{GROUP}/held-generation"


def controller_revision(resource: ModelDeployment, record: RevisionRecord) -> Manifest:
    """Return the object that keeps a revision; its data never changes, the annotations do."""
    optional = {
        OUTCOME: record.outcome.value if record.outcome is not None else "",
        REASON: record.reason,
        MESSAGE: record.message,
        GENERATION: str(record.generation or ""),
        HELD_GENERATION: str(record.held_generation or ""),
    }
    return manifest(
        "apps/v1",
        "ControllerRevision",
        name=revision_object_name(resource.metadata.name, record.name),
        namespace=resource.metadata.namespace,
        labels={
            "app.kubernetes.io/component": COMPONENT,
            "app.kubernetes.io/managed-by": MANAGED_BY,
            "app.kubernetes.io/part-of": "ullage",
            POOL_LABEL: resource.spec.pool,
            MODEL_LABEL: resource.metadata.name,
            REVISION_LABEL: record.name,
        },
        owners=(resource,),
        annotations={TIME: record.time} | {name: text for name, text in optional.items() if text},
        body={"data": record.spec.to_wire(), "revision": record.number},
    )
