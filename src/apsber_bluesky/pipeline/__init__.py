"""A run on its way: frames are accumulated as they come, then the stages follow."""

from apsber_bluesky.pipeline._assess import ORTHO_SLICES_NAME, Assess, DrawFigures
from apsber_bluesky.pipeline._context import Findings, RunContext, Stage, VolumeSink
from apsber_bluesky.pipeline._energy_frames import FrameCalibration, JungfrauEnergy
from apsber_bluesky.pipeline._reconstruct import FindCentre, Reconstruct
from apsber_bluesky.pipeline._tomography import TomographyPipeline

__all__ = [
    "ORTHO_SLICES_NAME",
    "Assess",
    "DrawFigures",
    "FindCentre",
    "Findings",
    "FrameCalibration",
    "JungfrauEnergy",
    "Reconstruct",
    "RunContext",
    "Stage",
    "TomographyPipeline",
    "VolumeSink",
]
