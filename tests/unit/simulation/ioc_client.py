"""Drives the simulated beamline as ophyd and Bluesky do; prints what it saw as one JSON object.

Run in a process of its own, because Channel Access reads its environment once per process.
Usage: ioc_client.py FOLDER < ready line
"""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from typing import Any

# First of all, for it sets the EPICS environment.
from ioc_tools import (  # isort: split
    CAM,
    FOLDER,
    FRAMES,
    HDF,
    WAIT_S,
    Detector,
    P,
    acquire,
    arm,
    get,
    put,
    wait_for,
)

import bluesky.plans as bp
import epics
import h5py
import numpy as np
from bluesky import RunEngine
from ophyd import DynamicDeviceComponent, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.areadetector.base import EpicsSignalWithRBV
from ophyd.areadetector.cam import SimDetectorCam
from ophyd.areadetector.paths import EpicsPathSignal
from ophyd.areadetector.plugins import HDF5Plugin_V34, ImagePlugin_V34, PvaPlugin_V34
from ophyd.utils import LimitError, UnprimedPlugin
from p4p.client.thread import Context


def motors() -> dict[str, Any]:
    motor = EpicsMotor(f"{P}rot:m1", name="rotation")
    motor.wait_for_connection(timeout=WAIT_S)
    readbacks: list[float] = []
    motor.user_readback.subscribe(lambda value, **_: readbacks.append(value), run=False)
    motor.move(30.0, timeout=WAIT_S)
    seen = {"position": motor.position, "readbacks": sorted(readbacks) == readbacks}
    seen["intermediate"] = sum(0.0 < value < 30.0 for value in readbacks)
    status = motor.set(300.0)
    wait_for(lambda: motor.position > 60.0)
    moving = motor.moving
    motor.stop()
    wait_for(lambda: not motor.moving)
    wait_for(lambda: status.done)
    wait_for(lambda: motor.user_setpoint.get() == motor.user_readback.get())
    seen |= {"moving": moving, "stopped_at": motor.position}
    motor.move(motor.position, timeout=WAIT_S)
    motor.velocity.set(720.0).wait(WAIT_S)
    motor.move(-360.0, timeout=WAIT_S)
    seen |= {"turned_to": motor.position, "velocity": motor.velocity.get()}
    put(f"{P}rot:m1.VELO", -3.0)
    seen["velocity_kept"] = get(f"{P}rot:m1.VELO")
    try:
        motor.move(721.0)
    except LimitError:
        seen["ophyd_refuses"] = True
    put(f"{P}rot:m1.VAL", 721.0)
    names = ("LVIO", "VAL", "RBV", "DMOV")
    seen["refused"] = {name: get(f"{P}rot:m1.{name}") for name in names}
    put(f"{P}rot:m1.VAL", 0.0)
    # The put has completed, so the move has: nothing is awaited here.
    seen["completed"] = {name: get(f"{P}rot:m1.{name}") for name in names}
    put(f"{P}rot:m1.TWV", 2.5)
    put(f"{P}rot:m1.TWF", 1)
    wait_for(lambda: get(f"{P}rot:m1.RBV") == 2.5)
    wait_for(lambda: get(f"{P}rot:m1.DMOV") == 1)
    motor.set_current_position(90.0)
    names = ("RBV", "OFF", "LLM", "HLM", "DRBV")
    seen["redefined"] = {name: get(f"{P}rot:m1.{name}") for name in names}
    motor.set_current_position(2.5)
    put(f"{P}rot:m1.VAL", 0.0)
    put(f"{P}rot:m1.VELO", 60.0)
    seen["record"] = [motor.motor_egu.get(), get(f"{P}rot:m1.DESC")]
    sample = EpicsMotor(f"{P}m2", name="sample_x")
    sample.wait_for_connection(timeout=WAIT_S)
    seen["sample_limits"] = list(sample.limits)
    return seen


