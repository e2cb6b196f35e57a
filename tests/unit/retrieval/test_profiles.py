"""Profiles, and what only a reindex can change."""

from dataclasses import replace

from ullage_api.kinds.vector_collection import IndexProfile, VectorCollectionSpec
from ullage_runtime.retrieval.profiles import differences, layout_of, profile_settings
from ullage_runtime.retrieval.stores.port import Distance


def spec(**given: object) -> VectorCollectionSpec:
    embedding = {"modelDeployment": "m"}
    return VectorCollectionSpec.model_validate({"pool": "p", "embedding": embedding, **given})


def test_what_is_left_open_is_balanced_cosine_and_words() -> None:
    layout = layout_of(spec(), 384)
    assert layout.hnsw == {"m": 16, "ef_construct": 128}
    assert layout.distance is Distance.COSINE
    assert layout.has_sparse
    assert layout.quantization is not None
    assert "scalar" in layout.quantization


def test_one_bit_a_number_is_for_long_vectors_only() -> None:
    short, long = (profile_settings(IndexProfile.FAST_QUERY, n).quantization for n in (384, 1024))
    assert short is not None
    assert long is not None
    assert "scalar" in short
    assert "binary" in long
    assert profile_settings(IndexProfile.HIGH_ACCURACY, 1024).quantization is None


def test_differences_name_both_values() -> None:
    wanted = layout_of(spec(profile="HighAccuracy", sparse="None"), 384)
    assert differences(wanted, replace(wanted, hnsw={**wanted.hnsw, "payload_m": 16})) == []
    found = replace(layout_of(spec(), 768), distance=Distance.DOT)
    told = differences(wanted, found)
    assert told[:3] == [
        "dimensions is 768, wanted is 384",
        "distance is Dot, wanted is Cosine",
        "sparse vectors is BM25, wanted is None",
    ]
    assert told[3].startswith("hnsw is {'m': 16, 'ef_construct': 128}, wanted is {'m': 32")
    assert told[4].endswith("wanted is None")
