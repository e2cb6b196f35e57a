"""What a viewer has been told, and what there is to tell: plain data, compared field by field."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ullage_api.wire.pod_report import PodReport
from ullage_runtime.http.auth import Key
from ullage_runtime.http.ops.memory_objects import device_memory, may_see, model_memory
from ullage_runtime.models.ports import MOVING

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """Devices and models by id, as one viewer may see them."""

    devices: Mapping[str, Entry] = field(default_factory=dict)
    models: Mapping[str, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, report: PodReport, key: Key | None) -> "View":
        """Return what a report shows to a viewer."""
        return cls(
            {d.id: device_memory(d).model_dump(mode="json") for d in report.devices},
            {
                m.name: model_memory(m).model_dump(mode="json")
                for m in report.models
                if may_see(key, m.name)
            },
        )

    def known_except(self, changed: Collection[str]) -> "View":
        """Return what a viewer still knows of this who saw it before these models changed.

        Numbers that move all the time are not known any more.
        """
        return View(
            {},
            {
                name: {k: v for k, v in entry.items() if k not in MOVING}
                for name, entry in self.models.items()
                if name not in changed
            },
        )


def differences(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> list[Entry]:
    """Return of each entry that differs its id and the fields that do, of a new one all."""
    found = []
    for name, entry in now.items():
        known = before.get(name, {})
        changed = {k: v for k, v in entry.items() if k not in known or known[k] != v}
        if changed:
            found.append({"id": name} | changed)
    return found
