"""The states of a reindex job as a diagram, drawn from what the code allows."""

from typing import Final

from ullage_api.kinds.reindex_phase import ReindexPhase as Phase
from ullage_runtime.core.reindexing.machine import TRANSITIONS

WAY: Final = (
    Phase.PENDING,
    Phase.QUEUED,
    Phase.PREPARING,
    Phase.DUAL_WRITING,
    Phase.COPYING,
    Phase.CATCHING_UP,
    Phase.INDEXING,
    Phase.VERIFYING,
    Phase.READY_TO_SWITCH,
    Phase.SWITCHING,
    Phase.SOAKING,
    Phase.CLEANING,
    Phase.SUCCEEDED,
)
"""Phases of a job that nothing comes in the way of."""


def diagram() -> str:
    """Return the states in the language of Mermaid: those on the way first, then the others."""
    others = [phase for phase in Phase if phase not in WAY]
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.PENDING.value}"]
    for before in (*WAY, *others):
        after = sorted(TRANSITIONS[before], key=[*WAY, *others].index)
        lines += [f"    {before.value} --> {each.value}" for each in after]
        if not after:
            lines.append(f"    {before.value} --> [*]")
    return "\n".join(lines)


def page() -> str:
    """Return the page of the documentation that shows it, with what each phase means."""
    meanings = "\n".join(f"| `{phase.value}` | {MEANINGS[phase]} |" for phase in Phase)
    return f"""# States of a reindex job

Drawn from the code by `make states`; [guarantees.md](guarantees.md) says what holds in each.

```mermaid
{diagram()}
```

| phase | what the job does |
|---|---|
{meanings}
"""


MEANINGS: Final = {
    Phase.PENDING: "It is being found out what there is to do.",
    Phase.QUEUED: "Others go first: one job of a collection at a time, and one of a store.",
    Phase.PREPARING: "The target is being made; in place, the index's settings are remembered.",
    Phase.DUAL_WRITING: "What is written from now on goes to the target too.",
    Phase.COPYING: "What was there before is copied; or documents are cut again, one by one.",
    Phase.CATCHING_UP: "What was written meanwhile is applied to the target.",
    Phase.INDEXING: "The store builds the index.",
    Phase.VERIFYING: "The target is held against the source, point by point, and is searched.",
    Phase.READY_TO_SWITCH: "The target may be searched; a manual cutover waits for `approve` here.",
    Phase.SWITCHING: "Searches are sent to the target, with the model of its vectors, in one step.",
    Phase.SOAKING: "The target is searched, and the old collection is kept up to date for a "
    "rollback.",
    Phase.CLEANING: "What nobody reads or writes any more is removed.",
    Phase.SUCCEEDED: "The collection is as its spec wanted it.",
    Phase.PAUSED: "The job is suspended; the target is kept up to date.",
    Phase.ROLLING_BACK: "What was searched before is searched again.",
    Phase.CANCELLING: "The target is given up and removed.",
    Phase.CANCELLED: "It was given up or rolled back as somebody wished.",
    Phase.FAILED: "It could not be done; what was searched before still is.",
}
"""What the page says of each phase."""


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - that is what it is for
