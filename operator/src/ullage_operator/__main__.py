"""`ullage-operator`: run the operator."""

import asyncio
import signal
import sys


def main() -> int:
    """Run until told to end; return the exit status."""
    # A container's first process ignores signals it has no handler for, and what is imported below
    # takes a second or more: without this, a pod ended so early is waited for in vain.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    import structlog
    import uvloop
    from pydantic import ValidationError

    from ullage_operator.adapters.logs import configure_logs
    from ullage_operator.app import NotServedError, run
    from ullage_operator.controller.errors import ReconcileError
    from ullage_operator.settings import OperatorSettings

    try:
        settings = OperatorSettings()
    except ValidationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs(settings.log_level, settings.log_format)
    log = structlog.get_logger("ullage_operator")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (NotServedError, ReconcileError) as error:
        log.error("operator cannot run", error=str(error))  # noqa: TRY400 - the words suffice
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
