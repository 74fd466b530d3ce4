"""The command line: ``apsber``."""

from apsber_bluesky.cli._app import app, main

__all__ = ["app", "main"]
