from __future__ import annotations

import json

import numpy as np
import pytest

from apsber_bluesky.analysis import DEFAULT_LIMITS, assess_scan
from apsber_bluesky.core import FrameBooks, InputError, Limits, QualityMetric, SeriesBooks, Verdict
from apsber_bluesky.processing import reconstruct


def assess(taken, *, centre=None, missing=(), **options) -> dict[str, QualityMetric]:
    used = taken.centre if centre is None else centre
    count = len(taken.angles_deg)
    have = count - len(missing)
    books = FrameBooks({"primary": SeriesBooks(count, have, have, missing=list(missing))})
    found = assess_scan(
        slices=taken.slices(used),
        sinograms=taken.sinograms,
        angles_deg=taken.angles_deg,
        centre=used,
        books=books,
        reconstruct_half=lambda sinograms, angles: reconstruct(sinograms, angles, used),
        **options,
    )
    return {metric.name: metric for metric in found.metrics}


def test_a_good_scan_passes_in_all(scan):
    metrics = assess(scan(flat_counts=1e5), pixel_size_um=2.0)
    assert list(metrics) == [
        "signal_to_noise",
        "contrast_to_noise",
        "resolution",
        "ring_score",
        "centre_residual",
        "drift",
        "motion",
        "missing_frames",
    ]
    assert {m.verdict for m in metrics.values()} == {Verdict.PASS}
    assert all(m.source for m in metrics.values())
    assert "um" in metrics["resolution"].note
    json.dumps([m.to_dict() for m in metrics.values()], allow_nan=False)


def test_each_fault_moves_its_own_number(scan):
    good = assess(scan())
    noisy = assess(scan(flat_counts=300))
    shifted = assess(scan(), centre=69.0)
    short = assess(scan(), missing=[4, 5, 6, 7])
    assert noisy["signal_to_noise"].value < 0.5 * good["signal_to_noise"].value
    assert noisy["resolution"].value > 1.3 * good["resolution"].value
    assert shifted["centre_residual"].value > good["centre_residual"].value + 2
    assert shifted["centre_residual"].verdict is Verdict.FAIL
    assert short["missing_frames"].verdict is Verdict.FAIL
    assert short["signal_to_noise"] == good["signal_to_noise"]


def test_halves_interleave_in_angle_whatever_the_order(scan):
    taken = scan()
    order = np.random.default_rng(0).permutation(180)
    straight = assess(taken)["resolution"].value
    taken.sinograms, taken.angles_deg = taken.sinograms[order], taken.angles_deg[order]
    assert assess(taken)["resolution"].value == pytest.approx(straight, rel=1e-6)


def test_limits_are_merged_over_the_default_ones(scan):
    metrics = assess(scan(), limits={"resolution": Limits(warn=1.0, fail=1.5)})
    assert metrics["resolution"].verdict is Verdict.FAIL
    assert metrics["signal_to_noise"].warn_limit == DEFAULT_LIMITS["signal_to_noise"].warn


def test_limits_of_an_unknown_number_are_refused(scan):
    with pytest.raises(InputError, match="unknown quality number 'beauty'; there are centre_res"):
        assess(scan(), limits={"beauty": Limits(warn=1, fail=2)})


def test_angles_must_match(scan):
    taken = scan()
    with pytest.raises(InputError, match="180 projections, but angles of shape"):
        assess_scan(
            slices=taken.slices(),
            sinograms=taken.sinograms,
            angles_deg=taken.angles_deg[1:],
            centre=taken.centre,
            books=FrameBooks(),
            reconstruct_half=lambda sinograms, angles: sinograms,
        )
