"""Work that takes time runs in a thread and reports through an ophyd status."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ophyd.status import Status


def run_in_thread(work: Callable[[], None], owner: Any) -> Status:
    """Run `work` without holding up the RunEngine.

    Parameters
    ----------
    work : callable
        What to do; an exception it raises becomes the status' exception.
    owner : object
        Device that the status belongs to.

    Returns
    -------
    Status
        Finished when `work` has returned.
    """
    status = Status(obj=owner)

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - handed on to whoever waits
            status.set_exception(error)
        else:
            status.set_finished()

    threading.Thread(target=run, name=f"{owner.name}-work", daemon=True).start()
    return status
