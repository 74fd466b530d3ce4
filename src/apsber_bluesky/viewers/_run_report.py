"""Gather what the report of a run shows."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import (
    CurvesPanel,
    ImagePanel,
    LabelOverlay,
    MissingPanel,
    Panel,
    RunReport,
    grey_range,
)
from apsber_bluesky.core import ApsberError, FrameBooks, InputError
from apsber_bluesky.viewers._frame_pictures import read_projection, read_series, read_sinogram
from apsber_bluesky.viewers._run_image import RunImage
from apsber_bluesky.viewers._run_source import Frames, RunSource

_SLICE_PIXELS: Final = 384
_HISTOGRAM_SLICES: Final = 9
_HISTOGRAM_BINS: Final = 200
_MAPS: Final = 6
_BLACK: Final = "#222222"
_BLUE: Final = "#0072b2"
_PLANES: Final = {"z": "xy", "y": "xz", "x": "yz"}


def report_of(source: RunSource) -> RunReport:
    """Gather the report of a run, of any technique and in any state.

    What is not there, or cannot be read, is said in its place; slices come from the coarsest
    level that is fine enough for a picture, sinogram and sums from frames in even steps.

    Raises
    ------
    StorageError
        If the run itself cannot be read.
    """
    about = source.describe()
    technique = about["technique"] or "tomography"
    if technique == "tomography":
        panels = _tomography(source, about)
    elif technique == "fluorescence":
        panels = _fluorescence(source, about)
    else:
        panels = [_frame_panels(source, about)]
    sample = about["sample"] or "sample"
    return RunReport(
        title=f"{sample}, scan {about['scan_id']} ({about['uid'][:8]})",
        warning=_warning(about),
        panels=panels,
        facts=_facts(source, about),
        metrics=about["quality"].get("metrics", ()),
    )


def _warning(about: dict[str, Any]) -> str:
    state, reason = about["state"], about["reason"]
    said = [] if state == "complete" else [f"{state}: {reason}" if reason else state]
    fault = FrameBooks.from_dict(about["frames"]).fault
    if fault and fault not in reason:
        said.append(fault)
    said += [f"{s['name']} {s['state']}" for s in about["stages"] if s["state"] == "failed"]
    return "; ".join(said)


def _why_not(what: str, about: dict[str, Any]) -> str:
    state, reason = about["state"], about["reason"]
    if state in ("acquiring", "processing"):
        return f"no {what} yet:\nthe run is {state}"
    return f"no {what}: the run is {state}" + (f"\n({reason})" if reason else "")


def _tomography(source: RunSource, about: dict[str, Any]) -> list[list[Panel]]:
    names = source.image_names()
    if "volume" not in names:
        nothing = MissingPanel("slices", _why_not("volume", about))
        return [[nothing, *_scan_panels(source, about)]]
    rows = [_slice_panels(source, "volume")]
    if "labels" in names:
        shown = "denoised" if "denoised" in names else "volume"
        rows.append(_slice_panels(source, shown, labelled=True))
    elif "denoised" in names:
        rows.append(_slice_panels(source, "denoised"))
    rows.append([_histogram_panel(source), *_scan_panels(source, about)])
    return rows


def _slice_panels(source: RunSource, name: str, *, labelled: bool = False) -> list[Panel]:
    try:
        image = source.image(name)
        labels = source.image("labels") if labelled else None
        level = image.level_for(_SLICE_PIXELS)
        middle = {axis: size // 2 for axis, size in zip("zyx", image.shape, strict=True)}
        views = {axis: image.read_slice(axis, middle[axis], level) for axis in "zyx"}
        limits = grey_range(np.concatenate([view.ravel() for view in views.values()]))
        return [
            ImagePanel(
                f"{name} {_PLANES[axis]}, {axis} = {middle[axis]}"
                + (" with labels" if labelled else ""),
                view,
                limits,
                image.pixel_size_um(level),
                overlay=None if labels is None else _overlay(labels, axis, middle[axis], level),
                unit=image.unit if axis == "x" else "",
            )
            for axis, view in views.items()
        ]
    except ApsberError as error:
        return [MissingPanel(f"{name} slices", str(error))]


def _overlay(labels: RunImage, axis: str, position: int, level: int) -> LabelOverlay:
    return LabelOverlay(
        labels.read_slice(axis, position, level), dict(enumerate(labels.classes)), labels.colours
    )


def _histogram_panel(source: RunSource) -> Panel:
    try:
        image = source.image("volume")
        names = [n for n in ("volume", "denoised") if n in source.image_names()]
        values = {name: _sampled_values(source.image(name)) for name in names}
        edges = np.histogram_bin_edges(values["volume"], _HISTOGRAM_BINS)
    except (ApsberError, ValueError) as error:
        return MissingPanel("histogram", str(error))
    centres = (edges[1:] + edges[:-1]) / 2
    curves = [
        (name if len(names) > 1 else "", centres, np.histogram(values[name], edges)[0], colour)
        for name, colour in zip(names, (_BLACK, _BLUE), strict=False)
    ]
    title = f"histogram of up to {_HISTOGRAM_SLICES} slices"
    return CurvesPanel(
        title, f"{image.quantity or 'value'} [{image.unit}]", "voxels", curves,
        logarithmic=True, steps=True,
    )  # fmt: skip


def _sampled_values(image: RunImage) -> NDArray[Any]:
    level = image.level_for(_SLICE_PIXELS)
    depth = image.shape[0]
    places = np.unique(np.linspace(0, depth - 1, min(depth, _HISTOGRAM_SLICES)).round().astype(int))
    found = np.concatenate([image.read_slice("z", int(z), level).ravel() for z in places])
    values: NDArray[Any] = found[np.isfinite(found)]
    if not values.size:
        raise InputError(f"the {image.name} holds no finite value")
    return values


def _scan_panels(source: RunSource, about: dict[str, Any]) -> list[Panel]:
    try:
        opened = source.open_frames()
        if opened is None:
            return [MissingPanel("sinogram", "the frames are not within reach")]
        with opened as frames:
            return [_sinogram_panel(frames, about), _projection_panel(frames, about)]
    except ApsberError as error:
        return [MissingPanel("sinogram", str(error))]


def _sinogram_panel(frames: Frames, about: dict[str, Any]) -> Panel:
    sinogram = read_sinogram(frames)
    if sinogram is None:
        return MissingPanel("sinogram", _why_not("projections", about))
    num = len(frames.series["primary"].written)
    shown = len(sinogram.frames)
    title = f"sinogram of row {sinogram.row}"
    title += f", {num} projections" if shown == num else f", {shown} of {num} projections"
    return ImagePanel(
        title, sinogram.values, grey_range(sinogram.values), bar=False, unit=sinogram.unit,
        axes_names=("column [px]", "projection"),
        y_limits=(float(sinogram.frames[0]), float(sinogram.frames[-1]) + 1),
    )  # fmt: skip


def _projection_panel(frames: Frames, about: dict[str, Any]) -> Panel:
    found = read_projection(frames)
    if found is None:
        return MissingPanel("projection", _why_not("projections", about))
    image, unit = found
    size = about["scan"].get("pixel_size_um")
    return ImagePanel("last projection", image, grey_range(image), size, unit=unit)


def _fluorescence(source: RunSource, about: dict[str, Any]) -> list[list[Panel]]:
    try:
        maps = source.element_maps()
    except ApsberError as error:
        return [[MissingPanel("element maps", str(error))]]
    if maps is None:
        return [[MissingPanel("element maps", _why_not("element maps", about))]]
    # The strongest elements are what people look for first.
    strongest = sorted(maps.counts, key=lambda name: -float(np.nansum(maps.counts[name])))[:_MAPS]
    step_um = 1000 * abs(float(np.diff(maps.fast_mm).mean())) if maps.fast_mm.size > 1 else None
    panels: list[Panel] = [
        ImagePanel(
            name, maps.counts[name], grey_range(maps.counts[name]), step_um,
            unit="counts", colours="viridis",
        )
        if np.isfinite(maps.counts[name]).any()
        else MissingPanel(name, "no pixel has been measured")
        for name in strongest
    ]  # fmt: skip
    energies = maps.energy_eV / 1000
    shown = (energies > 0) & (maps.spectrum > 0)
    curves = [
        ("measured", energies[shown], maps.spectrum[shown], _BLACK),
        ("fit", energies[shown], maps.fit[shown], "#d55e00"),
    ]
    panels.append(
        CurvesPanel("sum of all spectra", "energy [keV]", "counts", curves, logarithmic=True)
    )
    return [panels[start : start + 3] for start in range(0, len(panels), 3)]


def _frame_panels(source: RunSource, about: dict[str, Any]) -> list[Panel]:
    try:
        opened = source.open_frames()
        if opened is None:
            return [MissingPanel("frames", _why_not("frames", about))]
        with opened as frames:
            found = read_series(frames)
    except ApsberError as error:
        return [MissingPanel("frames", str(error))]
    if found is None or not np.isfinite(found.mean).any():
        return [MissingPanel("frames", _why_not("frames", about))]
    of = f"{len(found.frames)} of {found.total} frames"
    panels: list[Panel] = []
    for name, values in (("mean", found.mean), ("maximum", found.maximum)):
        high = float(np.nanpercentile(values, 99.9))
        low = float(np.nanmin(np.where(values > 0, values, np.inf)))
        panels.append(
            ImagePanel(
                f"{name} of {of}",
                values,
                (low, high) if np.isfinite(low) else (0.1, 1.0),
                logarithmic=True,
                unit="counts",
                colours="inferno",
            )
        )
    curve = ("", found.frames, found.sums, _BLACK)
    return [*panels, CurvesPanel("sum of each frame", "frame", "counts", [curve])]


def _facts(source: RunSource, about: dict[str, Any]) -> list[tuple[str, str]]:
    frames = about["frames"]
    facts = [
        ("sample", about["sample"]),
        ("plan", about["plan_name"]),
        ("uid", about["uid"]),
        ("proposal", about["proposal"]),
        ("began", _when(about["start_time_s"])),
        ("detectors", ", ".join(about["detectors"])),
        ("state", about["state"]),
        ("frames", ", ".join(f"{frames.get(k, 0)} {k}" for k in ("expected", "received", "used"))),
        ("took", _durations(about)),
    ]
    facts += _steps(about["processes"])
    facts += [(name, _size(source, name)) for name in source.image_names()]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _steps(processes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    facts = []
    for process in processes:
        parameters = process.get("parameters", {})
        name = process.get("name", "")
        if name == "reconstruct":
            centre = parameters.get("centre_px")
            facts.append(
                ("engine", f"{parameters.get('engine')}, filter {parameters.get('filter')}")
            )
            facts.append(("centre", "" if centre is None else f"{centre:.2f} px"))
        elif "model" in parameters:
            version = parameters.get("model_version", "")
            facts.append((f"{name} by", f"{parameters['model']} {version}".strip()))
    return facts


def _durations(about: dict[str, Any]) -> str:
    known = [s["seconds"] for s in about["stages"] if s["seconds"] is not None]
    return f"{sum(known):.1f} s in {len(known)} stages" if known else ""


def _size(source: RunSource, name: str) -> str:
    try:
        image = source.image(name)
    except ApsberError:
        return "cannot be read"
    voxel = "" if image.voxel_size_um is None else f", {image.voxel_size_um:g} µm"
    return " x ".join(map(str, image.shape)) + voxel


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
