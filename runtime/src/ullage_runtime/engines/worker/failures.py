"""ServingErrors and their form on the wire."""

from ullage_runtime.core import errors
from ullage_runtime.core.errors import EngineFailed, ServingError
from ullage_runtime.engines.worker.wire import Failure

_BY_CODE = {
    cls.code: cls
    # A kind of error without a code of its own comes after the one whose code it has.
    for cls in reversed(vars(errors).values())
    if isinstance(cls, type) and issubclass(cls, ServingError)
}


def failure_of(error: ServingError) -> Failure:
    """Return an error's form on the wire."""
    return Failure(
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after=error.retry_after,
        details=error.details,
    )


def error_of(failure: Failure) -> ServingError:
    """Return the error that a failure on the wire stands for."""
    cls = _BY_CODE.get(failure.code, EngineFailed)
    return cls(
        failure.message,
        param=failure.param,
        retry_after=failure.retry_after,
        details=dict(failure.details),
    )
