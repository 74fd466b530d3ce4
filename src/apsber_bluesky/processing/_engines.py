"""Choosing a reconstruction engine, and the one-call reconstruction."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError, ReconstructionEngine
from apsber_bluesky.processing._free_memory import free_memory
from apsber_bluesky.processing._weights import check_angles


class _Entry(NamedTuple):
    """An engine: the package it needs, where its class is, and whether "auto" may take it."""

    requires: str
    module: str
    made_by: str
    automatic: bool = True


# Best first. Modules are imported when an engine is made: some compile, some need a device.
_ENGINES = {
    "cupy": _Entry("cupy", "accelerators", "CupyEngine"),
    "gridding": _Entry("numba", "gridding", "GriddingEngine"),
    "torch": _Entry("torch", "accelerators", "TorchEngine", automatic=False),
    "tomocupy": _Entry("tomocupy", "accelerators", "TomocupyEngine", automatic=False),
    "finufft": _Entry("finufft", "_finufft_engine", "FinufftEngine"),
}
_GIGABYTE = 1e9


def engine_names() -> list[str]:
    """Names of the engines that can run here, best first; ``"auto"`` takes the first."""
    present = [name for name in _ENGINES if _present(name)]
    # One that is otherwise only taken by name may know that nothing else serves what is here.
    first = [name for name in present if not _ENGINES[name].automatic and _best(name)]
    last = [name for name in present if not _ENGINES[name].automatic and name not in first]
    return first + [name for name in present if _ENGINES[name].automatic] + last


def create_engine(
    name: str = "auto",
    *,
    rows: int,
    columns: int,
    angles_deg: ArrayLike,
    filter_name: str = "ramp",
    threads: int | None = None,
    centre: float | None = None,
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
    centre : float, optional
        Column of the rotation axis [pixel], where it is known before. The engine holds it if
        memory suffices, and then does most of its work while projections come.

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
    size = (rows, columns, len(angles))
    free = free_memory()
    needed = required_bytes(*size, name=chosen, threads=threads)
    held = required_bytes(*size, name=chosen, threads=threads, held=True)
    holds = centre is not None and held <= free
    if holds:
        needed = held
    if needed > free:
        raise InputError(
            f"reconstructing {rows} rows x {columns} columns from {len(angles)} projections needs "
            f"{needed / _GIGABYTE:.1f} GB, {free / _GIGABYTE:.1f} GB are free: use fewer rows at a "
            "time, bin the frames or free memory"
        )
    prepare_engine(chosen)
    engine: ReconstructionEngine = _class(chosen)(rows, columns, angles, filter_name, threads)
    if centre is not None and holds:
        engine.hold_centre(centre)
    return engine


def prepare_engine(name: str = "auto") -> None:
    """Load an engine and what it compiles, so that `create_engine` is quick.

    Seconds where nothing has been compiled yet, as after an installation; else below a second.

    Parameters
    ----------
    name : str
        One of `engine_names`, or ``"auto"`` for the best of them.

    Raises
    ------
    InputError
        If no such engine is present.
    """
    prepare = getattr(_class(_choose(name)), "prepare", None)
    if prepare is not None:
        prepare()


def required_bytes(
    rows: int,
    columns: int,
    projections: int,
    *,
    name: str = "auto",
    threads: int | None = None,
    held: bool = False,
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
    held : bool
        Whether the centre will be held (`ReconstructionEngine.hold_centre`).

    Returns
    -------
    int
        Estimate [byte].
    """
    engine = _class(_choose(name))
    estimate = getattr(engine, "required_bytes_held", None) if held else None
    estimate = estimate or engine.required_bytes
    return int(estimate(rows, columns, projections, threads or _processors()))


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


def _present(name: str) -> bool:
    """Whether an engine can run here, found out without importing the package it needs."""
    if importlib.util.find_spec(_ENGINES[name].requires) is None:
        return False
    # Those that compute on the processor need nothing else.
    return name in ("gridding", "finufft") or bool(_class(name).usable())


def _best(name: str) -> bool:
    best = getattr(_class(name), "best", None)
    return best is not None and bool(best())


def _class(name: str) -> Any:
    entry = _ENGINES[name]
    return getattr(importlib.import_module(f"{__package__}.{entry.module}"), entry.made_by)


def _processors() -> int:
    return len(os.sched_getaffinity(0))
