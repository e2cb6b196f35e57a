"""Where model files come from, and the cache that keeps them.

`ModelCache` is the one entrance. What lies behind it, from the outside in:

- `cache`      what `fetch` does: single flight, revalidation, the way of each scheme
- `uris`       the kinds of address, parsed
- `local`      files and folders beneath the pool's folders
- `remote`     one fetch over the network, whatever the kind of source
- `listing`    the port of a source: what there is, before anything is downloaded
- `hub`, `s3`, `oci`, `webfile` are the sources; `documents` are what they ask for, `signatures` and
  `registry_tokens` how they log in
- `needed`     which of many files a model needs, as a pure table
- `files`      one file of a source, into its blob; `archives` those of an image's layers
- `trees`      models of several files, with one digest
- `download`   one file over HTTP: attempts, resumption, checks
- `responses`  what an answer means for a download, as a pure table
- `web`        requests, redirects and credentials; `dialing` decides which addresses are dialled,
  `access` and `credentials` what a host is shown
- `store`      the cache's folders, `partial` its unfinished files, `locks` between processes
- `keeping`    what is in use, and `disk` what leaves when room is short
- `digests`    SHA-256 of files, remembered between restarts
- `formats`    what the first bytes of a file say
"""

from ullage_runtime.models.sources.cache import ModelCache
from ullage_runtime.models.sources.dialing import Dialing
from ullage_runtime.models.sources.hub import HubAccess
from ullage_runtime.models.sources.limits import Limits
from ullage_runtime.models.sources.s3 import S3Access

__all__ = ["Dialing", "HubAccess", "Limits", "ModelCache", "S3Access"]
