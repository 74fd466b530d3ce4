"""What slsDetectorPackage's command line sets and no record does: gain modes, storage cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, cast, get_args

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._jungfrau_ioc_sensor import GAIN_MODES, NUM_CELLS, GainMode

_LONGEST_CELL_DELAY_S: Final = 1638375e-9
_DURATION: Final = re.compile(r"([0-9.]+(?:e-?[0-9]+)?)(ns|us|ms|s)")
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class ChipSettings:
    """Settings of a Jungfrau with chips of version 1.0, with slsDetectorPackage's defaults.

    Attributes
    ----------
    gain_mode : str
        How pixels choose their gain.
    extra_cells, first_cell : int
        Storage cells that an exposure fills beside its first one, and which that is.
    cell_delay_s : float
        Time between the exposures of two cells beside what the chip needs [s].
    next_frame : int
        Number of the next image.
    """

    gain_mode: GainMode = "dynamic"
    extra_cells: int = 0
    first_cell: int = NUM_CELLS - 1
    cell_delay_s: float = 0.0
    next_frame: int = 1

    def cell(self, number: int) -> int:
        """Storage cell of an exposure's image number 0, 1, ..."""
        return (self.first_cell + number) % NUM_CELLS


def obey(settings: ChipSettings, text: str) -> ChipSettings:
    """Carry out commands, separated by semicolons.

    Raises
    ------
    InputError
        At the first one that the detector refuses; it carries out none.
    """
    for command in filter(None, (part.strip() for part in text.split(";"))):
        name, _, argument = command.partition(" ")
        if name not in _COMMANDS:
            raise InputError(f"command {name!r} is not simulated")
        try:
            settings = _COMMANDS[name](settings, argument.strip())
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return settings


def _gain_mode(settings: ChipSettings, text: str) -> ChipSettings:
    if text not in get_args(GainMode):
        raise InputError(f"no gain mode {text!r}; there are {', '.join(GAIN_MODES)}")
    return replace(settings, gain_mode=cast("GainMode", text))


def _integer(field: str, low: int, high: int) -> Callable[[ChipSettings, str], ChipSettings]:
    def change(settings: ChipSettings, text: str) -> ChipSettings:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise InputError(f"{field} is {text!r}; it must be {low} to {high}")
        changed: dict[str, Any] = {field: int(text)}
        return replace(settings, **changed)

    return change


def _cell_delay(settings: ChipSettings, text: str) -> ChipSettings:
    found = _DURATION.fullmatch(text)
    delay_s = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not 0 <= delay_s <= _LONGEST_CELL_DELAY_S:
        raise InputError(f"delay is {text!r}; it must be 0 to {_LONGEST_CELL_DELAY_S * 1e9:.0f}ns")
    return replace(settings, cell_delay_s=delay_s)


_COMMANDS: Final[dict[str, Callable[[ChipSettings, str], ChipSettings]]] = {
    "gainmode": _gain_mode,
    "extrastoragecells": _integer("extra_cells", 0, NUM_CELLS - 1),
    "storagecell_start": _integer("first_cell", 0, NUM_CELLS - 1),
    "storagecell_delay": _cell_delay,
    "nextframenumber": _integer("next_frame", 1, 2**48),
}
