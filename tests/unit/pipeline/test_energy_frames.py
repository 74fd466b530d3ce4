"""A Jungfrau's run: raw frames on disk, energies in the reconstruction, both in the provenance."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import (
    DataFileError,
    InputError,
    JungfrauSettings,
    ProcessingSettings,
    array_checksum,
    file_checksum,
)
from apsber_bluesky.pipeline import JungfrauEnergy, TomographyPipeline
from apsber_bluesky.processing import (
    JungfrauConverter,
    JungfrauMap,
    Normaliser,
    average_reference,
    write_jungfrau_map,
)
from apsber_bluesky.simulation import jungfrau_raw
from apsber_bluesky.streaming import RingOrFileSource

ROWS, COLUMNS = 10, 40
TAKEN = "2026-05-04T12:00:00+00:00"


def maps(seed=1, rows=ROWS):
    rng = np.random.default_rng(seed)
    shape = (3, rows, COLUMNS)
    pedestal = rng.normal([[[3000]], [[14000]], [[14500]]], 50, shape).astype(np.float32)
    gain = rng.normal([[[400]], [[-10]], [[-1]]], 0.1, shape).astype(np.float32)
    return pedestal, gain


@pytest.fixture(scope="module")
def all_frames(all_frames):
    """Frames as a Jungfrau stores them whose pixels see the simulated counts as 0.001 keV each."""
    raw = {stream: jungfrau_raw(data / 1e3, *maps()) for stream, data in all_frames.items()}
    assert set(np.unique(raw["primary"] >> 14)) == {0, 1}
    raw["primary"][5, 3, 7] = 2 << 14
    return raw


@pytest.fixture
def calibration(tmp_path):
    """Files with a calibration, and where they are."""

    def write(pedestal, gain):
        settings = JungfrauSettings(
            pedestal_file=tmp_path / "pedestal.h5", gain_file=tmp_path / "gain.h5"
        )
        write_jungfrau_map(settings.pedestal_file, JungfrauMap("pedestal", pedestal, TAKEN))
        write_jungfrau_map(settings.gain_file, JungfrauMap("gain", gain, TAKEN))
        return settings

    return write


class Keep:
    """A stage that keeps what was found."""

    name = "keep"
    essential = True

    def run(self, context):
        self.findings = context.findings


def run_through(tmp_path, log, run, energy):
    keep = Keep()
    settings = ProcessingSettings(engine="finufft", chunk_projections=7)
    pipeline = TomographyPipeline(tmp_path, RingOrFileSource(), settings, [keep], log, energy)
    run.send_through(pipeline)
    pipeline.close()
    return keep.findings if hasattr(keep, "findings") else None


def line_integrals(frames, pedestal, gain):
    """What the run should have found, all frames at once."""
    converter = JungfrauConverter(pedestal, gain)
    dark = average_reference(converter(frames["darks"]), what="darks")
    flat = average_reference(converter(frames["flats"]), what="flats")
    return Normaliser(dark, flat)(converter(frames["primary"]))


def test_projections_are_those_of_the_energies_bit_for_bit(
    tmp_path, log, make_run, all_frames, calibration
):
    pedestal, gain = maps()
    run = make_run()
    found = run_through(tmp_path, log, run, JungfrauEnergy(calibration(pedestal, gain)))
    np.testing.assert_array_equal(found.sinograms, line_integrals(all_frames, pedestal, gain))
    assert log.summary(run.uid)["state"] == "complete"


def test_the_provenance_names_the_calibration_and_what_it_did_not_fit(
    tmp_path, log, make_run, all_frames, calibration
):
    pedestal, gain = maps()
    gain[0, 2, 2] = np.nan
    settings = calibration(pedestal, gain)
    found = run_through(tmp_path, log, make_run(), JungfrauEnergy(settings))
    assert [record.name for record in found.processes] == ["jungfrau_energy", "normalise"]
    record = found.processes[0]
    assert record.inputs == {
        "pedestal": file_checksum(settings.pedestal_file),
        "gain": file_checksum(settings.gain_file),
    }
    assert record.parameters == {
        "pedestal_file": str(settings.pedestal_file),
        "pedestal_taken": TAKEN,
        "gain_file": str(settings.gain_file),
        "gain_taken": TAKEN,
        "unit": "keV",
        "num_frames": sum(len(data) for data in all_frames.values()),
        "dead_pixels": 1,
        "invalid_pixels": 1,
        "uncalibrated_pixels": 0,
    }
    # Of what lies in the file, not of what it was converted to.
    assert found.projections_checksum == array_checksum(all_frames["primary"])
    assert np.isfinite(found.sinograms).all()


def test_a_pedestal_that_was_taken_anew_is_that_of_the_next_run(
    tmp_path, log, make_run, all_frames, calibration
):
    pedestal, gain = maps()
    energy = JungfrauEnergy(calibration(pedestal, gain))
    run_through(tmp_path, log, make_run("run-1"), energy)
    later = maps(seed=2)[0]
    calibration(later, gain)
    found = run_through(tmp_path, log, make_run("run-2"), energy)
    np.testing.assert_array_equal(found.sinograms, line_integrals(all_frames, later, gain))
    assert found.processes[0].parameters["invalid_pixels"] == 1


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda settings: settings.pedestal_file.unlink(), "pedestal.h5"),
        (lambda settings: settings.gain_file.write_bytes(b"no maps"), "gain.h5"),
    ],
    ids=["gone", "broken"],
)
def test_a_calibration_that_was_lost_fails_the_run_and_says_which_file(
    tmp_path, log, make_run, calibration, break_it, words
):
    settings = calibration(*maps())
    energy = JungfrauEnergy(settings)
    break_it(settings)
    run = make_run()
    run_through(tmp_path, log, run, energy)
    assert log.summary(run.uid)["state"] == "failed"
    assert words in log.summary(run.uid)["reason"]
    assert run.folder.raw.is_file()


def test_a_calibration_of_another_detector_fails_the_run(tmp_path, log, make_run, calibration):
    run = make_run()
    run_through(tmp_path, log, run, JungfrauEnergy(calibration(*maps(rows=ROWS + 2))))
    assert log.summary(run.uid)["state"] == "failed"
    assert "pedestal is float32 (3, 12, 40)" in log.summary(run.uid)["reason"]


def test_a_calibration_that_is_not_there_is_refused_at_the_start(tmp_path):
    settings = JungfrauSettings(pedestal_file=tmp_path / "a.h5", gain_file=tmp_path / "b.h5")
    with pytest.raises(DataFileError, match=r"a\.h5"):
        JungfrauEnergy(settings)


def test_maps_of_two_detectors_are_refused(calibration):
    with pytest.raises(InputError, match="of one detector"):
        JungfrauEnergy(calibration(maps()[0], maps(rows=8)[1]))
