"""Classic ophyd devices: detectors, rotation stage, shutter, sample axis, storage ring."""

from apsber_bluesky.devices._aerotech_stage import AerotechRotation
from apsber_bluesky.devices._beamline import FastShutter, SampleAxis, StorageRing
from apsber_bluesky.devices._camera import Camera
from apsber_bluesky.devices._capture_requests import CaptureReading, CaptureRequests
from apsber_bluesky.devices._driver import DetectorDriver
from apsber_bluesky.devices._eiger import EigerDetector
from apsber_bluesky.devices._filters import Filter, Filters
from apsber_bluesky.devices._fly_axis import FlyAxis, FlyLine
from apsber_bluesky.devices._frame_detector import FrameDetector
from apsber_bluesky.devices._jungfrau import JungfrauDetector
from apsber_bluesky.devices._jungfrau_chip import (
    JungfrauChip,
    JungfrauGainMode,
    JungfrauSetting,
)
from apsber_bluesky.devices._live_quality import LiveQuality
from apsber_bluesky.devices._monochromator import Monochromator
from apsber_bluesky.devices._pulse_output import AerotechPso, PulseGenerator, PulseSource
from apsber_bluesky.devices._requests import FlyRotation, FrameSeries, Trigger
from apsber_bluesky.devices._rotation import RotationStage
from apsber_bluesky.devices._safe_state import HasSafeState, SafePut
from apsber_bluesky.devices._sample_stage import LeaningSampleStage, SampleStage
from apsber_bluesky.devices._suspenders import beam_suspenders, waits_for_beam, with_beam
from apsber_bluesky.devices._vortex import VortexDetector
from apsber_bluesky.devices._vortex_mca import VortexMca

__all__ = [
    "AerotechPso",
    "AerotechRotation",
    "Camera",
    "CaptureReading",
    "CaptureRequests",
    "DetectorDriver",
    "EigerDetector",
    "FastShutter",
    "Filter",
    "Filters",
    "FlyAxis",
    "FlyLine",
    "FlyRotation",
    "FrameDetector",
    "FrameSeries",
    "HasSafeState",
    "JungfrauChip",
    "JungfrauDetector",
    "JungfrauGainMode",
    "JungfrauSetting",
    "LeaningSampleStage",
    "LiveQuality",
    "Monochromator",
    "PulseGenerator",
    "PulseSource",
    "RotationStage",
    "SafePut",
    "SampleAxis",
    "SampleStage",
    "StorageRing",
    "Trigger",
    "VortexDetector",
    "VortexMca",
    "beam_suspenders",
    "waits_for_beam",
    "with_beam",
]
