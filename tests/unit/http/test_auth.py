"""How keys are written down, and what a file that is none is told."""

import pytest

from ullage_runtime.core.errors import Forbidden
from ullage_runtime.http.auth import Key, digest, entry_line, new_key, parsed_entry

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("text", "models"),
    [
        (f"sha256:{DIGEST}", None),
        (f"sha256:{DIGEST}\n", None),
        (f"sha256:{DIGEST} models=a", {"a"}),
        (f"sha256:{DIGEST}  models=a,b,\n", {"a", "b"}),
    ],
)
def test_an_entry_holds_a_digest_and_perhaps_models(text: str, models: set[str] | None) -> None:
    assert parsed_entry("team", text) == (
        DIGEST,
        Key("team", frozenset(models) if models else None),
    )


@pytest.mark.parametrize(
    "text", ["", "a-plain-key", f"sha256:{DIGEST[1:]}", f"sha256:{DIGEST.upper()}", f"{DIGEST}"]
)
def test_anything_else_is_no_entry(text: str) -> None:
    with pytest.raises(ValueError, match="must be sha256:"):
        parsed_entry("team", text)


def test_what_is_written_is_read() -> None:
    key = new_key()
    assert parsed_entry("t", entry_line(key, ("b", "a")))[0] == digest(key)
    assert new_key() != key


def test_a_restricted_key_is_told_what_it_may_use() -> None:
    with pytest.raises(Forbidden, match="may use: a, b"):
        Key("t", frozenset({"b", "a"})).check("c")
    Key("t").check("anything")
