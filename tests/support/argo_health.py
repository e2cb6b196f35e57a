"""Argo CD's view of an object of ours: its health script, run by a real Lua as Argo CD does."""

from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime

CHARTS = Path(__file__).resolve().parents[2] / "charts"
FOLDER = CHARTS / "argocd/resource_customizations/ullage.dev"
ALLOWED = {"obj", "ipairs", "pairs", "tostring", "tonumber", "type", "string", "table", "math"}


def health(kind: str, found: dict[str, Any]) -> dict[str, str]:
    """Return what Argo CD shows of an object: on Lua 5.1, with the object as the global `obj`."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    for name in list(lua.globals()):
        if name not in ALLOWED:
            lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(found, recursive=True)
    return dict(lua.execute((FOLDER / kind / "health.lua").read_text()))
