"""What the embedded store refuses, in the terms of Qdrant's REST API.

Refused              400
├── NotFound         404
├── AlreadyExists    409
└── NoRoom           507
VolumeError          the volume cannot be used at all
└── VolumeInUse      another process owns it
"""

from typing import ClassVar


class Refused(Exception):  # noqa: N818 - named after what the client is told
    """A request that cannot be carried out as it stands."""

    status: ClassVar[int] = 400


class NotFound(Refused):
    """No collection of that name."""

    status = 404


class AlreadyExists(Refused):
    """There is a collection of that name."""

    status = 409


class NoRoom(Refused):
    """The volume has too little room for a write."""

    status = 507


class VolumeError(Exception):
    """The folder that shards are kept in cannot be used."""


class VolumeInUse(VolumeError):  # noqa: N818 - named after what is so
    """Another process owns the folder."""
