import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage_api import names


@pytest.mark.parametrize("name", ["a", "chat", "chat-2", "a" * 40])
def test_a_dns_label_of_at_most_forty_characters_is_a_name(name: str) -> None:
    assert names.is_valid_name(name)


@pytest.mark.parametrize("name", ["", "2chat", "Chat", "chat-", "a_b", "a" * 41, "chat\n"])
def test_anything_else_is_no_name(name: str) -> None:
    assert not names.is_valid_name(name)


@given(st.dictionaries(st.text(max_size=5), st.integers(), max_size=6))
def test_a_hash_does_not_depend_on_the_order_of_keys(value: dict[str, int]) -> None:
    reverse = dict(reversed(list(value.items())))
    assert names.short_hash(value) == names.short_hash(reverse)


def test_a_revision_changes_with_the_digest_and_with_the_engine_settings() -> None:
    one = names.revision_name("a" * 64, {"contextLength": 512})
    assert one != names.revision_name("b" * 64, {"contextLength": 512})
    assert one != names.revision_name("a" * 64, {"contextLength": 1024})
    assert one == names.revision_name("a" * 64, {"contextLength": 512})
    adapter = {"name": "tone", "sha256": "c" * 64, "scale": 1.0}
    dressed = names.revision_name("a" * 64, {"contextLength": 512}, [adapter])
    assert dressed != one
    for change in ({"name": "style"}, {"sha256": "d" * 64}, {"scale": 0.5}):
        other = names.revision_name("a" * 64, {"contextLength": 512}, [adapter | change])
        assert other not in {one, dressed}


def test_every_derived_name_of_the_longest_resource_fits_a_dns_label() -> None:
    longest = "a" * names.MAX_NAME_LENGTH
    for derived in (
        names.pool_object_name(longest),
        names.pod_name(longest, 63),
        names.headless_service_name(longest),
        names.model_service_name(longest),
    ):
        assert len(derived) <= 63
