"""X-ray fluorescence: from spectra of many channels to amounts of elements."""

from apsber_bluesky.processing.fluorescence._calibrate import Calibration, calibrate
from apsber_bluesky.processing.fluorescence._dead_time import dead_time_factor, sum_channels
from apsber_bluesky.processing.fluorescence._find import FoundElement, find_elements
from apsber_bluesky.processing.fluorescence._fit import ElementCounts, SpectrumFit, is_element
from apsber_bluesky.processing.fluorescence._lines import (
    ElementLines,
    EmissionLine,
    all_elements,
    element_lines,
)
from apsber_bluesky.processing.fluorescence._model import Excitation, SpectrumModel
from apsber_bluesky.processing.fluorescence._non_negative import non_negative_least_squares
from apsber_bluesky.processing.fluorescence._response import DetectorResponse, escape_fraction
from apsber_bluesky.processing.fluorescence._snip import snip_background

__all__ = [
    "Calibration",
    "DetectorResponse",
    "ElementCounts",
    "ElementLines",
    "EmissionLine",
    "Excitation",
    "FoundElement",
    "SpectrumFit",
    "SpectrumModel",
    "all_elements",
    "calibrate",
    "dead_time_factor",
    "element_lines",
    "escape_fraction",
    "find_elements",
    "is_element",
    "non_negative_least_squares",
    "snip_background",
    "sum_channels",
]
