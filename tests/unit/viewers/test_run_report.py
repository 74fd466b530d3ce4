"""The report of a run: what it shows, and what it says is missing."""

from __future__ import annotations

import io

import h5py
import matplotlib.image
import numpy as np
import pytest

from apsber_bluesky.analysis import (
    CurvesPanel,
    ImagePanel,
    MissingPanel,
    RunReport,
    draw_report,
    render_report,
)
from apsber_bluesky.core import (
    ELEMENT_MAPS_NAME,
    RunLedger,
    RunState,
    SeriesBooks,
    StorageError,
)
from apsber_bluesky.storage import FrameReader
from apsber_bluesky.viewers import FolderSource, half_blocks, report_of


def picture(report: RunReport) -> np.ndarray:
    """Pixels of a report, rows x columns x RGB from 0 to 1."""
    return matplotlib.image.imread(io.BytesIO(render_report(report)))[..., :3]


def titles(report: RunReport) -> list[str]:
    return [panel.title for row in report.panels for panel in row]


def panel(report: RunReport, beginning: str) -> object:
    (found,) = [p for row in report.panels for p in row if p.title.startswith(beginning)]
    return found


def reasons(report: RunReport) -> list[str]:
    return [p.reason for row in report.panels for p in row if isinstance(p, MissingPanel)]


@pytest.fixture
def whole(make_run, example):
    images = ("volume", "denoised", "labels")
    return report_of(FolderSource(make_run(images=images, frames=example.frames)))


def test_the_three_slices_are_those_of_the_middle(whole, example):
    # 136 columns have a coarser level, which is too coarse for a picture.
    for axis, plane, place in (("z", "xy", 10), ("y", "xz", 68), ("x", "yz", 68)):
        shown = panel(whole, f"volume {plane}, {axis} = {place}")
        middle = np.take(example.volume, place, axis="zyx".index(axis))
        # Stored as attenuation in 1/m: a voxel is 2 um.
        np.testing.assert_allclose(shown.values, middle * 5e5, rtol=1e-6)
        assert shown.pixel_size_um == 2.0


def test_labels_lie_over_the_denoised_slices(whole, example):
    shown = panel(whole, "denoised xy, z = 10 with labels")
    np.testing.assert_array_equal(shown.overlay.labels, example.labels[10])
    assert shown.overlay.shown() == [1, 2]
    assert [shown.overlay.names[number] for number in (1, 2)] == ["pore", "root"]
    assert len({shown.overlay.colour(number) for number in (1, 2)}) == 2
    plain = ImagePanel(shown.title, shown.values, shown.limits, shown.pixel_size_um)
    with_labels, without = (picture(RunReport("", panels=[[p]])) for p in (shown, plain))
    # Grey has no colour; what is laid over it has.
    assert np.ptp(without, axis=2).max() < 0.01
    assert np.count_nonzero(np.ptp(with_labels, axis=2) > 0.2) > 1000


def test_the_sinogram_is_that_of_the_middle_row(whole, example):
    counts = example.frames["primary"][:, 3].astype(float)
    shown = panel(whole, "sinogram of row 3, 40 projections")
    np.testing.assert_allclose(shown.values, -np.log((counts - 100) / 900), atol=1e-6)
    assert shown.y_limits == (0, 40)
    assert panel(whole, "last projection").unit == "transmission"


def test_facts_and_quality_numbers_are_told(whole):
    facts = dict(whole.facts)
    assert facts["uid"] == "aaaa-1"
    assert facts["engine"].startswith("gridding")
    assert facts["volume"] == "20 x 136 x 136, 2 µm"
    assert [(m["name"], m["verdict"]) for m in whole.metrics] == [
        ("signal_to_noise", "pass"),
        ("drift", "warn"),
        ("resolution", "fail"),
    ]
    assert whole.warning == ""


def test_equal_reports_are_equal_files_and_verdicts_change_them(whole, tmp_path):
    draw_report(whole, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == render_report(whole)
    better = [{**metric, "verdict": "pass"} for metric in whole.metrics]
    mixed, ok = (picture(RunReport("", metrics=found)) for found in (whole.metrics, better))
    # Verdicts can be told apart without colour: what is wrong is darker.
    dark = [np.count_nonzero(pixels.mean(axis=2) < 0.5) for pixels in (mixed, ok)]
    assert dark[0] > dark[1] + 1500


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/a\.png"):
        draw_report(RunReport("t", facts=[("sample", "root")]), tmp_path / "file" / "a.png")


def test_few_slices_are_drawn_taller_than_they_are():
    thin = ImagePanel("xz", np.ones((2, 100)), (0, 1))
    pixels = picture(RunReport("", panels=[[thin]]))
    bright = np.argwhere(pixels.min(axis=2) < 0.999)
    assert np.ptp(bright[:, 0]) > 0.3 * np.ptp(bright[:, 1])


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (RunState.ACQUIRING, ["acquiring"]),
        (RunState.FAILED, ["failed: no flats"]),
        (RunState.INCOMPLETE, ["incomplete: no flats"]),
    ],
)
def test_a_run_without_a_volume_says_why_and_shows_its_frames(make_run, example, state, words):
    reason = "" if state == RunState.ACQUIRING else "no flats"
    folder = make_run(state=state, reason=reason, images=(), frames=example.frames, judged=False)
    report = report_of(FolderSource(folder))
    for word in words:
        assert word in report.warning
    assert reasons(report)[0].startswith("no volume")
    assert isinstance(panel(report, "sinogram"), ImagePanel)
    assert picture(report).shape[1] > 1000


