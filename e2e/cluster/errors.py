"""What can go wrong with a local cluster, as one tree.

ClusterError
├── MissingRequirementError   this machine lacks something; the message says what to install
├── CommandError              a program we ran answered with a failure
└── DeadlineError             something did not happen in time; the message ends with its log
"""

from __future__ import annotations

__all__ = ["ClusterError", "CommandError", "DeadlineError", "MissingRequirementError"]


class ClusterError(Exception):
    """The root of every failure this package raises on purpose."""


class MissingRequirementError(ClusterError):
    """This machine cannot run what was asked for."""


class CommandError(ClusterError):
    """A program ended with a non-zero status."""


class DeadlineError(ClusterError):
    """A wait ran out of time."""
