"""What can go wrong in a reconcile, as one tree.

ReconcileError
├── TransientError    the API server is busy, away or slow: tried again, with growing pauses
├── ConflictError     what we saw has changed meanwhile: looked at again, and decided anew
├── NameTakenError    an object of the name exists and is not ours: its users are told
├── GoneError         the object, or its whole namespace, is going or gone: nothing to do
└── RefusedError      the API server will not have it: invalid, forbidden or over quota

Anything else that leaves a reconcile is a bug: it is logged with its traceback, counted, and the
key is tried again with growing pauses.
"""


class ReconcileError(Exception):
    """A reconcile that could not do all of its plan."""


class TransientError(ReconcileError):
    """The API server is busy, away or slow."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again, if it said so."""


class ConflictError(ReconcileError):
    """What the plan was made from has changed meanwhile."""


class NameTakenError(ReconcileError):
    """An object of the needed name exists and is not ours."""


class GoneError(ReconcileError):
    """The object, or its whole namespace, is going or gone."""


class RefusedError(ReconcileError):
    """The API server will not have it, and will not the next time either."""