def signal_names(prefix: str, device_class: Any) -> set[str]:
    names: set[str] = set()
    for attribute in device_class.component_names:
        component = getattr(device_class, attribute)
        if isinstance(component, DynamicDeviceComponent):
            signals = [(cls, suffix) for cls, suffix, _ in component.defn.values()]
        else:
            signals = [(component.cls, component.suffix)]
        for cls, suffix in signals:
            if issubclass(cls, EpicsSignalWithRBV | EpicsPathSignal):
                names |= {f"{prefix}{suffix}", f"{prefix}{suffix}_RBV"}
            elif issubclass(cls, EpicsSignal | EpicsSignalRO):
                names.add(f"{prefix}{suffix}")
    return names


def records() -> dict[str, Any]:
    """Every signal of the ophyd classes connects (all at once; ophyd would go one by one)."""
    classes = {
        "cam1": SimDetectorCam,
        "image1": ImagePlugin_V34,
        "HDF1": HDF5Plugin_V34,
        "Pva1": PvaPlugin_V34,
    }
    names: set[str] = set()
    for name, device_class in classes.items():
        names |= signal_names(f"{P}cam:{name}:", device_class)
    channels = [epics.PV(name, auto_monitor=False) for name in sorted(names)]
    wait_for(lambda: all(channel.connected for channel in channels))
    put(f"{CAM}AcquireTime", -1.0)
    kept = get(f"{CAM}AcquireTime")
    put(f"{CAM}SizeX", 10)
    put(f"{CAM}Temperature", 21.5)
    return {
        "count": len(channels),
        "exposure_kept": kept,
        "size": [get(f"{CAM}SizeX"), get(f"{CAM}ArraySizeX_RBV"), get(f"{CAM}ArraySizeY_RBV")],
        "temperature": get(f"{CAM}Temperature_RBV"),
        "data_type": get(f"{CAM}DataType_RBV", as_string=True),
        "read_only": epics.PV(f"{CAM}ArraySizeX_RBV", connection_timeout=WAIT_S).write_access,
        "current": get(f"{P}ring:Current"),
        "permit": get(f"{P}ring:Permit"),
    }


def series_of_each_kind() -> dict[str, Any]:
    put(f"{P}cam:ZMQ1:EnableCallbacks", "Enable")
    seen: dict[str, Any] = {"address": get(f"{P}cam:ZMQ1:Address_RBV", as_string=True)}
    put(f"{P}m2.VAL", 0.0)
    acquire(3, 11)
    seen["closed"] = describe(FRAMES.series())
    put(f"{P}shutter:Command", "Open")
    seen["shutter"] = get(f"{P}shutter:Status_RBV", as_string=True)
    put(f"{P}m2.VAL", 5.0)
    acquire(2, 12)
    seen["out"] = describe(FRAMES.series())
    put(f"{P}m2.VAL", 0.0)
    acquire(1, 13)
    seen["in"] = describe(FRAMES.series())
    seen["sent"] = [get(f"{P}cam:ZMQ1:{n}_RBV") for n in ("Sent", "DroppedArrays")]
    return seen


def describe(series: dict[str, Any]) -> dict[str, Any]:
    return {
        "series": series["start"]["series"],
        "announced": series["start"]["num_frames"],
        "ended": series["end"]["num_sent"],
        "numbers": [header["number"] for header, _ in series["frames"]],
        "angles": [header["angle_deg"] for header, _ in series["frames"]],
        "means": [float(pixels.mean()) for _, pixels in series["frames"]],
    }


def go_quickly(angle_deg: float) -> None:
    put(f"{P}rot:m1.VELO", 720.0)
    put(f"{P}rot:m1.VAL", angle_deg)
    put(f"{P}rot:m1.VELO", 60.0)


def flies() -> dict[str, Any]:
    number, seen, pixels = 40, {}, []
    for turn in range(2):
        go_quickly(-4.0)
        acquire(number, 20 + turn, "External", counter=500)
        arm(0.0, 1.0, number)
        put(f"{P}rot:m1.VAL", 44.0)
        series = FRAMES.series()
        wait_for(lambda: get(f"{CAM}Acquire_RBV") == 0)
        pixels.append(np.stack([image for _, image in series["frames"]]))
        seen = describe(series)
    seen["equal"] = bool(np.array_equal(pixels[0], pixels[1]))
    seen["pulses"] = [get(f"{P}rot:pso:{n}_RBV") for n in ("Pulses", "Armed")]
    seen["counter"] = get(f"{CAM}ArrayCounter_RBV")
    seen["missed"] = get(f"{CAM}MissedTriggers_RBV")
    return seen


