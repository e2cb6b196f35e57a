"""Processes that must not outlive the one that started them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, status: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    When the parent is gone already, the process exits with the status.
    """
    if sys.platform != "linux":
        return  # the end of the socket does it, once what runs is over
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(status)
