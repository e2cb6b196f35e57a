"""Rollouts of a pod's model in virtual time: what is wished for, and what a report must show."""

from collections.abc import Callable
from typing import Any

from tests.support.fake_models import wanted
from ullage_api.kinds.rollout import RolloutSettings, SwapStep
from ullage_api.kinds.serving_limits import ServingLimits
from ullage_api.wire.pod_report import ReportedModel
from ullage_api.wire.pool_desired import DesiredModel


def swapped(
    uri: str = "file:v2",
    generation: int = 2,
    *,
    limits: ServingLimits | None = None,
    **rollout: Any,
) -> DesiredModel:
    """Return the wish for another revision, and how it is to take over."""
    model = wanted(uri=uri, generation=generation, limits=limits)
    return model.model_copy(update={"rollout": RolloutSettings.model_validate(rollout)})


def serves(uri: str) -> Callable[[ReportedModel], bool]:
    """Whether a revision's file is what answers."""
    return lambda m: m.active is not None and m.active.uri == uri


def step(wanted_step: SwapStep) -> Callable[[ReportedModel], bool]:
    """Whether a swap is at a step."""
    return lambda m: m.swap is not None and m.swap.step is wanted_step


def is_over(model: ReportedModel) -> bool:
    """Whether there was a swap, and it has ended."""
    return model.swap is not None and model.swap.step is None
