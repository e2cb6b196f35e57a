from ullage_operator.reconcile.tokens import pool_token


def test_a_token_is_the_same_for_the_same_pool_and_key() -> None:
    assert pool_token(b"k", "team-a", "default") == pool_token(b"k", "team-a", "default")


def test_pools_namespaces_and_keys_have_tokens_of_their_own() -> None:
    tokens = [
        pool_token(b"k", "team-a", "default"),
        pool_token(b"k", "team-a", "gpu"),
        pool_token(b"k", "team-b", "default"),
        pool_token(b"other", "team-a", "default"),
    ]
    assert len({t.value for t in tokens}) == len({t.secret_name for t in tokens}) == len(tokens)


def test_parts_of_a_name_cannot_be_shifted_between_namespace_and_pool() -> None:
    assert pool_token(b"k", "a", "bc") != pool_token(b"k", "ab", "c")


def test_the_secrets_name_does_not_tell_the_token() -> None:
    token = pool_token(b"k", "team-a", "default")
    assert token.value[:8] not in token.secret_name
    assert token.secret_name.startswith("ullage-default-token-")
