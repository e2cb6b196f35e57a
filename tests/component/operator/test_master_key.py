"""The master key is made once, kept, and never guessed around."""

import base64

import pytest

from tests.support.fake_kube import FakeKube
from ullage_operator.adapters.master_key import master_key
from ullage_operator.controller.errors import NameTakenError, RefusedError
from ullage_operator.reconcile.plan import Manifest

HERE = ("system", "ullage-operator-key")


async def test_a_key_is_made_at_first_start_and_found_at_the_next() -> None:
    kube = FakeKube()
    first = await master_key(kube, *HERE)
    assert len(first) == 32
    assert await master_key(kube, *HERE) == first
    assert kube.writes == [("create", "Secret ullage-operator-key")]


async def test_of_two_that_start_at_once_both_use_the_key_that_came_first() -> None:
    kube = FakeKube()
    theirs = base64.b64encode(b"t" * 32).decode()

    def somebody_was_faster(verb: str, manifest: Manifest) -> None:
        kube.put(
            {
                "kind": "Secret",
                "metadata": {"name": HERE[1], "namespace": HERE[0]},
                "data": {"key": theirs},
            }
        )
        raise NameTakenError("AlreadyExists")

    kube.before = somebody_was_faster
    assert await master_key(kube, *HERE) == b"t" * 32


@pytest.mark.parametrize("data", [{}, {"key": "c2hvcnQ="}])
async def test_a_secret_without_a_good_key_is_refused(data: dict[str, str]) -> None:
    kube = FakeKube()
    kube.put({"kind": "Secret", "metadata": {"name": HERE[1], "namespace": HERE[0]}, "data": data})
    with pytest.raises(RefusedError, match="at least 32 bytes"):
        await master_key(kube, *HERE)
