"""A run on its way: frames are accumulated as they come, then the stages follow."""

from apsber_bluesky.pipeline._assess import Assess
from apsber_bluesky.pipeline._assess_frames import AssessFrames
from apsber_bluesky.pipeline._context import Findings, RunContext, Stage, VolumeSink
from apsber_bluesky.pipeline._draw_figures import DrawFigures
from apsber_bluesky.pipeline._drawn_labels import (
    DrawnLabels,
    LabelSource,
    LabelSurvey,
    read_drawn_labels,
)
from apsber_bluesky.pipeline._element_maps import ElementMaps, FitSettings
from apsber_bluesky.pipeline._energy_frames import FrameCalibration, JungfrauEnergy
from apsber_bluesky.pipeline._executors import DaskCluster, local_processes, named_executor
from apsber_bluesky.pipeline._followers import FinishFollower, SlabFollower
from apsber_bluesky.pipeline._frame_inference import FrameInference
from apsber_bluesky.pipeline._frame_run import (
    FrameRunPipeline,
    LiveStage,
    PipelineByTechnique,
)
from apsber_bluesky.pipeline._hit_finding import HitFinding
from apsber_bluesky.pipeline._labelled_examples import LabelledExamples, make_labelled_examples
from apsber_bluesky.pipeline._learned_passes import (
    DenoisePass,
    LearnedPass,
    Product,
    SegmentPass,
    VolumeAhead,
)
from apsber_bluesky.pipeline._learned_stages import learned_followers
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.pipeline._noise2inverse import SplitExamples, SplitPlan, make_split_examples
from apsber_bluesky.pipeline._offline import OfflineReport, reconstruct_offline
from apsber_bluesky.pipeline._offline_centre import find_offline_centre, try_centres
from apsber_bluesky.pipeline._offline_estimate import TimeEstimate, estimate_time
from apsber_bluesky.pipeline._offline_job import OfflineJob
from apsber_bluesky.pipeline._offline_models import apply_models, offline_passes
from apsber_bluesky.pipeline._offline_plan import SlabPlan, bytes_read, plan_slabs
from apsber_bluesky.pipeline._offline_preparation import OfflinePreparation
from apsber_bluesky.pipeline._offline_references import References
from apsber_bluesky.pipeline._offline_scan import Scan
from apsber_bluesky.pipeline._offline_slab import SlabResult, SlabTask, reconstruct_slab
from apsber_bluesky.pipeline._offline_tasks import run_tasks
from apsber_bluesky.pipeline._pedestals import MeasurePedestals, PedestalSums
from apsber_bluesky.pipeline._quantify import Quantify
from apsber_bluesky.pipeline._reconstruct import FindCentre, Reconstruct
from apsber_bluesky.pipeline._run_inference import inference_stages
from apsber_bluesky.pipeline._scan_memory import models_bytes, scan_memory_bytes, volume_bytes
from apsber_bluesky.pipeline._series_energies import SeriesEnergies
from apsber_bluesky.pipeline._tomography import TomographyPipeline

__all__ = [
    "Assess",
    "AssessFrames",
    "DaskCluster",
    "DenoisePass",
    "DrawFigures",
    "DrawnLabels",
    "ElementMaps",
    "FindCentre",
    "Findings",
    "FinishFollower",
    "FitSettings",
    "FrameCalibration",
    "FrameInference",
    "FrameRunPipeline",
    "HitFinding",
    "JungfrauEnergy",
    "LabelSource",
    "LabelSurvey",
    "LabelledExamples",
    "LearnedPass",
    "LiveSlices",
    "LiveStage",
    "MeasurePedestals",
    "OfflineJob",
    "OfflinePreparation",
    "OfflineReport",
    "PedestalSums",
    "PipelineByTechnique",
    "Product",
    "Quantify",
    "Reconstruct",
    "References",
    "RunContext",
    "Scan",
    "SegmentPass",
    "SeriesEnergies",
    "SlabFollower",
    "SlabPlan",
    "SlabResult",
    "SlabTask",
    "SplitExamples",
    "SplitPlan",
    "Stage",
    "TimeEstimate",
    "TomographyPipeline",
    "VolumeAhead",
    "VolumeSink",
    "apply_models",
    "bytes_read",
    "estimate_time",
    "find_offline_centre",
    "inference_stages",
    "learned_followers",
    "local_processes",
    "make_labelled_examples",
    "make_split_examples",
    "models_bytes",
    "named_executor",
    "offline_passes",
    "plan_slabs",
    "read_drawn_labels",
    "reconstruct_offline",
    "reconstruct_slab",
    "run_tasks",
    "scan_memory_bytes",
    "try_centres",
    "volume_bytes",
]