def test_missing_frames_and_damaged_files_are_told_in_the_picture(make_run, example):
    folder = make_run(frames=example.frames)
    with RunLedger(folder.ledger) as ledger:
        ledger.set_books("primary", SeriesBooks(expected=41, received=40, written=40, missing=[7]))
    folder.raw.write_bytes(b"this was HDF5 once")
    (folder.volume / "zarr.json").write_text("{")
    report = report_of(FolderSource(folder))
    assert report.warning == "1 of 41 frames are missing"
    assert any("raw.h5" in reason for reason in reasons(report))
    assert any("volume.zarr" in reason for reason in reasons(report))
    render_report(report)


def test_a_volume_of_nothing_but_nan_has_no_slices(make_run):
    folder = make_run()
    for level in (folder.volume / "0" / "c").rglob("*"):
        if level.is_file():
            level.write_bytes(np.full(level.stat().st_size // 4, np.nan, "<f4").tobytes())
    assert "no finite value" in " ".join(reasons(report_of(FolderSource(folder))))


def test_text_from_outside_is_only_text(make_run):
    folder = make_run(sample="$x^2$ \x1b[31m <b>\n" + "long " * 100)
    report = report_of(FolderSource(folder))
    render_report(report)


def test_frames_of_other_techniques_are_shown_as_mean_and_maximum(make_run):
    frames = np.random.default_rng(2).poisson(3.0, (30, 20, 24)).astype(np.uint16)
    frames[11, 5, 7] = 900
    frames[:, 0, 0] = 65535
    folder = make_run(technique="scattering", images=(), frames={"primary": frames})
    report = report_of(FolderSource(folder))
    mean, peak = panel(report, "mean of 30 of 30"), panel(report, "maximum of 30 of 30")
    good = frames.astype(float)
    good[:, 0, 0] = np.nan
    np.testing.assert_allclose(mean.values, good.mean(axis=0))
    assert peak.values[5, 7] == 900
    ((_, numbers, sums, _),) = panel(report, "sum of each frame").curves
    np.testing.assert_array_equal(numbers, np.arange(30))
    np.testing.assert_allclose(sums, np.nansum(good, axis=(1, 2)))
    render_report(report)


def test_of_a_long_series_some_frames_are_looked_at(make_run):
    frames = np.ones((200, 4, 4), np.uint8)
    folder = make_run(technique="detector", images=(), frames={"primary": frames})
    assert "mean of 50 of 200 frames" in titles(report_of(FolderSource(folder)))


def test_energies_of_a_jungfrau_are_shown_before_its_raw_frames(make_run):
    raw = np.full((4, 5, 6), 3, np.uint16)
    folder = make_run(technique="crystallography", images=(), frames={"primary": raw})
    with h5py.File(folder.path / "energies_jf.h5", "w") as file:
        file["entry/data/energy"] = np.full((2, 5, 6), 12.4, np.float32)
    shown = panel(report_of(FolderSource(folder)), "mean of 2 of 2")
    np.testing.assert_allclose(shown.values, 12.4)


def test_the_strongest_elements_are_shown_with_the_spectrum(make_run):
    folder = make_run(technique="fluorescence", images=())
    strength = {"Ca": 1.0, "Fe": 9.0, "K": 2.0, "Mn": 3.0, "Zn": 8.0, "Cu": 4.0, "Ni": 5.0}
    with h5py.File(folder.path / ELEMENT_MAPS_NAME, "w") as file:
        maps = file.create_group("entry/maps")
        maps.attrs["elements"] = list(strength)
        for name, value in strength.items():
            maps[f"{name}/data"] = np.arange(12.0).reshape(3, 4) * value
            maps[f"{name}/fast"], maps[f"{name}/slow"] = np.arange(4) * 0.01, np.arange(3) * 0.01
        spectrum = file.create_group("entry/data")
        spectrum["energy"], spectrum["data"] = np.arange(100) * 100.0, np.ones(100)
        spectrum["fit"] = np.ones(100)
    report = report_of(FolderSource(folder))
    assert titles(report) == ["Fe", "Zn", "Ni", "Cu", "Mn", "K", "sum of all spectra"]
    assert panel(report, "Fe").pixel_size_um == pytest.approx(10)
    assert isinstance(panel(report, "sum"), CurvesPanel)
    render_report(report)


def test_a_run_of_another_technique_without_files_says_so(make_run):
    for technique, what in (("fluorescence", "element maps"), ("scattering", "frames")):
        folder = make_run(technique, technique=technique, images=(), state=RunState.ACQUIRING)
        assert reasons(report_of(FolderSource(folder))) == [f"no {what} yet:\nthe run is acquiring"]


def test_frames_are_read_while_they_are_written(tmp_path):
    path = tmp_path / "raw.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("entry/primary/data", (5, 3, 4), "u2", chunks=(1, 3, 4))
        numbers = file.create_dataset("entry/primary/frame_number", data=np.full(5, -1))
        file.swmr_mode = True
        data[2], numbers[2] = 7, 2
        file.flush()
        with FrameReader(path) as frames:
            assert frames.series["primary"].written.tolist() == [2]
            assert (frames.read("primary", np.array([2]), 1) == 7).all()


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_preview_for_terminals_keeps_the_picture(logarithmic):
    values = np.zeros((40, 100))
    values[:20, 50:] = 1000.0
    drawn = half_blocks(ImagePanel("", values, (0.0, 1000.0), logarithmic=logarithmic), 50)
    lines = drawn.plain.split("\n")
    assert [len(line) for line in lines] == [50] * 10
    styles = [str(span.style) for span in drawn.spans]
    white, black = "rgb(255,255,255) on rgb(255,255,255)", "rgb(0,0,0) on rgb(0,0,0)"
    assert (styles.count(white), styles.count(black)) == (125, 375)
