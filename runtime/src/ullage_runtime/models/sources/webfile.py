"""One file of the web, as a source."""

from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.sources.listing import Listing, RemoteFile
from ullage_runtime.models.sources.uris import WebUri
from ullage_runtime.models.sources.web import Web


class WebSource:
    """One `https://` or `http://` address."""

    def __init__(self, uri: WebUri) -> None:
        self.label = uri.label
        self.main: str | None = "file"
        self.is_pinned = False
        self._url = uri.url

    async def listing(
        self,
        web: Web,
        precision: PrecisionType,  # noqa: ARG002 - the port's: there is one file
    ) -> Listing:
        """Return the file, of which nothing is known before it is asked for."""
        web.check_scheme(self._url)
        return Listing((RemoteFile("file", self._url),), "file")
