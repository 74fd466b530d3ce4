"""A profile: one YAML file, checked to the last key."""

from __future__ import annotations

from pathlib import Path

import pytest

from apsber_bluesky.core import ConfigurationError, Profile, load_profile, profile_names
from apsber_bluesky.core._configuration import merge

SMALL = """
name: bench
session: {beamline_id: 2-BM, instrument_name: tomography}
"""


@pytest.fixture(autouse=True)
def no_data_root_in_the_environment(monkeypatch):
    monkeypatch.delenv("APSBER_DATA_ROOT", raising=False)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "bench.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_a_small_profile_has_a_default_for_all_the_rest(write):
    profile = load_profile(write(SMALL))
    assert profile.session.beamline_id == "2-BM"
    assert profile.simulation is None
    assert profile.devices == {}
    assert profile.processing.filter == "ramp"


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_comes_with_the_package_loads(name):
    assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("colour: red", ["unknown key 'colour'", "'red'"]),
        ("streaming: {ring_megabyte: 12}", ["unknown key 'streaming.ring_megabyte'", "12"]),
        ("streaming: {ring_megabytes: -5}", ["'streaming.ring_megabytes' is -5"]),
        ("streaming: {series_timeout_s: soon}", ["'streaming.series_timeout_s' is 'soon'"]),
        ("processing: {filter: wavelet}", ["'processing.filter' is 'wavelet'", "hann"]),
        ("analysis: {limits: {resolution: {warn: 1}}}", ["analysis.limits.resolution.fail"]),
        ("session: null", ["'session' is None"]),
        ("session: {beamline_id: X, instrument_name: Y, proposal: ../etc}", ["../etc", "proposal"]),
        ("storage: 5", ["'storage' is 5"]),
        ("1: 2", ["'1'"]),
    ],
)
def test_a_wrong_key_or_value_is_named(write, more, words):
    with pytest.raises(ConfigurationError) as refusal:
        load_profile(write(SMALL + more))
    for word in [*words, "bench.yaml"]:
        assert word in str(refusal.value)


def test_all_wrong_keys_are_named_at_once(write):
    with pytest.raises(ConfigurationError, match=r"colour.*shape"):
        load_profile(write(SMALL + "colour: red\nshape: round\n"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [1", "is not valid YAML"),
        ("- a\n- b\n", "must be a mapping of settings, not list"),
        ("", "must be a mapping of settings, not NoneType"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"name: \xff\xfe", "cannot read profile"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_what_is_no_profile_is_refused_on_one_line(write, text, words):
    with pytest.raises(ConfigurationError, match=words) as refusal:
        load_profile(write(text))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["no-such-beamline", "/no/such/file.yaml", "."])
def test_a_missing_profile_is_named_beside_those_there_are(name):
    with pytest.raises(ConfigurationError, match=r"no profile .*simulated") as refusal:
        load_profile(name)
    assert repr(name) in str(refusal.value)


def test_the_environment_overrides_the_file_and_changes_override_both(write, monkeypatch, tmp_path):
    path = write(SMALL.replace("tomography}", f"tomography, data_root: {tmp_path}/file}}"))
    assert load_profile(path).session.data_root == tmp_path / "file"
    monkeypatch.setenv("APSBER_DATA_ROOT", f"{tmp_path}/environment")
    assert load_profile(path).session.data_root == tmp_path / "environment"
    changes = {"session": {"data_root": str(tmp_path / "changes")}}
    profile = load_profile(path, changes)
    assert profile.session.data_root == tmp_path / "changes"
    assert profile.session.instrument_name == "tomography"
    assert profile.archive_root == tmp_path / "changes-archive"


def test_paths_expand_home_and_variables(write, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    text = SMALL.replace("tomography}", "tomography, data_root: $SCRATCH/data}")
    assert load_profile(write(text)).session.data_root == Path("/scratch/me/data")
    text = SMALL.replace("tomography}", "tomography, data_root: ~/data}")
    assert load_profile(write(text)).session.data_root == Path.home() / "data"


def test_merging_goes_deep_and_alters_neither_side():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    changes = {"a": {"c": {"d": 3, "f": 4}}, "e": [2], "g": None}
    assert merge(base, changes) == {
        "a": {"b": 1, "c": {"d": 3, "f": 4}},
        "e": [2],
        "g": None,
    }
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    assert changes == {"a": {"c": {"d": 3, "f": 4}}, "e": [2], "g": None}


def test_settings_cannot_be_changed_afterwards(write):
    profile: Profile = load_profile(write(SMALL))
    with pytest.raises(ValueError, match="frozen"):
        profile.name = "other"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("streaming: {decode_workers: -1}", ["streaming.decode_workers"]),
        ("streaming: {writer_backlog_megabytes: 0}", ["streaming.writer_backlog_megabytes"]),
        ("streaming: {preview_hz: 11}", ["streaming.preview_hz", "11"]),
        ("streaming: {health_prefix: 'A B'}", ["streaming.health_prefix", "'A B'"]),
        ("streaming: {health_prefix: ''}", ["streaming.health_prefix"]),
        ("streaming: {pva_port: 80}", ["streaming.pva_port", "80"]),
        ("streaming: {limits: {ring_fill: 1.5}}", ["streaming.limits.ring_fill"]),
        ("streaming: {limits: {disk: 1}}", ["unknown key 'streaming.limits.disk'"]),
        ("gateway: {interface: beamline}", ["gateway.interface", "IPv4 address"]),
        ("gateway: {server_port: 99999}", ["gateway.server_port"]),
        ("gateway: {pvs: ['a b']}", ["gateway.pvs.0", "'a b'"]),
        ("gateway: {pvs: ['a|b']}", ["gateway.pvs.0"]),
        ('gateway: {pvs: ["a\\n.* ALLOW"]}', ["gateway.pvs.0"]),
        ("gateway: {writable: {'m1': []}}", ["gateway.writable", "no accounts"]),
        ("gateway: {writable: {'m1': ['a\"b']}}", ["gateway.writable", "login names"]),
        ("gateway: {writable: {'m 1': [ann]}}", ["gateway.writable"]),
        ("gateway: {status_prefix: 'G*'}", ["gateway.status_prefix"]),
    ],
)
def test_what_could_mean_something_to_the_gateways_files_is_refused(write, more, words):
    with pytest.raises(ConfigurationError) as refusal:
        load_profile(write(SMALL + more))
    for word in words:
        assert word in str(refusal.value)


def test_the_preview_is_named_after_the_prefix(write):
    profile = load_profile(write(SMALL + "streaming: {health_prefix: '2bm:'}"))
    assert profile.streaming.preview_pv == "2bm:Preview:Image"
    assert profile.gateway.pvs == []
    assert profile.gateway.writable == {}
