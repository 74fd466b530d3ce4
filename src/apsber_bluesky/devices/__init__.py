"""Classic ophyd devices: camera, rotation stage, shutter, sample axis, storage ring."""

from apsber_bluesky.devices._beamline import FastShutter, SampleAxis, StorageRing
from apsber_bluesky.devices._camera import TomographyCamera
from apsber_bluesky.devices._requests import CameraSeries, FlyRotation
from apsber_bluesky.devices._rotation import PositionOutput, RotationStage

__all__ = [
    "CameraSeries",
    "FastShutter",
    "FlyRotation",
    "PositionOutput",
    "RotationStage",
    "SampleAxis",
    "StorageRing",
    "TomographyCamera",
]
