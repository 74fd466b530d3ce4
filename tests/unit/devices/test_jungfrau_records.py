"""A Jungfrau whose IOC lacks the records that older ones lack, each side in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

IOC = """
import asyncio, json, os, sys, time

from apsber_bluesky.core import ImageKey, SimulationSettings, die_with_parent
from apsber_bluesky.simulation._camera import Exposure
from apsber_bluesky.simulation._jungfrau_ioc import JungfrauIoc
from apsber_bluesky.simulation._ports import LoopbackContext, Repeater, reserve_server_port

async def main():
    die_with_parent(os.getppid())
    look = lambda at_s: Exposure(time.time(), 0.0, 0.0, ImageKey.DARK)
    ioc = JungfrauIoc("J:", SimulationSettings(), look)
    await ioc.start()
    channels = {
        name: channel for name, channel in ioc.channels.items()
        if name.removeprefix("J:cam1:").removesuffix("_RBV") not in sys.argv[1:]
    }
    stream, datagram = reserve_server_port(None)
    repeater = await Repeater.start(None)
    context = LoopbackContext(channels, stream, datagram, repeater)
    task = asyncio.ensure_future(context.run())
    await context.serving.wait()
    print(json.dumps({
        "EPICS_CA_ADDR_LIST": "127.0.0.1", "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(context.ca_server_port),
        "EPICS_CA_REPEATER_PORT": str(repeater),
    }), flush=True)
    await task

asyncio.run(main())
"""

CLIENT = """
import json, logging

from apsber_bluesky.core import forgo_real_time

forgo_real_time()

from apsber_bluesky.devices import FrameSeries, JungfrauDetector

warnings = []
handler = logging.Handler()
handler.emit = lambda record: warnings.append(record.getMessage())
logging.getLogger("apsber_bluesky").addHandler(handler)
jungfrau = JungfrauDetector("J:", name="jungfrau", arming_time_s=0.2)
result = {}
try:
    jungfrau.wait_for_connection(timeout=5)
    jungfrau.wait_for_connection(timeout=5)
except TimeoutError as error:
    result["missing"] = str(error)
else:
    series = {t: FrameSeries("u", "primary", 4, 0.002, 0.005, t) for t in ("internal", "step")}
    try:
        jungfrau.check(series["step"])
    except ValueError as error:
        result["step"] = str(error)
    jungfrau.driver.let_flow()
    jungfrau.driver.prepare(series["internal"])
    jungfrau.driver.arm()
    jungfrau.driver.disarm()
    jungfrau.driver._await_idle()
    cam = jungfrau.cam
    result |= {
        "frames": [cam.num_frames.get(), cam.num_cycles.get()],
        "timing": cam.timing_mode.get(),
        "shape": jungfrau.frame_shape,
        "configuration": sorted(jungfrau.read_configuration()),
    }
result["warnings"] = warnings
print("RESULT", json.dumps(result))
"""


@contextmanager
def _serving(without: tuple[str, ...]) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", IOC, *without], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def drive() -> Callable[..., dict[str, object]]:
    def drive(*without: str) -> dict[str, object]:
        with _serving(without) as environment:
            kept = {k: v for k, v in os.environ.items() if not k.startswith("EPICS_")}
            done = subprocess.run(
                [sys.executable, "-c", CLIENT],
                env={**kept, **environment},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout.rpartition("RESULT ")[2])
        assert isinstance(result, dict)
        return result

    return drive


@pytest.mark.timeout(120)
def test_records_that_older_iocs_lack_are_named_once_and_worked_around(drive):
    absent = ("TriggerSoftware", "ReceiverStream", "ReceiverMode", "ReceiverMissedPackets")
    found = drive(*absent)
    assert len(found["warnings"]) == len(absent)
    for record, warning in zip(absent, found["warnings"], strict=True):
        assert f"J:cam1:{record}" in warning
    assert "has no software trigger (J:cam1:TriggerSoftware)" in found["step"]
    assert found["frames"] == [4, 1]
    assert found["timing"] == "auto"
    assert found["shape"] == [128, 128]
    assert "jungfrau_gain_mode" in found["configuration"]


@pytest.mark.timeout(120)
def test_a_record_that_scans_need_makes_the_device_missing(drive):
    found = drive("Command")
    assert "Command" in found["missing"] or "command" in found["missing"]
