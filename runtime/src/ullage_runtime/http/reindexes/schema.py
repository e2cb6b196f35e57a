"""The bodies and answers of the paths of reindex jobs."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ullage_api.kinds.base import KubeModel
from ullage_api.kinds.memory import Priority
from ullage_api.kinds.reindex_job import ReindexJobSpec
from ullage_api.kinds.reindex_settings import RateSettings
from ullage_api.names import MAX_NAME_LENGTH, NAME_PATTERN
from ullage_api.wire.pod_report import ReportedReindex


class ReindexBody(BaseModel):
    """A reindex job that is to begin."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=MAX_NAME_LENGTH, pattern=f"^(?:{NAME_PATTERN})$")]
    spec: ReindexJobSpec


class ReindexChange(KubeModel):
    """What can be changed of a job that runs."""

    model_config = ConfigDict(extra="forbid")

    rate: RateSettings | None = None
    priority: Priority | None = None


class DeletedReindex(BaseModel):
    """A reindex job that is no more."""

    name: str
    deleted: bool = True


class ReindexList(BaseModel):
    """Every reindex job of the pool."""

    reindexes: list[ReportedReindex]
