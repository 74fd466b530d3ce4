"""The simulated beamline: a real EPICS IOC in its own process, whose images are physics."""

from apsber_bluesky.simulation._detector import Detector
from apsber_bluesky.simulation._named_phantoms import PHANTOMS, make_phantom
from apsber_bluesky.simulation._phantoms import Ellipsoid, Phantom
from apsber_bluesky.simulation._recorded import RecordedScan

__all__ = [
    "PHANTOMS",
    "Detector",
    "Ellipsoid",
    "Phantom",
    "RecordedScan",
    "make_phantom",
]
