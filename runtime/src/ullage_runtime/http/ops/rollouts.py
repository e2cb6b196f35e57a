"""How revisions of a model take each other's place on this pod."""

from typing import Annotated

from fastapi import Path, Request

from ullage_api.names import ROLLBACK_ANNOTATION
from ullage_runtime.core.errors import Forbidden, InvalidRequest, ModelNotFound, RevisionNotFound
from ullage_runtime.http.openai.service import chosen_model
from ullage_runtime.http.openapi import CALLED, CHOSEN, SENT, refusals
from ullage_runtime.http.ops.rollout_objects import RollbackBody, Rollout, rollout
from ullage_runtime.http.routes import Router
from ullage_runtime.http.services import Services, ServicesOf

TAG = "Rollouts"

router = Router(prefix="/rollouts", tag=TAG)

Name = Annotated[str, Path(min_length=1, max_length=128, description="A model's name or alias.")]


@router.get("/{model}", responses=refusals(*CALLED, *CHOSEN, InvalidRequest))
async def get_rollout(model: Name, request: Request, services: ServicesOf) -> Rollout:
    """Say which revision of a model answers on this pod, and how the next one is doing."""
    return _shown(services, chosen_model(services, request, model).name)


@router.post("/{model}/rollback", responses=refusals(*CALLED, *SENT, *CHOSEN, RevisionNotFound))
async def create_rollback(
    model: Name, body: RollbackBody, request: Request, services: ServicesOf
) -> Rollout:
    """Have an earlier revision answer, until the manifest asks for something else.

    Only where no operator says what a pod serves.
    """
    chosen = chosen_model(services, request, model)
    if services.go_back is None:
        raise Forbidden(
            "the ModelDeployment says which revision a pod serves: kubectl annotate "
            f"modeldeployments.ullage.dev {chosen.name} {ROLLBACK_ANNOTATION}=<revision>"
        )
    await services.go_back(chosen, body.revision)
    return _shown(services, chosen.name)


def _shown(services: Services, name: str) -> Rollout:
    found = services.models.report().model(name)
    if found is None:
        raise ModelNotFound(f"there is no model {name!r} here any more", param="model")
    return rollout(found, services.models.revisions(name))
