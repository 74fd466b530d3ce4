"""Choosing a reconstruction engine, and the one-call reconstruction."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError, ReconstructionEngine
from apsber_bluesky.processing._finufft_engine import FinufftEngine
from apsber_bluesky.processing._weights import check_angles

# Best first; "auto" takes the first whose module is installed.
_ENGINES: dict[str, type[FinufftEngine]] = {"finufft": FinufftEngine}
_GIGABYTE = 1e9


def engine_names() -> list[str]:
    """Names of the engines that can run here, best first."""
    return [name for name in _ENGINES if importlib.util.find_spec(name) is not None]


def create_engine(
    name: str = "auto",
    *,
    rows: int,
    columns: int,
    angles_deg: ArrayLike,
    filter_name: str = "ramp",
    threads: int | None = None,
) -> ReconstructionEngine:
    """Make an engine for one scan.

    Parameters
    ----------
    name : str
        One of `engine_names`, or ``"auto"`` for the best of them.
    rows, columns : int
        Size of a projection [pixel]; the volume is ``(rows, columns, columns)``.
    angles_deg : array_like
        Angle of each projection of the scan, shape ``(n,)``, in any order and range [deg].
    filter_name : {"ramp", "shepp", "hann", "parzen"}
        Window of the ramp filter.
    threads : int, optional
        Threads to work with; by default one per processor. The result does not depend on it.

    Returns
    -------
    ReconstructionEngine
        The engine, empty.

    Raises
    ------
    InputError
        If an argument is wrong, no such engine is present, or memory would not suffice.
    """
    chosen = _choose(name)
    if rows < 1 or columns < 2:
        raise InputError(
            f"projections of {rows} rows x {columns} columns cannot be reconstructed; "
            "at least 1 x 2 are needed"
        )
    threads = _processors() if threads is None else threads
    if threads < 1:
        raise InputError(f"threads is {threads}; give at least 1")
    angles = check_angles(angles_deg)
    needed = required_bytes(rows, columns, len(angles), name=chosen, threads=threads)
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"reconstructing {rows} rows x {columns} columns from {len(angles)} projections needs "
            f"{needed / _GIGABYTE:.1f} GB, {free / _GIGABYTE:.1f} GB are free: use fewer rows at a "
            "time, bin the frames or free memory"
        )
    return _ENGINES[chosen](rows, columns, angles, filter_name, threads)


def required_bytes(
    rows: int, columns: int, projections: int, *, name: str = "auto", threads: int | None = None
) -> int:
    """Memory that an engine will need, without its input and output.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    projections : int
        Number of projections of the scan.
    name : str
        Engine, or ``"auto"``.
    threads : int, optional
        Threads to work with; by default one per processor.

    Returns
    -------
    int
        Estimate [byte].
    """
    engine = _ENGINES[_choose(name)]
    return engine.required_bytes(rows, columns, projections, threads or _processors())


def reconstruct(
    projections: NDArray[np.float32],
    angles_deg: ArrayLike,
    centre: float,
    *,
    engine: str = "auto",
    filter_name: str = "ramp",
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Reconstruct a volume from all its projections at once.

    Parameters
    ----------
    projections : ndarray of float32
        Line integrals, shape ``(n, rows, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis [pixel].
    engine : str
        Engine, or ``"auto"``.
    filter_name : {"ramp", "shepp", "hann", "parzen"}
        Window of the ramp filter.
    threads : int, optional
        Threads to work with; by default one per processor.

    Returns
    -------
    ndarray of float32
        Attenuation [1/pixel], shape ``(rows, columns, columns)``; pixel ``(row, column)`` lies at
        ``x = column - columns // 2``, ``y = row - columns // 2`` from the axis.

    Raises
    ------
    InputError
        If an argument is wrong or memory would not suffice.
    """
    if projections.ndim != 3:
        raise InputError(f"projections have shape {projections.shape}; give (n, rows, columns)")
    angles = check_angles(angles_deg)
    if len(angles) != len(projections):
        raise InputError(f"{len(projections)} projections, but {len(angles)} angles")
    rows, columns = projections.shape[1:]
    made = create_engine(
        engine,
        rows=rows,
        columns=columns,
        angles_deg=angles,
        filter_name=filter_name,
        threads=threads,
    )
    made.accumulate(projections, 0)
    return made.finish(slice(None), centre)


def _choose(name: str) -> str:
    present = engine_names()
    if name == "auto" and present:
        return present[0]
    if name not in present:
        raise InputError(
            f"no reconstruction engine {name!r} here; present: {', '.join(present) or 'none'}"
        )
    return name


def _processors() -> int:
    return len(os.sched_getaffinity(0))
