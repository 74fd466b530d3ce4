"""``run.nxs``: one NeXus file that tells all about a run and shows the frames of ``raw.h5``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky._version import __version__
from apsber_bluesky.core import (
    PROGRAM,
    FrameBooks,
    InputError,
    ProcessRecord,
    QualityMetric,
    RunDescription,
    RunFolder,
    TomographyScan,
    atomic_file,
    explain_disk_errors,
)
from apsber_bluesky.storage._nexus_processes import add_books, add_process, add_quality
from apsber_bluesky.storage._nexus_results import add_notes, add_results
from apsber_bluesky.storage._nexus_stack import add_dxchange_view, add_stack, stack_angles_deg
from apsber_bluesky.storage._nexus_tools import add_group, add_link, add_values, iso_time
from apsber_bluesky.storage._raw_file import RawStream, read_raw


def write_nexus(
    folder: RunFolder,
    run: RunDescription,
    *,
    processes: Sequence[ProcessRecord],
    books: FrameBooks,
    centre_px: float | None,
    quality: Sequence[QualityMetric],
    exit_status: str,
    start: Mapping[str, Any] | None = None,
    ring_current_mA: NDArray[np.floating[Any]] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the NeXus record of a run, application definition NXtomo.

    The stack ``/entry/instrument/detector/data`` (darks, flats, projections) and the DXchange
    view ``/exchange`` are virtual datasets: the frames stay in ``raw.h5``, beside this file.
    ``/entry/results`` names the volumes beside it, and shows the central slice of each.

    Parameters
    ----------
    folder : RunFolder
        The run; its ``raw.h5`` must be closed.
    run : RunDescription
        What was scanned.
    processes : sequence of ProcessRecord
        What was done with the frames; one ``NXprocess`` each.
    books : FrameBooks
        What became of every frame.
    centre_px : float or None
        Rotation centre [pixel], None if it was not found.
    quality : sequence of QualityMetric
        Quality numbers.
    exit_status : str
        Of the Bluesky run: ``success``, ``abort`` or ``fail``.
    start : mapping, optional
        Bluesky start document; kept in ``/entry/instrument/bluesky/metadata``.
    ring_current_mA : ndarray, shape (frames,), optional
        Storage-ring current at each frame of the stack [mA], for ``/entry/control``, which is
        where nxtomo looks for it.
    notes : sequence of str
        What a reader should know, such as steps that were left out and why.

    Returns
    -------
    Path
        The file, ``run.nxs``; it is there whole or not at all.

    Raises
    ------
    DataFileError
        If ``raw.h5`` is missing, truncated or of another layout.
    InputError
        If `ring_current_mA` does not have one reading per frame.
    StorageError
        If the folder is full or cannot be written.
    """
    streams = read_raw(folder.raw)
    frames = sum(stream.shape[0] for stream in streams)
    current = ring_current_mA
    if current is not None and current.shape != (frames,):
        raise InputError(
            f"ring_current_mA has shape {current.shape}; give one reading per frame: {frames}"
        )
    with (
        explain_disk_errors(folder.nexus, "write the NeXus record"),
        atomic_file(folder.nexus) as partial,
        h5py.File(partial, "w") as file,
    ):
        file.attrs["NX_class"] = "NXroot"
        file.attrs["default"] = "entry"
        file.attrs["creator"] = PROGRAM
        entry = _add_entry(file, run, streams)
        detector = _add_instrument(entry, run, start or {})
        _add_frames(detector, streams, folder.raw.name, run.scan, centre_px)
        detector["image_key"] = np.concatenate([_image_key(stream, books) for stream in streams])
        _add_sample(entry, run, streams)
        _add_plot(entry)
        if current is not None:
            control = add_group(entry, "control", "NXmonitor")
            control["data"] = np.asarray(current, np.float64)
            control["data"].attrs["units"] = "mA"
        for record in processes:
            add_process(entry, record)
        add_books(entry, books, exit_status)
        add_quality(entry, quality)
        add_notes(entry, notes)
        add_results(entry, folder)
        add_dxchange_view(file, streams, run.scan, folder.raw.name)
    return folder.nexus


