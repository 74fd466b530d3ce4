"""The live web page: runs, slices, frames and verdicts, to be looked at from anywhere."""

from apsber_bluesky.dashboard._server import Dashboard

__all__ = ["Dashboard"]
