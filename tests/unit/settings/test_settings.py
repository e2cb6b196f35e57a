"""Where a setting's value comes from, and what is said when it cannot be used."""

import pathlib

import pytest

from ullage_runtime.settings import PLAIN_NAMES, SettingsError, load_settings, shown


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    for name in PLAIN_NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_defaults_hold_when_nothing_is_said() -> None:
    loaded = load_settings()
    assert loaded.values.port == 8080
    assert loaded.origins["port"] == "default"


def test_each_source_beats_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "ullage.toml").write_text("port = 1001\n")
    assert load_settings().values.port == 1001
    (tmp_path / ".env").write_text("ULLAGE_PORT=1002\nSOMEBODY_ELSES=1\nPORT=1\n")
    assert load_settings().values.port == 1002
    monkeypatch.setenv("PORT", "1003")
    assert load_settings().values.port == 1003
    monkeypatch.setenv("ULLAGE_PORT", "1004")
    assert load_settings().values.port == 1004
    assert load_settings({"port": 1005}).values.port == 1005
    assert load_settings({"port": None}).values.port == 1004


def test_the_origin_of_each_value_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "ullage.toml").write_text('host = "127.0.0.1"\n')
    (tmp_path / ".env").write_text("MODEL_CACHE_DIR=/models\n")
    monkeypatch.setenv("ULLAGE_PORT", "1004")
    monkeypatch.setenv("MAX_CONCURRENT_REQUESTS", "7")
    loaded = load_settings({"log_level": "debug"})
    assert loaded.origins["host"] == str(tmp_path / "ullage.toml")
    assert loaded.origins["port"] == "environment ULLAGE_PORT"
    assert loaded.origins["log_level"] == "command line"
    assert loaded.origins["max_concurrent_requests"] == "environment MAX_CONCURRENT_REQUESTS"
    assert loaded.origins["model_cache_dir"] == f"{tmp_path / '.env'} MODEL_CACHE_DIR"
    assert loaded.values.max_concurrent_requests == 7


def test_an_unknown_key_of_the_file_is_named_with_the_nearest_known_one(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "ullage.toml").write_text("prot = 1\n")
    with pytest.raises(SettingsError, match=r"unknown setting 'prot'; did you mean 'port'\?"):
        load_settings()


def test_a_bad_value_is_named_with_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULLAGE_PORT", "many")
    with pytest.raises(SettingsError, match=r"port \(environment ULLAGE_PORT\): .* got 'many'"):
        load_settings()


def test_a_file_that_is_not_toml_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ullage.toml").write_text("port: 1\n")
    with pytest.raises(SettingsError, match=r"ullage\.toml: "):
        load_settings()


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULLAGE_CORS_ORIGINS", "https://a.example, https://b.example")
    assert load_settings().values.cors_origins == ("https://a.example", "https://b.example")


def test_a_misspelt_environment_name_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULLAGE_PROT", "1")
    assert "ULLAGE_PROT (did you mean ULLAGE_PORT?)" in load_settings().ignored


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULLAGE_API_KEY", "hunter2")
    loaded = load_settings()
    assert "hunter2" not in shown(loaded.values, "api_key")
    assert "hunter2" not in repr(loaded)


@pytest.mark.parametrize(("name", "ordinal"), [("ullage-default-3", 3), ("laptop", 0)])
def test_the_ordinal_is_what_the_pods_name_ends_in(name: str, ordinal: int) -> None:
    assert load_settings({"pod_name": name}).values.ordinal == ordinal


def test_memory_is_shared_out_in_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_MEMORY_MAX_PERCENT", "0.75")
    monkeypatch.setenv("ULLAGE_CPU_MEMORY_RESERVE_PERCENT", "0")
    loaded = load_settings()
    assert loaded.values.gpu_memory_max_percent == 0.75
    assert loaded.values.cpu_memory_reserve_percent == 0
    assert loaded.values.gpu_memory_reserve_percent is None
    assert loaded.origins["gpu_memory_max_percent"] == "environment GPU_MEMORY_MAX_PERCENT"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GPU_MEMORY_MAX_PERCENT", "90"),
        ("GPU_MEMORY_MAX_PERCENT", "0"),
        ("GPU_MEMORY_RESERVE_PERCENT", "1"),
        ("CPU_MEMORY_MAX_PERCENT", "1.01"),
        ("CPU_MEMORY_RESERVE_PERCENT", "-0.1"),
        ("CPU_MEMORY_MAX_PERCENT", "nan"),
    ],
)
def test_a_share_that_is_none_is_an_error_that_says_what_is_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"environment {name}\): .* such as 0\.9 for 90 %"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "meant"),
    [("true", True), ("1", True), ("on", True), ("false", False), ("0", False), ("No", False)],
)
def test_the_warm_tier_is_turned_off_by_any_word_for_it(
    monkeypatch: pytest.MonkeyPatch, text: str, *, meant: bool
) -> None:
    assert load_settings().values.enable_cpu_offload is True
    monkeypatch.setenv("ENABLE_CPU_OFFLOAD", text)
    loaded = load_settings()
    assert loaded.values.enable_cpu_offload is meant
    assert loaded.origins["enable_cpu_offload"] == "environment ENABLE_CPU_OFFLOAD"
    monkeypatch.setenv("ULLAGE_ENABLE_CPU_OFFLOAD", str(not meant))
    assert load_settings().values.enable_cpu_offload is not meant


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("45", 45), ("0.5", 0.5), ("1e3", 1000)])
def test_the_idle_threshold_is_a_number_of_seconds_or_unset(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    assert load_settings().values.eviction_idle_threshold_seconds is None
    monkeypatch.setenv("EVICTION_IDLE_THRESHOLD_SECONDS", text)
    assert load_settings().values.eviction_idle_threshold_seconds == seconds


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ENABLE_CPU_OFFLOAD", "maybe", "got 'maybe'"),
        ("ENABLE_CPU_OFFLOAD", "2", "got '2'"),
        ("EVICTION_IDLE_THRESHOLD_SECONDS", "-1", "got '-1'"),
        ("EVICTION_IDLE_THRESHOLD_SECONDS", "2m", "got '2m'"),
        ("EVICTION_IDLE_THRESHOLD_SECONDS", "nan", "got 'nan'"),
    ],
)
def test_what_is_no_switch_or_no_time_is_named_with_its_origin(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=rf"environment {name}\): .*{says}"):
        load_settings()
