"""Runs in Jupyter: how they are found, the card, and the slice browser."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from apsber_bluesky.core import InputError, RunState, ServiceError, StorageError
from apsber_bluesky.viewers import RunImage, browse_slices, open_run
from apsber_bluesky.viewers._slice_browser import blend


def pixels(browser) -> np.ndarray:
    """What the browser shows, rows x columns x RGB."""
    png = matplotlib.image.imread(io.BytesIO(browser.picture.value))
    return (png[..., :3] * 255).round().astype(np.uint8)


@pytest.mark.parametrize("how", ["uid", "latest", "folder", "volume", "path"])
def test_a_run_is_found_by_uid_folder_or_file(make_run, tmp_path, how):
    make_run("bbbb-2", images=())
    folder = make_run("aaaa-1")
    names = {
        "uid": "aaaa",
        "latest": "latest",
        "folder": str(folder.path),
        "volume": folder.volume,
        "path": folder.path,
    }
    view = open_run(names[how], data_root=tmp_path / "data")
    # Both began at once, so the last uid is the latest.
    assert view.uid == ("bbbb-2" if how == "latest" else "aaaa-1")
    assert view.about["state"] == "complete"


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        ("cccc", StorageError, "no run 'cccc'"),
        ("/tmp", StorageError, "not in the folder of a run"),
        ("tiled:///raw/x", InputError, "names no server"),
        ("http://127.0.0.1:9/api/v1/metadata/raw/x", ServiceError, "127.0.0.1:9"),
        (7, InputError, "no client of a Tiled catalogue"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, run, error, words):
    with pytest.raises(error, match=re.escape(words)):
        open_run(run, data_root=tmp_path)


class Tags(HTMLParser):
    """Elements and attributes that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.image = b""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            kind, _, encoded = dict(attrs)["src"].partition(",")
            assert kind == "data:image/png;base64"
            self.image = base64.b64decode(encoded)

    def handle_data(self, data):
        self.text += data


def test_the_card_shows_facts_and_numbers_and_needs_nothing_else(make_run, example):
    card = Tags(open_run(make_run(frames=example.frames).path)._repr_html_())
    assert set(card.tags) == {"div", "h3", "img", "table", "tr", "td", "th"}
    for words in ("root, scan 7", "gridding", "signal to noise9.5", "✓ pass", "✗ fail", "▲ warn"):
        assert words in card.text
    assert matplotlib.image.imread(io.BytesIO(card.image)).shape[1] > 1000


def test_metadata_cannot_bring_markup_into_the_card(make_run):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    view = open_run(make_run(sample=evil, reason=evil, state=RunState.FAILED).path)
    card = Tags(view._repr_html_())
    assert "script" not in card.tags
    assert card.tags.count("img") == 1
    assert card.attributes == {"alt", "style", "src"}
    assert evil in card.text


def test_jupyter_gets_the_report_as_a_picture(make_run, tmp_path):
    view = open_run(make_run().path)
    assert view._repr_png_() == view.save_report(tmp_path / "a.png").read_bytes()


class Counted:
    """A volume that counts what is read of it."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.read = values, values.shape, 0

    def __getitem__(self, place):
        found = self.values[place]
        self.read += found.size
        return found


def test_a_slice_is_read_from_its_level_and_nothing_else():
    fine = Counted(np.arange(8 * 128 * 128).reshape(8, 128, 128))
    coarse = Counted(fine.values[::2, ::2, ::2])
    image = RunImage("volume", (fine, coarse), voxel_size_um=1.5)
    np.testing.assert_array_equal(image.read_slice("y", 5), fine.values[:, 5])
    np.testing.assert_array_equal(image.read_slice("z", 7, 1), coarse.values[3])
    assert (fine.read, coarse.read) == (8 * 128, 64 * 64)
    assert [image.level_for(pixels) for pixels in (10, 64, 65, 1000)] == [1, 1, 0, 0]
    assert image.pixel_size_um(1) == 3.0
    for place in (("t", 0, 0), ("z", 8, 0), ("z", -1, 0), ("z", 0, 2)):
        with pytest.raises(InputError, match=r"there is no axis|has no"):
            image.read_slice(*place)


@pytest.fixture
def browser(make_run):
    return browse_slices(make_run(images=("volume", "labels")).path)


def test_the_browser_begins_in_the_middle(browser, example):
    assert (browser.axis.value, browser.position.value) == ("z", 10)
    browser.opacity.value = 0
    low, high = browser.window.value
    scaled = (example.volume[10] * np.float32(5e5) - low) / (high - low)
    grey = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    zoom = pixels(browser).shape[1] // 136
    np.testing.assert_allclose(pixels(browser)[::zoom, ::zoom, 0], grey, atol=1)


def test_the_browser_follows_its_widgets(browser, example):
    browser.opacity.value = 0
    browser.position.value = 6
    assert pixels(browser).mean() > 5
    bright = pixels(browser)[..., 0] > 128
    rows, columns = np.nonzero(bright)
    zoom = pixels(browser).shape[1] / 136
    # The ball of the example lies there.
    assert (rows.mean() / zoom, columns.mean() / zoom) == pytest.approx((40, 90), abs=2)
    browser.axis.value = "x"
    assert (browser.position.value, browser.position.max) == (68, 135)
    browser.position.value = 90
    across = pixels(browser)
    assert across.shape[1] > across.shape[0]
    browser.window.value = (browser.window.min, browser.window.min + browser.window.step)
    assert pixels(browser).mean() > 250


def test_labels_are_laid_over_the_slice(browser):
    coloured = np.ptp(pixels(browser).astype(int), axis=2) > 20
    zoom = pixels(browser).shape[1] // 136
    assert coloured[::zoom, ::zoom].sum() == pytest.approx(40 * 40 + 36 * 20, rel=0.05)
    assert "root" in browser.legend.value
    browser.opacity.value = 0
    assert np.ptp(pixels(browser), axis=2).max() == 0


def test_another_volume_gets_a_window_of_its_own(make_run):
    browser = browse_slices(make_run(images=("volume", "denoised")).path)
    browser.position.value = 3
    browser.image.value = "denoised"
    assert browser.position.value == 10
    assert browser.window.min < browser.window.value[0] < browser.window.value[1]


def test_a_run_without_a_volume_cannot_be_browsed(make_run):
    with pytest.raises(InputError, match="no volume to browse; it is aborted"):
        browse_slices(make_run(images=(), state=RunState.ABORTED).path)


def test_unknown_voxels_stay_clear():
    picture = np.full((1, 3, 3), 100, np.uint8)
    blended = blend(picture, np.array([[0, 1, 255]], np.uint8), {1: "#ff0000"}, 0.5)
    assert blended.tolist() == [[[100, 100, 100], [178, 50, 50], [100, 100, 100]]]
