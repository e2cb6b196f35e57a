"""Speller: the model's vocabulary, as prompts and log probabilities need it."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from ullage_runtime.engines.tokenizing import HubTokenizer
from ullage_runtime.engines.vllm.files import ModelFiles

_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE: Final = "\u2581"
"""What sentencepiece writes for a space."""


class Speller(HubTokenizer):
    """One model's vocabulary with its chat template; any thread may use it."""

    infill_markers: tuple[int, int, int] | None = None
    """vLLM's models have none that their files name."""

    def __init__(self, files: ModelFiles, context_length: int) -> None:
        """Read it; raises LoadError(InvalidModel)."""
        super().__init__(files.tokenizer)
        self.context_length = context_length
        self.chat_template = files.chat_template
        self.bos = self._special(files.special("bos_token"))
        self.eos = self._special(files.special("eos_token"))
        framed = self.tokenized("a")
        self.adds_bos = self.bos is not None and framed[:1] == [self.bos]
        self.adds_eos = self.eos is not None and framed[-1:] == [self.eos]
        settings = json.loads(self.as_text)
        self._added: Mapping[int, Mapping[str, Any]] = {
            each["id"]: each for each in settings["added_tokens"]
        }
        self._is_bytes = "ByteLevel" in json.dumps(settings["decoder"])

    def is_special(self, token: int) -> bool:
        """Whether a token is left out of texts."""
        return bool(self._added.get(token, {}).get("special"))

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return a token's bytes; special ones have none unless they are asked for."""
        if self.is_special(token) and not special:
            return b""
        text = self._tokenizer.id_to_token(token) or ""
        if token in self._added:
            return text.encode()
        if self._is_bytes:
            return bytes(_BYTES.get(character, 0) for character in text)
        if found := _BYTE.fullmatch(text):
            return bytes.fromhex(found[1])
        return text.replace(_SPACE, " ").encode()

    def _special(self, text: str | None) -> int | None:
        token: int | None = None if text is None else self._tokenizer.token_to_id(text)
        return token


def _byte_alphabet() -> dict[str, int]:
    """Return which byte each character of a byte-level vocabulary stands for (GPT-2's table)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTES: Final = _byte_alphabet()
