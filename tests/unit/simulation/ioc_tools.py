"""What `ioc_client.py` drives the simulated beamline with: devices, puts and gets, the frame port.

Importing it reads the ready line from standard input and sets the EPICS environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

READY = json.loads(sys.stdin.read())
FOLDER = Path(sys.argv[1])
os.environ.update(READY["environment"])

from apsber_bluesky.core import forgo_real_time  # noqa: E402

forgo_real_time()

import epics  # noqa: E402
import msgpack  # noqa: E402
import numpy as np  # noqa: E402
import zmq  # noqa: E402
from ophyd import (  # noqa: E402
    Component,
    SingleTrigger,
)
from ophyd.areadetector import DetectorBase  # noqa: E402
from ophyd.areadetector.cam import SimDetectorCam  # noqa: E402
from ophyd.areadetector.filestore_mixins import FileStoreHDF5IterativeWrite  # noqa: E402
from ophyd.areadetector.plugins import (  # noqa: E402
    HDF5Plugin_V34,
    ImagePlugin_V34,
    PvaPlugin_V34,
)

P = READY["prefix"]
CAM = f"{P}cam:cam1:"
HDF = f"{P}cam:HDF1:"
WAIT_S = 30.0


class FilePlugin(HDF5Plugin_V34, FileStoreHDF5IterativeWrite):
    pass


class Detector(SingleTrigger, DetectorBase):
    cam = Component(SimDetectorCam, "cam1:")
    image = Component(ImagePlugin_V34, "image1:")
    hdf1 = Component(FilePlugin, "HDF1:", write_path_template=str(FOLDER))
    pva = Component(PvaPlugin_V34, "Pva1:")

    def trigger(self) -> Any:
        super_status = self._status_type(self)
        self._status = super_status
        self._acquisition_signal.put(1, wait=False)
        self.generate_datum(self._image_name, time.time(), {})
        return super_status


def put(name: str, value: Any) -> None:
    if epics.caput(name, value, wait=True, timeout=WAIT_S) != 1:
        raise TimeoutError(f"the put of {value!r} to {name} did not complete")


def get(name: str, **kind: Any) -> Any:
    return epics.caget(name, timeout=WAIT_S, use_monitor=False, **kind)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.005)


class Frames:
    """A plain ZMQ PULL socket on the frame port."""

    def __init__(self) -> None:
        self.socket = zmq.Context.instance().socket(zmq.PULL)
        self.socket.connect(READY["frame_address"])

    def series(self) -> dict[str, Any]:
        """The next series, from its start to its end message."""
        series: dict[str, Any] = {"frames": []}
        while True:
            if not self.socket.poll(WAIT_S * 1000):
                raise TimeoutError("no message on the frame port")
            parts = self.socket.recv_multipart()
            header = msgpack.unpackb(parts[0])
            if header["type"] == "frame":
                pixels = np.frombuffer(parts[1], READY["dtype"])
                series["frames"].append((header, pixels.reshape(READY["rows"], READY["columns"])))
                continue
            series[header["type"]] = header
            if header["type"] == "end":
                return series


FRAMES = Frames()


def acquire(number: int, series: int, mode: str = "Internal", counter: int | None = None) -> None:
    put(f"{CAM}ImageMode", "Multiple")
    put(f"{CAM}NumImages", number)
    put(f"{CAM}TriggerMode", mode)
    put(f"{P}cam:ZMQ1:Series", series)
    if counter is not None:
        put(f"{CAM}ArrayCounter", counter)
    if mode == "Internal":
        put(f"{CAM}Acquire", 1)
        return
    epics.caput(f"{CAM}Acquire", 1)
    wait_for(lambda: get(f"{CAM}Acquire_RBV") == 1)


def arm(start: float, delta: float, number: int) -> None:
    put(f"{P}rot:pso:Start", start)
    put(f"{P}rot:pso:Delta", delta)
    put(f"{P}rot:pso:NumPulses", number)
    put(f"{P}rot:pso:Arm", 1)
