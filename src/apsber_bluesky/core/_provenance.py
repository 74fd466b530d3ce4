"""Provenance: one record for each transformation, written to NeXus as one ``NXprocess``."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from apsber_bluesky._version import __version__

PROGRAM = "apsber_bluesky"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One transformation of the data.

    Attributes
    ----------
    name : str
        Short name of the step, e.g. ``"normalise"``.
    sequence_index : int
        Place in the chain, from 1.
    parameters : dict
        What the step was told: numbers, strings, booleans and lists of these. Names carry units.
    inputs, outputs : dict of str to str
        Path (relative to the run folder) or name of an array -> ``"algorithm:hex"`` checksum.
    started_s, finished_s : float
        Unix times [s].
    program, version, host : str
        What ran, and where.
    """

    name: str
    sequence_index: int
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    started_s: float = field(default_factory=time.time)
    finished_s: float = field(default_factory=time.time)
    program: str = PROGRAM
    version: str = __version__
    host: str = field(default_factory=platform.node)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the ledger stores them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**value)
