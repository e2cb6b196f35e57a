"""From tokens' bytes to text that may be shown: whole characters only, and nothing of a stop."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of successive tokens into text, and finds stop strings across tokens.

    Held back are the bytes of an incomplete character and the longest end of the text that may
    still become a stop string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    @property
    def held(self) -> str | None:
        """What is held back of whole characters; None while one is incomplete."""
        return None if self._decoder.getstate()[0] else self._held

    def feed(self, piece: bytes) -> str:
        """Return the text that a token's bytes make certain; `stopped` tells of a stop string."""
        return self._advanced(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was held back, now that no token follows."""
        text = self._advanced(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _advanced(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        keep = self._possible_stop_length()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _possible_stop_length(self) -> int:
        """Return the length of the longest end of the held text that begins a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
