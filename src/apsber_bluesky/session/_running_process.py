"""A process that a file in the data root tells of, for commands that look for it."""

from __future__ import annotations

import os
import socket
from typing import Any, Final

import psutil
from pydantic import BaseModel, ConfigDict, PositiveInt

#: A process id may be used again; what the system says of a start varies by less than this [s].
_SAME_START_S: Final = 2.0


class RunningProcess(BaseModel):
    """Which process it is.

    Attributes
    ----------
    host : str
        Computer that it runs on.
    pid : int
        Its process id.
    began_s : float
        When the process began [Unix s].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    host: str
    pid: PositiveInt
    began_s: float

    @staticmethod
    def this() -> dict[str, Any]:
        """What identifies this process."""
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began_s": psutil.Process().create_time(),
        }

    @property
    def is_running(self) -> bool:
        """Whether the process is there still, on this computer."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            same = bool(abs(process.create_time() - self.began_s) < _SAME_START_S)
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False