def _add_entry(file: h5py.File, run: RunDescription, streams: Sequence[RawStream]) -> h5py.Group:
    entry = add_group(file, "entry", "NXentry")
    entry.attrs["default"] = "data"
    entry["definition"] = "NXtomo"
    entry["title"] = f"{run.sample or 'no sample name'}, scan {run.scan_id}, {run.plan_name}"
    times = np.concatenate([stream.timestamp for stream in streams])
    taken = times[np.isfinite(times) & (times > 0)]
    entry["start_time"] = iso_time(run.start_time_s)
    entry["end_time"] = iso_time(max(run.start_time_s, taken.max(initial=0.0)))
    entry["entry_identifier"] = run.uid
    entry["experiment_identifier"] = run.proposal
    entry["program_name"] = PROGRAM
    entry["program_name"].attrs["version"] = __version__
    return entry


def _add_instrument(entry: h5py.Group, run: RunDescription, start: Mapping[str, Any]) -> h5py.Group:
    instrument = add_group(entry, "instrument", "NXinstrument")
    instrument["name"] = run.instrument_name or run.beamline_id or "unknown"
    source = add_group(instrument, "source", "NXsource")
    source["name"] = str(start.get("facility") or run.beamline_id or "unknown")
    source["type"] = "Synchrotron X-ray Source"
    source["probe"] = "x-ray"
    if run.scan.energy_keV is not None:
        beam = add_group(instrument, "beam", "NXbeam")
        _add_number(beam, "incident_energy", run.scan.energy_keV, "keV")
    if start:
        bluesky = add_group(instrument, "bluesky", "NXcollection")
        add_values(add_group(bluesky, "metadata", "NXcollection"), start)
    return add_group(instrument, "detector", "NXdetector")


def _add_number(group: h5py.Group, name: str, value: float, units: str | None = None) -> None:
    group[name] = float(value)
    if units is not None:
        group[name].attrs["units"] = units


def _add_frames(
    detector: h5py.Group,
    streams: Sequence[RawStream],
    raw_name: str,
    scan: TomographyScan,
    centre_px: float | None,
) -> None:
    data = add_stack(detector, "data", streams, raw_name)
    data.attrs["long_name"] = "detector counts"
    detector["sequence_number"] = np.arange(len(data), dtype=np.uint32)
    detector["count_time"] = np.full(len(data), scan.exposure_s)
    detector["count_time"].attrs["units"] = "s"
    if scan.pixel_size_um is not None:
        for axis in "xy":
            _add_number(detector, f"{axis}_pixel_size", scan.pixel_size_um / 1e6, "m")
    if scan.sample_detector_distance_mm is not None:
        _add_number(detector, "distance", scan.sample_detector_distance_mm / 1e3, "m")
    if centre_px is not None:
        _add_number(detector, "x_rotation_axis_pixel_position", centre_px)


def _image_key(stream: RawStream, books: FrameBooks) -> NDArray[np.int32]:
    own = books.streams.get(stream.name)
    return stream.image_key(own.unusable if own is not None else frozenset())


def _add_sample(entry: h5py.Group, run: RunDescription, streams: Sequence[RawStream]) -> None:
    sample = add_group(entry, "sample", "NXsample")
    sample["name"] = run.sample or "unknown"
    angles = sample.create_dataset("rotation_angle", data=stack_angles_deg(streams, run.scan))
    angles.attrs["units"] = "degree"


def _add_plot(entry: h5py.Group) -> None:
    """Add the default plot, links only: the stack against the angle."""
    data = add_group(entry, "data", "NXdata")
    data.attrs["signal"] = "data"
    data.attrs["axes"] = ["rotation_angle", ".", "."]
    add_link(data, "data", entry["instrument/detector/data"])
    add_link(data, "rotation_angle", entry["sample/rotation_angle"])
    add_link(data, "image_key", entry["instrument/detector/image_key"])
