"""Runs as people look at them: a report, Jupyter, napari."""

from apsber_bluesky.viewers._half_blocks import half_blocks
from apsber_bluesky.viewers._open_run import open_run
from apsber_bluesky.viewers._run_image import IMAGE_NAMES, RunImage
from apsber_bluesky.viewers._run_report import report_of
from apsber_bluesky.viewers._run_source import FolderSource, RunSource
from apsber_bluesky.viewers._run_view import RunView
from apsber_bluesky.viewers._slice_browser import SliceBrowser, browse_slices
from apsber_bluesky.viewers._tiled_source import TiledSource

__all__ = [
    "IMAGE_NAMES",
    "FolderSource",
    "RunImage",
    "RunSource",
    "RunView",
    "SliceBrowser",
    "TiledSource",
    "browse_slices",
    "half_blocks",
    "open_run",
    "report_of",
]
