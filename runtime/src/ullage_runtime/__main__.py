"""`python -m ullage_runtime`: the pod's process."""

import signal
import sys


def main() -> int:
    """Serve until told to end; return the exit status."""
    # A container's first process ignores signals it has no handler for, and what is imported below
    # takes a second or more: without this, a pod ended so early is waited for in vain.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    import uvloop

    from ullage_runtime.addresses import AddressInUse, AddressUnusable
    from ullage_runtime.app import serve
    from ullage_runtime.logs import set_up_logging
    from ullage_runtime.settings import SettingsError, load_settings

    try:
        loaded = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    set_up_logging(loaded.values)
    try:
        uvloop.run(serve(loaded.values))
    except (AddressInUse, AddressUnusable) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
