"""Profiles, and what only a reindex can change."""

from dataclasses import replace

from ullage_api.kinds.vector_collection import IndexProfile, VectorCollectionSpec
from ullage_runtime.retrieval.profiles import differences, layout_of, profile_settings, settings_of
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


def test_what_is_overridden_is_laid_over_the_profile_in_qdrants_own_names() -> None:
    wanted = spec(
        overrides={
            "hnsw_config": {"m": 24},
            "quantization_config": {"scalar": {"quantile": "0.95"}},
            "params": {"hnsw_ef": 200, "quantization": {"oversampling": "3.5"}},
        }
    )
    settings = settings_of(wanted, 384)
    assert settings.hnsw == {"m": 24, "ef_construct": 128}
    assert settings.quantization == {
        "scalar": {"type": "int8", "quantile": 0.95, "always_ram": True}
    }
    assert settings.search == {
        "hnsw_ef": 200,
        "quantization": {"rescore": True, "oversampling": 3.5},
    }
    told = differences(layout_of(wanted, 384), layout_of(spec(), 384))
    assert [each.split(" is ")[0] for each in told] == ["hnsw", "quantization"]
    bits = spec(overrides={"quantization_config": {"binary": {"always_ram": False}}})
    assert settings_of(bits, 384).quantization == {"binary": {"always_ram": False}}
    assert settings_of(spec(), 384) == profile_settings(IndexProfile.BALANCED, 384)


def test_vectors_of_tokens_are_laid_out_where_they_are_wanted() -> None:
    plain, wanted = layout_of(spec(), 384, 32), layout_of(spec(multivector="ColBERT"), 384, 32)
    assert (plain.token_width, wanted.token_width) == (0, 32)
    assert differences(wanted, plain) == ["vectors of tokens is None, wanted is ColBERT"]
