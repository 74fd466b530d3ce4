"""Hits are flagged while frames come: what is kept, what is told, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from apsber_bluesky.core import (
    HITS_NAME,
    FrameRange,
    HitSettings,
    InferenceSettings,
    JungfrauSettings,
    RunDescription,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    array_checksum,
)
from apsber_bluesky.pipeline import FrameInference, FrameRunPipeline, HitFinding, SeriesEnergies
from apsber_bluesky.processing import JungfrauMap, write_jungfrau_map
from apsber_bluesky.simulation import jungfrau_raw
from apsber_bluesky.simulation.training import FrameConditions, simulate_bragg_frame
from apsber_bluesky.streaming import RingOrFileSource

SHAPE = (192, 256)
CRYSTAL = [True, False, True, False, False, True, False]
HITS = [int(crystal) for crystal in CRYSTAL]


class Notes:
    def __init__(self) -> None:
        self.messages: list[tuple[str, dict]] = []

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        pass

    def message(self, run_uid: str, event: str, details: dict) -> None:
        self.messages.append((event, details))

    def of(self, kind: str) -> list[dict]:
        return [details for event, details in self.messages if event == kind]


@pytest.fixture(scope="module")
def frames():
    """A frame of each: with a crystal, without."""
    return np.stack(
        [
            simulate_bragg_frame(
                900_000 + n, SHAPE, FrameConditions(800.0 if crystal else 0.0, 1.0)
            ).counts
            for n, crystal in enumerate(CRYSTAL)
        ]
    )


class Bench:
    """A pipeline, and the runs that go through it: the file of an EIGER, announced in parts."""

    def __init__(self, root: Path, technique: str, stages: list) -> None:
        self.root, self.technique, self.notes = root, technique, Notes()
        self.pipeline = FrameRunPipeline(
            root, RingOrFileSource(None), {technique: stages}, self.notes
        )

    def take(self, images, *, uid="a", conditions=None, books=None, status="success") -> RunFolder:
        run = RunDescription(
            uid=uid, technique=self.technique, detectors=("eiger",), conditions=conditions or {}
        )
        folder = RunFolder.of(self.root, run.proposal, uid).create()
        with h5py.File(folder.raw, "w") as file:
            file.create_dataset("entry/primary/data", data=images, chunks=(1, *images.shape[1:]),
                                **hdf5plugin.Bitshuffle(cname="lz4"))  # fmt: skip
        with RunLedger(folder.ledger, create=True) as ledger:
            number = len(images)
            ledger.set_books("primary", books or SeriesBooks(number, number, number))
        self.pipeline.begin_run(run)
        for start, stop in ((0, 2), (2, 3), (3, len(images))):
            uri = folder.raw.as_uri()
            self.pipeline.frames(
                FrameRange(uid, "primary", start, stop, uri, "/entry/primary/data", "eiger")
            )
        self.pipeline.end_run(uid, status, "")
        return folder


def records_of(folder: RunFolder) -> list[dict]:
    with RunLedger(folder.ledger) as ledger:
        return [r for stage in ledger.stages for r in (stage.record or {}).get("processes", [])]


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(*stages, technique="scattering"):
        made.append(Bench(tmp_path, technique, list(stages)))
        return made[-1]

    yield make
    for each in made:
        each.pipeline.close()


def test_each_frame_has_its_flag_its_peaks_and_the_blanks_are_listed(bench, frames):
    one = bench(HitFinding(HitSettings()))
    folder = one.take(frames)
    with h5py.File(folder.path / HITS_NAME) as file:
        hits, peaks = file["entry/hits"], file["entry/result_1"]
        assert hits.attrs["signal"] == "num_peaks"
        assert hits["frame"][:].tolist() == list(range(len(CRYSTAL)))
        assert hits["flag"][:].tolist() == HITS
        assert file["entry/veto"][:].tolist() == [1, 3, 4, 6]
        number = int(peaks["nPeaks"][0])
        assert number == hits["num_peaks"][0] >= 10
        assert (peaks["peakXPosRaw"][0, :number] >= 0).all()
        assert (peaks["peakYPosRaw"][0, :number] < SHAPE[0]).all()
        assert (peaks["peakTotalIntensity"][0, number:] == -1).all()
    # A veto is a list: no frame was touched.
    with h5py.File(folder.raw) as file:
        assert array_checksum(file["entry/primary/data"][:]) == array_checksum(frames)
    (record,) = records_of(folder)
    assert (record["parameters"]["hits"], record["parameters"]["num_frames"]) == (3, 7)


def test_the_number_of_hits_is_told_while_frames_come(bench, frames):
    one = bench(HitFinding(HitSettings()))
    one.take(frames)
    told = [(m["name"], m["value"], m["projections"]) for m in one.notes.of("feedback")]
    assert told == [
        ("hits", 1, 2), ("hit_rate", 0.5, 2),
        ("hits", 2, 3), ("hit_rate", 2 / 3, 3),
        ("hits", 3, 7), ("hit_rate", 3 / 7, 7),
    ]  # fmt: skip


def test_a_missing_frame_is_neither_a_hit_nor_a_blank(bench, frames):
    images = frames.copy()
    images[3] = 0
    one = bench(HitFinding(HitSettings()))
    folder = one.take(images, books=SeriesBooks(7, 6, 6, missing=[3]))
    with h5py.File(folder.path / HITS_NAME) as file:
        assert file["entry/hits/flag"][:].tolist() == [1, 0, 1, -1, 0, 1, 0]
        assert file["entry/veto"][:].tolist() == [1, 4, 6]


def test_what_is_wrong_is_a_warning_and_the_run_is_complete(bench, frames, tmp_path):
    one = bench(HitFinding(HitSettings(mask=tmp_path / "none.h5")))
    folder = one.take(frames)
    (warning,) = one.notes.of("warning")
    assert warning["stage"] == "hits"
    assert "cannot read a mask" in warning["message"]
    (finished,) = one.notes.of("finished")
    assert finished["state"] == RunState.COMPLETE
    assert not list(folder.path.glob("hits*"))


def test_an_aborted_run_leaves_no_half_file_and_the_next_begins_anew(bench, frames):
    one = bench(HitFinding(HitSettings()))
    folder = one.take(frames, status="abort")
    assert not list(folder.path.glob("hits*"))
    folder = one.take(frames, uid="b")
    with h5py.File(folder.path / HITS_NAME) as file:
        assert file["entry/hits/flag"][:].tolist() == HITS


def test_the_beam_centre_is_that_of_the_run(bench, frames):
    one = bench(HitFinding(HitSettings()))
    folder = one.take(frames, conditions={"beam_centre_px": [95.0, 127.0]})
    (record,) = records_of(folder)
    assert record["parameters"]["beam_centre_px"] == [95.0, 127.0]


# -- Jungfrau

PHOTON_KEV = 12.4


@pytest.fixture
def jungfrau(tmp_path):
    pedestal = np.broadcast_to([[[3000.0]], [[14000.0]], [[14500.0]]], (3, *SHAPE))
    gain = np.broadcast_to([[[41.0]], [[-1.4]], [[-0.1]]], (3, *SHAPE))
    for kind, values in (("pedestal", pedestal), ("gain", gain)):
        found = JungfrauMap(kind, values.astype(np.float32), "2026-01-01T00:00:00+00:00")
        write_jungfrau_map(tmp_path / f"{kind}.h5", found)
    conditions = {
        "kind": "jungfrau_series", "name": "jungfrau", "num_frames": len(CRYSTAL), "cells": [15],
        "rows": SHAPE[0], "columns": SHAPE[1], "pedestal_run": "p",
        "pedestal_files": {"15": "pedestal.h5"}, "photon_energy_keV": PHOTON_KEV,
    }  # fmt: skip
    return tmp_path / "gain.h5", pedestal, gain, conditions


def energies_of(frames):
    photons = np.where(frames < np.iinfo(np.uint32).max, frames, 0)
    return np.minimum(PHOTON_KEV * photons, 9000.0)


def test_hits_of_a_jungfrau_are_found_in_its_energies(bench, frames, jungfrau):
    gain_file, pedestal, gain, conditions = jungfrau
    hits = HitFinding(HitSettings())
    energies = SeriesEnergies(JungfrauSettings(gain_file=gain_file), [hits.energies])
    one = bench(energies, hits, technique="crystallography")
    folder = one.take(jungfrau_raw(energies_of(frames), pedestal, gain), conditions=conditions)
    assert one.notes.of("warning") == []
    with h5py.File(folder.path / HITS_NAME) as file:
        assert file["entry/hits/flag"][:].tolist() == HITS


def test_raw_frames_of_a_jungfrau_without_gains_are_not_taken_for_photons(bench, frames, jungfrau):
    _, pedestal, gain, conditions = jungfrau
    hits = HitFinding(HitSettings())
    one = bench(SeriesEnergies(None, [hits.energies]), hits, technique="crystallography")
    folder = one.take(jungfrau_raw(energies_of(frames), pedestal, gain), conditions=conditions)
    (warning,) = one.notes.of("warning")
    assert "did not become energies; set processing.jungfrau.gain_file" in warning["message"]
    assert not list(folder.path.glob("hits*"))


def test_without_a_photon_energy_energies_are_no_photons(bench, frames, jungfrau):
    gain_file, pedestal, gain, conditions = jungfrau
    hits = HitFinding(HitSettings())
    energies = SeriesEnergies(JungfrauSettings(gain_file=gain_file), [hits.energies])
    one = bench(energies, hits, technique="crystallography")
    raw = jungfrau_raw(energies_of(frames), pedestal, gain)
    one.take(raw, conditions={**conditions, "photon_energy_keV": None})
    (warning,) = one.notes.of("warning")
    assert "give photon_energy_keV to the detector" in warning["message"]


# -- models of the registry


def test_the_shipped_model_looks_at_frames(bench, frames, one_thread):
    model = FrameInference(InferenceSettings(model="bragg-hits", on="frames"))
    one = bench(model)
    folder = one.take(frames)
    assert one.notes.of("warning") == []
    with h5py.File(folder.path / "inference_bragg-hits.h5") as file:
        data = file["entry/data"]
        assert list(data.attrs["classes"]) == ["blank", "hit"]
        assert data["probability"].shape == (7, 2)
        np.testing.assert_allclose(data["probability"][:].sum(axis=1), 1, rtol=1e-5)
        agreed = data["label"][:] == np.array(HITS)
    assert agreed.sum() >= 6
    (record,) = records_of(folder)
    assert record["inputs"]["model"].startswith("sha256:")


@pytest.mark.parametrize(("model", "why"), [("no-such-model", "no-such-model")])
def test_a_model_that_cannot_be_run_is_a_warning(bench, frames, model, why):
    one = bench(FrameInference(InferenceSettings(model=model, on="frames")))
    one.take(frames)
    (warning,) = one.notes.of("warning")
    assert why in warning["message"]
    (finished,) = one.notes.of("finished")
    assert finished["state"] == RunState.COMPLETE
