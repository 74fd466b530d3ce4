"""The process of queueserver's RE manager."""

from __future__ import annotations

import json
import os
import sys

from apsber_bluesky.core import begin_service, die_with_parent


def main() -> int:
    """Run the RE manager until a client stops it, or SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``config`` (file for
    ``start-re-manager --config``) and ``environment`` (of the worker). That this process says it
    is ready means only that the manager is about to start.
    """
    settings, _ = begin_service()
    os.environ.update(settings["environment"])
    # The manager forks itself and the worker, and the kernel forgets the wish to end with the
    # parent at a fork.
    os.register_at_fork(after_in_child=lambda: die_with_parent(os.getppid()))
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201
    # What the manager prints belongs to the log; nobody reads the pipe after the ready line.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.argv = ["start-re-manager", "--config", settings["config"]]
    from bluesky_queueserver.manager.start_manager import start_manager

    return int(start_manager() or 0)
