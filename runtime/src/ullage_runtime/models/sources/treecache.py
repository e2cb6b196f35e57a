"""Trees of the cache, found again and verified, or built of blobs."""

import structlog

from ullage_runtime.core.precision import PrecisionType
from ullage_runtime.models.ports import CachedModel
from ullage_runtime.models.sources.files import Told
from ullage_runtime.models.sources.keeping import Hold, hold
from ullage_runtime.models.sources.needed import needed
from ullage_runtime.models.sources.surroundings import Surroundings
from ullage_runtime.models.sources.threads import in_thread
from ullage_runtime.models.sources.trees import (
    Tree,
    build_tree,
    known_tree,
    remove_tree,
    tree_folder,
)

logger = structlog.get_logger(__name__)


class TreeCache:
    """Models of several files, by digest."""

    def __init__(self, around: Surroundings, told: Told) -> None:
        self._around = around
        self._store = around.store
        self._told = told

    async def find(
        self, sha256: str, path: str | None, what: str, precision: PrecisionType
    ) -> CachedModel | None:
        """Return a tree if all its files are whole; a damaged one is removed.

        `path` is the file that the model's address names, if it names one.
        """
        tree = await in_thread(known_tree, self._store, sha256)
        if tree is None:
            return None
        main = needed([file.name for file in tree.files], path, what, precision).main
        with await in_thread(hold, self._store, sha256) as found:
            if not await self._is_whole(tree):
                logger.warning("damaged_tree_removed", sha256=sha256)
                await in_thread(remove_tree, self._store, sha256)
                return None
            return self._model(found, tree, main)

    async def build(self, tree: Tree, main: str | None) -> CachedModel:
        """Return a tree of files that are in the cache."""
        with await in_thread(hold, self._store, tree.sha256) as found:
            folder = await in_thread(build_tree, self._store, tree)
            for file in tree.files:
                path = folder / file.name
                await in_thread(self._around.digests.remember, path, file.sha256)
            return self._model(found, tree, main)

    async def _is_whole(self, tree: Tree) -> bool:
        folder = tree_folder(self._store, tree.sha256)
        try:
            for file in tree.files:
                actual, _ = await self._around.digests.of(folder / file.name, self._told)
                if actual != file.sha256:
                    return False
        except FileNotFoundError:
            return False
        return True

    def _model(self, found: Hold, tree: Tree, main: str | None) -> CachedModel:
        folder = tree_folder(self._store, tree.sha256)
        return found.model(folder / main if main else folder, tree.sha256, tree.size)
