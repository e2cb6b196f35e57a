"""LoRA adapters: checked before llama.cpp reads them, loaded with the model, applied by name."""

import ctypes
from typing import Any, Final

from ullage_api.conditions import Reason
from ullage_runtime.core.domain import Adapter
from ullage_runtime.core.errors import LoadError
from ullage_runtime.engines.llamacpp.bindings import llama_cpp
from ullage_runtime.engines.llamacpp.header import RowBytes, read_header

_KIND: Final = "general.type"
_TYPE: Final = "adapter.type"


def adapter_bytes(adapter: Adapter, architecture: str, row_bytes: RowBytes) -> int:
    """Return the bytes of an adapter's tensors; raises LoadError for what cannot be one."""
    try:
        header = read_header(adapter.path, row_bytes)
    except LoadError as error:
        raise _of(adapter, error.message, reason=error.reason, final=error.final) from error
    for key, wanted in ((_KIND, "adapter"), (_TYPE, "lora")):
        found = header.strings.get(key)
        if found != wanted:
            raise _of(
                adapter,
                f"the file is no LoRA adapter: its {key} is {found!r} instead of {wanted!r}",
            )
    if header.architecture != architecture:
        raise _of(
            adapter,
            f"it was made for architecture {header.architecture!r}, and the model is of "
            f"{architecture!r}",
        )
    return header.tensor_bytes


class LoraAdapter:
    """An adapter of a loaded model; the model frees it."""

    def __init__(self, model: Any, adapter: Adapter) -> None:
        handle = llama_cpp.llama_adapter_lora_init(model, adapter.path.encode())
        if not handle:
            raise _of(adapter, "llama.cpp cannot apply it to this model")
        if llama_cpp.llama_adapter_get_alora_n_invocation_tokens(handle):
            raise _of(
                adapter,
                "it is an activated LoRA, which some tokens of a prompt switch on; only plain ones "
                "are served",
            )
        self._handles: Any = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(handle)
        self._scales: Any = (ctypes.c_float * 1)(adapter.scale)

    def apply_to(self, context: Any) -> None:
        """Make a context compute with it, and with no other."""
        llama_cpp.llama_set_adapters_lora(context, self._handles, 1, self._scales)


def _of(
    adapter: Adapter, message: str, *, reason: Reason = Reason.INVALID_MODEL, final: bool = True
) -> LoadError:
    return LoadError(reason, f"adapter {adapter.name!r}: {message}", final)