def flies_backwards_too_fast() -> dict[str, Any]:
    """Exposures of 40 ms at a pulse every 16.7 ms: two of three pulses come too early."""
    put(f"{CAM}AcquireTime", 0.04)
    go_quickly(4.0)
    acquire(30, 30, "External")
    arm(0.0, -1.0, 30)
    put(f"{P}rot:m1.VAL", -35.0)
    wait_for(lambda: get(f"{P}rot:pso:Pulses_RBV") == 30)
    wait_for(lambda: get(f"{CAM}NumImagesCounter_RBV") == 10)
    put(f"{CAM}Acquire", 0)
    series = describe(FRAMES.series())
    put(f"{CAM}AcquireTime", 0.01)
    go_quickly(0.0)
    return series | {"missed": get(f"{CAM}MissedTriggers_RBV")}


def refuses_to_arm() -> dict[str, Any]:
    arm(0.0, 0.0, 10)
    names = {"armed": "Armed_RBV", "arm": "Arm", "message": "Message_RBV"}
    return {key: get(f"{P}rot:pso:{name}") for key, name in names.items()}


def stops_early() -> dict[str, Any]:
    put(f"{CAM}ImageMode", "Continuous")
    put(f"{CAM}TriggerMode", "Internal")
    put(f"{P}cam:ZMQ1:Series", 40)
    epics.caput(f"{CAM}Acquire", 1)
    wait_for(lambda: get(f"{CAM}Acquire_RBV") == 1)
    wait_for(lambda: get(f"{CAM}NumImagesCounter_RBV") >= 3)
    put(f"{CAM}Acquire", 0)
    series = FRAMES.series()
    return {
        "frames": len(series["frames"]),
        "ended": series["end"]["num_sent"],
        "counter": get(f"{CAM}NumImagesCounter_RBV"),
        "acquire": [get(f"{CAM}Acquire"), get(f"{CAM}Acquire_RBV")],
        "state": get(f"{CAM}DetectorState_RBV", as_string=True),
    }


def counts_through_the_run_engine() -> dict[str, Any]:
    put(f"{P}cam:ZMQ1:EnableCallbacks", "Disable")
    put(f"{CAM}ImageMode", "Multiple")
    put(f"{CAM}AcquireTime", 0.02)
    put(f"{CAM}AcquirePeriod", 0.02)
    detector = Detector(f"{P}cam:", name="detector")
    detector.wait_for_connection(timeout=WAIT_S)
    detector.validate_asyn_ports()
    detector.read_attrs = ["hdf1"]
    detector.cam.stage_sigs |= {"num_images": 2, "trigger_mode": "Internal"}
    detector.hdf1.stage_sigs.move_to_end("capture", last=True)
    seen: dict[str, Any] = {}
    try:
        detector.hdf1.stage()
    except UnprimedPlugin:
        seen["unprimed"] = True
    put(f"{HDF}EnableCallbacks", "Enable")
    put(f"{CAM}Acquire", 1)
    documents: list[tuple[str, dict[str, Any]]] = []
    engine = RunEngine({})
    engine(bp.count([detector], num=3), lambda name, document: documents.append((name, document)))
    file_name = detector.hdf1.full_file_name.get()
    with h5py.File(file_name) as file:
        data = file["entry/data/data"]
        ids = file["entry/instrument/NDAttributes/NDArrayUniqueId"][()]
        seen |= {
            "shape": list(data.shape),
            "chunks": list(data.chunks),
            "dtype": data.dtype.str,
            "ids": [int(i - ids[0]) for i in ids],
            "angles": file["entry/NDAttributes/RotAngle"][()].tolist(),
        }
        last = data[-1]
    seen["documents"] = [name for name, _ in documents]
    [descriptor] = [document for name, document in documents if name == "descriptor"]
    key = descriptor["data_keys"]["detector_image"]
    seen["described"] = [list(key["shape"]), key["dtype_numpy"]]

    def image_is_last() -> bool:
        # Not the monitor's copy, which may be an update behind.
        image = detector.image.array_data.get(use_monitor=False)
        return bool(np.array_equal(image, last.ravel()))

    wait_for(image_is_last)
    seen["image_is_last"] = image_is_last()
    return seen | {"state": get(f"{HDF}Capture_RBV"), "file": file_name}


