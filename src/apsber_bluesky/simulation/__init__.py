"""The simulated beamline: a real EPICS IOC in its own process, whose images are physics."""

from typing import TYPE_CHECKING, Any

from apsber_bluesky.simulation._detector import Detector
from apsber_bluesky.simulation._diffraction import (
    Diffraction,
    DiffractionGeometry,
    ScatteringSample,
    sphere_form_factor,
)
from apsber_bluesky.simulation._diffraction_crystal import Crystal
from apsber_bluesky.simulation._eiger_dcu import EigerDcu, EigerFault
from apsber_bluesky.simulation._eiger_series import EigerConditions, EigerSeries
from apsber_bluesky.simulation._fluorescence_phantom import FluorescencePhantom
from apsber_bluesky.simulation._jungfrau_pixels import jungfrau_raw
from apsber_bluesky.simulation._named_phantoms import PHANTOMS, make_phantom
from apsber_bluesky.simulation._phantoms import Ellipsoid, Phantom
from apsber_bluesky.simulation._recorded import RecordedScan
from apsber_bluesky.simulation._sls_receiver import ModuleFaults, SlsReceiver, StreamFaults

if TYPE_CHECKING:
    from apsber_bluesky.simulation._beamline import PhantomSource
    from apsber_bluesky.simulation._pva_detector import PvaDetector
    from apsber_bluesky.simulation._xspress3 import Xspress3

__all__ = [
    "PHANTOMS",
    "Crystal",
    "Detector",
    "Diffraction",
    "DiffractionGeometry",
    "EigerConditions",
    "EigerDcu",
    "EigerFault",
    "EigerSeries",
    "Ellipsoid",
    "FluorescencePhantom",
    "ModuleFaults",
    "Phantom",
    "PhantomSource",
    "PvaDetector",
    "RecordedScan",
    "ScatteringSample",
    "SlsReceiver",
    "StreamFaults",
    "Xspress3",
    "jungfrau_raw",
    "make_phantom",
    "sphere_form_factor",
]


def __getattr__(name: str) -> Any:
    # These import caproto or p4p, which who only wants a phantom does without.
    if name == "PhantomSource":
        from apsber_bluesky.simulation._beamline import PhantomSource

        return PhantomSource
    if name == "PvaDetector":
        from apsber_bluesky.simulation._pva_detector import PvaDetector

        return PvaDetector
    if name == "Xspress3":
        from apsber_bluesky.simulation._xspress3 import Xspress3

        return Xspress3
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
