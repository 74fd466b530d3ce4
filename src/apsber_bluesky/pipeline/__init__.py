"""A run on its way: frames are accumulated as they come, then the stages follow."""

from apsber_bluesky.pipeline._assess import ORTHO_SLICES_NAME, Assess, DrawFigures
from apsber_bluesky.pipeline._context import Findings, RunContext, Stage, VolumeSink
from apsber_bluesky.pipeline._element_maps import ElementMaps, FitSettings
from apsber_bluesky.pipeline._energy_frames import FrameCalibration, JungfrauEnergy
from apsber_bluesky.pipeline._executors import DaskCluster, local_processes, named_executor
from apsber_bluesky.pipeline._frame_run import (
    FrameRunPipeline,
    LiveStage,
    PipelineByTechnique,
)
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.pipeline._offline import OfflineReport, reconstruct_offline
from apsber_bluesky.pipeline._offline_centre import find_offline_centre, try_centres
from apsber_bluesky.pipeline._offline_estimate import TimeEstimate, estimate_time
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_plan import SlabPlan, bytes_read, plan_slabs
from apsber_bluesky.pipeline._offline_preparation import OfflinePreparation
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_scan import Scan
from apsber_bluesky.pipeline._offline_slab import SlabResult, SlabTask, reconstruct_slab
from apsber_bluesky.pipeline._offline_tasks import run_tasks
from apsber_bluesky.pipeline._pedestals import MeasurePedestals, PedestalSums
from apsber_bluesky.pipeline._reconstruct import FindCentre, Reconstruct
from apsber_bluesky.pipeline._scan_memory import scan_memory_bytes, volume_bytes
from apsber_bluesky.pipeline._series_energies import SeriesEnergies
from apsber_bluesky.pipeline._tomography import TomographyPipeline

__all__ = [
    "ORTHO_SLICES_NAME",
    "Assess",
    "DaskCluster",
    "DrawFigures",
    "ElementMaps",
    "FindCentre",
    "Findings",
    "FitSettings",
    "FrameCalibration",
    "FrameRunPipeline",
    "JungfrauEnergy",
    "LiveSlices",
    "LiveStage",
    "MeasurePedestals",
    "OfflineJob",
    "OfflinePreparation",
    "OfflineReport",
    "PedestalSums",
    "PipelineByTechnique",
    "Reconstruct",
    "References",
    "RunContext",
    "Scan",
    "SeriesEnergies",
    "SlabPlan",
    "SlabResult",
    "SlabTask",
    "Stage",
    "TimeEstimate",
    "TomographyPipeline",
    "VolumeSink",
    "bytes_read",
    "estimate_time",
    "find_offline_centre",
    "local_processes",
    "named_executor",
    "plan_slabs",
    "reconstruct_offline",
    "reconstruct_slab",
    "run_tasks",
    "scan_memory_bytes",
    "try_centres",
    "volume_bytes",
]
