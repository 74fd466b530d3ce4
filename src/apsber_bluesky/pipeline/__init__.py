"""A run on its way: frames are accumulated as they come, then the stages follow."""

from apsber_bluesky.pipeline._assess import ORTHO_SLICES_NAME, Assess, DrawFigures
from apsber_bluesky.pipeline._context import Findings, RunContext, Stage, VolumeSink
from apsber_bluesky.pipeline._energy_frames import FrameCalibration, JungfrauEnergy
from apsber_bluesky.pipeline._executors import DaskCluster, local_processes, named_executor
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.pipeline._offline import OfflineReport, reconstruct_offline
from apsber_bluesky.pipeline._offline_centre import find_offline_centre, try_centres
from apsber_bluesky.pipeline._offline_estimate import TimeEstimate, estimate_time
from apsber_bluesky.pipeline._offline_job import OfflineJob, References, Scan
from apsber_bluesky.pipeline._offline_plan import SlabPlan, bytes_read, plan_slabs
from apsber_bluesky.pipeline._offline_slab import SlabResult, SlabTask, reconstruct_slab
from apsber_bluesky.pipeline._offline_tasks import run_tasks
from apsber_bluesky.pipeline._reconstruct import FindCentre, Reconstruct
from apsber_bluesky.pipeline._tomography import TomographyPipeline

__all__ = [
    "ORTHO_SLICES_NAME",
    "Assess",
    "DaskCluster",
    "DrawFigures",
    "FindCentre",
    "Findings",
    "FrameCalibration",
    "JungfrauEnergy",
    "LiveSlices",
    "OfflineJob",
    "OfflineReport",
    "Reconstruct",
    "References",
    "RunContext",
    "Scan",
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
    "try_centres",
]
