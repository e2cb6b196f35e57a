import pytest

from ullage_api.desired import desired_document
from ullage_api.kinds.model_deployment import ModelDeployment
from ullage_api.profile import PoolProfile
from ullage_api.wire.pool_desired import PoolDesired

PROFILE = PoolProfile(image="ullage-runtime:dev")


def model(name: str, **spec: object) -> ModelDeployment:
    return ModelDeployment.model_validate(
        {
            "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 3},
            "spec": {
                "pool": "default",
                "task": "Chat",
                "model": {"uri": f"file:{name}.gguf"},
                **spec,
            },
        }
    )


def document(*models: ModelDeployment, **placement: tuple[int, ...]) -> PoolDesired:
    return desired_document(models, PROFILE, namespace="team", pool="default", placement=placement)


def test_the_order_of_the_resources_does_not_matter() -> None:
    a, b = model("a"), model("b")
    assert document(a, b, a=(0,), b=(0,)) == document(b, a, a=(0,), b=(0,))


def test_a_model_is_held_by_the_pods_it_is_placed_on() -> None:
    desired = document(model("a", replicas=2), a=(2, 0))
    assert desired.models[0].ordinals == (0, 2)
    assert [p.url for p in desired.peers] == [
        f"http://ullage-default-{n}.ullage-default-pods.team.svc:8080" for n in range(3)
    ]


def test_a_suspended_model_is_held_by_nobody() -> None:
    (suspended,) = document(model("a", suspend=True), a=(0,)).models
    assert (suspended.suspended, suspended.ordinals) == (True, ())


def test_a_model_without_replicas_is_held_by_nobody() -> None:
    (asleep,) = document(model("a", replicas=0), a=(0,)).models
    assert (asleep.suspended, asleep.ordinals) == (True, ())


def test_the_hash_speaks_of_the_content_and_not_of_the_sequence() -> None:
    desired = document(model("a"), a=(0,))
    assert desired.sealed(1).hash == desired.sealed(2).hash
    assert desired.sealed(1).hash != document(model("a"), a=(1,)).sealed(1).hash


def test_a_document_survives_the_wire_and_fields_of_a_later_version() -> None:
    desired = document(model("a", aliases=["light"]), a=(0,)).sealed(7)
    wire = desired.to_wire() | {"fieldOfTheFuture": {"x": 1}}
    assert PoolDesired.model_validate(wire) == desired


@pytest.mark.parametrize("task", ["Chat", "Completion", "Embedding", "Rerank"])
def test_a_task_is_part_of_the_revision_where_it_is_loaded_in_another_way(task: str) -> None:
    (wanted,) = document(model("a", task=task), a=(0,)).models
    (chat,) = document(model("a"), a=(0,)).models
    assert (wanted.target == chat.target) == (task in {"Chat", "Completion"})
    assert (wanted.target.settings == {}) == (task in {"Chat", "Completion"})


def test_an_address_of_a_claim_is_the_file_where_the_pods_mount_it() -> None:
    profile = PoolProfile.model_validate(
        {
            "image": "ullage-runtime:dev",
            "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}],
            "volumeMounts": [{"name": "m", "mountPath": "/models/"}],
        }
    )
    given = [
        model("a", model={"uri": "pvc://models/bge/model.onnx"}),
        model("b", model={"uri": "pvc://others/b.gguf"}),
    ]
    desired = desired_document(given, profile, namespace="t", pool="default", placement={})
    assert [each.target.uri for each in desired.models] == [
        "file:///models/bge/model.onnx",
        "pvc://others/b.gguf",
    ]
