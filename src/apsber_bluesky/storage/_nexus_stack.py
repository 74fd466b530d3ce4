"""The frames in the NeXus record: virtual datasets on the bytes of ``raw.h5``, never a copy."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import TomographyScan
from apsber_bluesky.storage._raw_file import RawStream

_DXCHANGE_NAMES = {"primary": "data", "flats": "data_white", "darks": "data_dark"}


def add_stack(
    group: h5py.Group, name: str, streams: Sequence[RawStream], raw_name: str
) -> h5py.Dataset:
    """Lay streams one behind the other in one virtual dataset.

    Parameters
    ----------
    group : h5py.Group
        Where the dataset goes.
    name : str
        Its name.
    streams : sequence of RawStream
        Streams of equal frame size and dtype.
    raw_name : str
        File name of the frames; without a folder, so that a copy of the run folder is whole.

    Returns
    -------
    h5py.Dataset
        The dataset, shape ``(frames, rows, columns)``.
    """
    frames = sum(stream.shape[0] for stream in streams)
    layout = h5py.VirtualLayout((frames, *streams[0].shape[1:]), streams[0].dtype)
    first = 0
    for stream in streams:
        stored = (stream.num_stored, *stream.shape[1:])
        source = h5py.VirtualSource(raw_name, stream.dataset, stored)
        # One mapping a frame: nexusformat takes the number of mappings for the number of frames.
        # Where there is none, readers see zeros.
        for index in range(stream.num_stored):
            layout[first + index] = source[index]
        first += stream.shape[0]
    return group.create_virtual_dataset(name, layout)


def projection_angles_deg(stream: RawStream, scan: TomographyScan) -> NDArray[np.float64]:
    """Angle of every projection, shape ``(n,)`` [deg].

    What the detector reported, else the angle at which the scan was to take the frame.
    """
    planned = scan.first_angles_deg(stream.shape[0])
    return np.where(np.isfinite(stream.angle_deg), stream.angle_deg, planned)


def stack_angles_deg(streams: Sequence[RawStream], scan: TomographyScan) -> NDArray[np.float64]:
    """Angle of every frame of the stack, shape ``(frames,)`` [deg].

    Darks and flats for which no angle was reported stand at the start of the rotation.
    """
    angles = []
    for stream in streams:
        if stream.name == "primary":
            angles.append(projection_angles_deg(stream, scan))
        else:
            known = np.isfinite(stream.angle_deg)
            angles.append(np.where(known, stream.angle_deg, scan.rotation_start_deg))
    return np.concatenate(angles)


def add_dxchange_view(
    file: h5py.File, streams: Sequence[RawStream], scan: TomographyScan, raw_name: str
) -> None:
    """Add ``/exchange``, as tomopy, tomocupy and dxchange read it, on the same bytes.

    The layout is that of F. De Carlo et al., J. Synchrotron Rad. 21 (2014) 1224-1230.
    """
    file["implements"] = "exchange"
    exchange = file.create_group("exchange")
    for stream in streams:
        data = add_stack(exchange, _DXCHANGE_NAMES[stream.name], [stream], raw_name)
        data.attrs["axes"] = "theta:y:x" if stream.name == "primary" else "z:y:x"
        if stream.name == "primary":
            theta = exchange.create_dataset("theta", data=projection_angles_deg(stream, scan))
            theta.attrs["units"] = "deg"
