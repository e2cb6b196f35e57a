"""Printer columns: what `kubectl get` shows of a kind."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; priority 0 is always shown, 1 with `-o wide`."""

    name: str
    type: str
    json_path: str
    description: str
    priority: int = 0

    def to_wire(self) -> dict[str, object]:
        """Return the column as the CRD writes it."""
        return {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
            **({"priority": self.priority} if self.priority else {}),
        }