def writes_files_in_the_other_modes() -> dict[str, Any]:
    seen: dict[str, Any] = {}
    put(f"{HDF}EnableCallbacks", "Enable")
    put(f"{HDF}FilePath", str(FOLDER / "new" / "deep"))
    seen["not_there"] = get(f"{HDF}FilePathExists_RBV")
    put(f"{HDF}CreateDirectory", -2)
    put(f"{HDF}FilePath", str(FOLDER / "new" / "deep"))
    seen["created"] = get(f"{HDF}FilePathExists_RBV")
    put(f"{HDF}FileName", "single")
    put(f"{HDF}FileNumber", 0)
    put(f"{HDF}AutoSave", "Yes")
    put(f"{HDF}FileWriteMode", "Single")
    acquire(3, 0)
    seen["single"] = lengths("single")
    put(f"{HDF}FileName", "capture")
    put(f"{HDF}AutoSave", "No")
    put(f"{HDF}FileWriteMode", "Capture")
    put(f"{HDF}NumCapture", 2)
    epics.caput(f"{HDF}Capture", 1)
    wait_for(lambda: get(f"{HDF}Capture_RBV") == 1)
    acquire(4, 0)
    seen["captured"] = [get(f"{HDF}NumCaptured_RBV"), get(f"{HDF}Capture_RBV")]
    seen["before_write"] = lengths("capture")
    put(f"{HDF}WriteFile", 1)
    seen["after_write"] = lengths("capture")
    put(f"{HDF}FilePath", str(FOLDER / "single_file" / "nowhere" / "at" / "all"))
    put(f"{HDF}FileWriteMode", "Stream")
    put(f"{HDF}Capture", 1)
    seen["bad_folder"] = [
        get(f"{HDF}WriteStatus", as_string=True),
        get(f"{HDF}WriteMessage", as_string=True),
        get(f"{HDF}Capture_RBV"),
    ]
    put(f"{HDF}EnableCallbacks", "Disable")
    return seen


def lengths(stem: str) -> list[int]:
    found = []
    for path in sorted((FOLDER / "new" / "deep").glob(f"{stem}_*.h5")):
        with h5py.File(path) as file:
            found.append(len(file["entry/data/data"]))
    return found


def serves_pv_access() -> dict[str, Any]:
    received: list[Any] = []
    with Context("pva", nt=False) as context:
        first = threading.Event()

        def keep(value: Any) -> None:
            received.append(value)
            first.set()

        with context.monitor(f"{P}cam:Pva1:Image", keep):
            if not first.wait(WAIT_S):
                raise TimeoutError("no NTNDArray")
            put(f"{P}rot:m1.VAL", 12.5)
            acquire(1, 0, counter=700)
            wait_for(lambda: received[-1]["uniqueId"] == 701)
    value = received[-1]
    attributes = {item["name"]: item["value"] for item in value["attribute"]}
    image = get(f"{P}cam:image1:ArrayData")
    return {
        "angle": attributes["RotAngle"],
        "kind": attributes["ImageKey"],
        "dimensions": [item["size"] for item in value["dimension"]],
        "recent": abs(time.time() - value["timeStamp"]["secondsPastEpoch"]) < 60,
        "same_as_image1": bool(np.array_equal(image, value["value"])),
    }


def main() -> None:
    sections = (
        motors,
        records,
        series_of_each_kind,
        flies,
        flies_backwards_too_fast,
        refuses_to_arm,
        stops_early,
        counts_through_the_run_engine,
        writes_files_in_the_other_modes,
        serves_pv_access,
    )
    results: dict[str, Any] = {}
    for section in sections:
        begin = time.monotonic()
        try:
            results[section.__name__] = section()
        except Exception:  # noqa: BLE001 - the tests report it, section by section
            results[section.__name__] = {"failed": traceback.format_exc()}
        print(f"{section.__name__}: {time.monotonic() - begin:.2f} s", file=sys.stderr)
    print(json.dumps(results))


main()
