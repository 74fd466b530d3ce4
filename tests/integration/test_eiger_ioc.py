"""The simulated EIGER, driven through its records, its stream read as the receiver reads it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import zmq

from apsber_bluesky.core import FrameError, ImageKey, SimulationSettings
from apsber_bluesky.simulation._camera import Exposure
from apsber_bluesky.simulation._channels import LongText
from apsber_bluesky.simulation._eiger_ioc import EigerIoc
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.streaming._cbor import parse_cbor
from apsber_bluesky.streaming._codecs import decode
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

pytestmark = pytest.mark.timeout(60)

ROWS, COLUMNS = 48, 56
INTERNAL = {"TriggerMode": "Internal Series", "ManualTrigger": "Disable"}
SOFTWARE = {"TriggerMode": "Internal Series", "ManualTrigger": "Enable", "NumImages": 1}


class Bench:
    """An EIGER whose stream somebody pulls."""

    def __init__(self, generation: Any, kind: ImageKey, **more: Any) -> None:
        self.kind = kind
        settings = SimulationSettings(energy_keV=12.0, dead_pixel_fraction=0.01)
        self.ioc = EigerIoc(
            "T:", settings, self._look, generation=generation, rows=ROWS, columns=COLUMNS, **more
        )
        self.version = generation
        self.context = zmq.Context()
        self.port = self.context.socket(zmq.PULL)
        self.raw: list[list[bytes]] = []

    def _look(self, at_s: float) -> Exposure:
        return Exposure(time.time() + at_s - time.monotonic(), 7.0, 0.0, self.kind)

    async def put(self, **values: Any) -> None:
        """Write to records as a client does; returns when the puts have completed."""
        for name, value in values.items():
            channel = self.ioc.at(name)
            if isinstance(channel, LongText):
                value = array.array("B", value.encode())
            await channel.auth_write("host", "user", value, channel.data_type, None)

    def get(self, name: str) -> Any:
        return self.ioc.at(name).value

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)

    async def armed(self, **settings: Any) -> asyncio.Task[None]:
        """Start an acquisition and wait until the detector is armed."""
        await self.put(StreamEnable="Enable", **settings)
        before = self.get("SequenceId")
        acquisition = asyncio.ensure_future(self.put(Acquire="Acquire"))
        await self.until(lambda: self.get("SequenceId") != before)
        return acquisition

    def pulses(self, *times_s: float) -> None:
        now = time.monotonic()
        self.ioc.trigger([Pulse(i, now + at_s, 30.0 + i) for i, at_s in enumerate(times_s)])

    async def stream(self) -> list[Any]:
        """What the reader makes of the stream up to the next end of a series."""
        reader: Any = EigerStream2Reader() if self.version == 2 else EigerStream1Reader()
        messages: list[Any] = []
        while not (messages and isinstance(messages[-1], SeriesEnd)):
            await self.until(lambda: bool(self.port.poll(0)))
            parts = self.port.recv_multipart()
            self.raw.append(parts)
            messages += reader.read(parts)
        return messages

    def header(self) -> dict[str, Any]:
        """The first message that was read, of Stream V2."""
        found = parse_cbor(self.raw[0][0])
        assert isinstance(found, dict)
        return found


@contextlib.asynccontextmanager
async def bench(
    generation: Any = 2,
    kind: ImageKey = ImageKey.PROJECTION,
    *,
    pulled: bool = True,
    **more: Any,
) -> AsyncIterator[Bench]:
    made = Bench(generation, kind, **more)
    await made.ioc.start()
    if pulled:
        made.port.connect(made.ioc.ready["frame_address"])
    await made.put(StreamHdrDetail="Basic")
    if generation == 2:
        await made.put(StreamVersion="Stream2")
    try:
        yield made
    finally:
        await made.ioc.close()
        made.port.close(0)
        made.context.term()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def numbers(messages: list[Any]) -> list[int]:
    return [message.number for message in messages if isinstance(message, Frame)]


def pixels(frame: Frame, dtype: str = "<u4") -> np.ndarray:
    return decode(frame.pixels, frame.codec, rows=ROWS, columns=COLUMNS, dtype=dtype)


@pytest.mark.parametrize("generation", [1, 2])
def test_a_series_of_the_detectors_own_clock_streams_from_header_to_end(generation):
    async def test() -> None:
        async with bench(generation) as b:
            settings = {"AcquireTime": 0.01, "AcquirePeriod": 0.02, "NumImages": 4}
            acquisition = await b.armed(**INTERNAL, **settings)
            messages = await b.stream()
            await acquisition
            channels = ("threshold_1",) if generation == 2 else ("",)
            assert messages[0] == SeriesStart(1, 4, ROWS, COLUMNS, "<u4", channels)
            assert numbers(messages) == [0, 1, 2, 3]
            stamps = [m.timestamp_s for m in messages[1:-1]]
            np.testing.assert_allclose(np.diff(stamps), 0.02, atol=2e-3)
            assert [b.get(n) for n in ("Armed", "Acquire", "DetectorState_RBV", "State_RBV")] == [
                "Unarmed", "Done", "Idle", "idle",
            ]  # fmt: skip

    run(test())


def test_the_header_says_what_the_records_say():
    async def test() -> None:
        async with bench() as b:
            told = {"PhotonEnergy": 9000.0, "DetDist": 0.25, "BeamX": 12.5, "BeamY": 30.25}
            acquisition = await b.armed(
                **INTERNAL, **told, NumImages=1, AcquireTime=0.02, StreamHdrAppendix="leaf 3"
            )
            await b.stream()
            await acquisition
            header = b.header()
            assert header["incident_energy"] == 9000.0
            assert header["incident_wavelength"] == pytest.approx(1.3776, abs=1e-4)
            assert header["threshold_energy"] == {"threshold_1": 4500.0}
            assert header["detector_translation"] == [0.0, 0.0, 0.25]
            assert (header["beam_center_x"], header["beam_center_y"]) == (12.5, 30.25)
            assert header["count_time"] == 0.02
            assert header["user_data"] == "leaf 3"
            assert header["detector_description"] == b.get("Description_RBV")

    run(test())


def test_series_are_numbered_one_after_the_other():
    async def test() -> None:
        async with bench() as b:
            for number in (1, 2, 3):
                acquisition = await b.armed(**INTERNAL, NumImages=1, AcquireTime=0.01)
                assert (await b.stream())[0].series == number
                await acquisition
                assert b.get("SequenceId") == number

    run(test())


def test_software_triggers_take_one_image_each_of_one_series():
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(**SOFTWARE, NumTriggers=3, AcquireTime=0.01)
            assert not acquisition.done()
            for _ in range(3):
                await asyncio.sleep(0.05)
                await b.put(Trigger=1)
            messages = await b.stream()
            await acquisition
            assert messages[0].num_frames == 3
            assert numbers(messages) == [0, 1, 2]

    run(test())


def test_a_trigger_before_arming_does_not_count():
    async def test() -> None:
        async with bench() as b:
            await b.put(Trigger=1)
            acquisition = await b.armed(**SOFTWARE, NumTriggers=1, AcquireTime=0.01)
            await asyncio.sleep(0.1)
            assert not acquisition.done()
            await b.put(Trigger=1)
            await acquisition

    run(test())


def test_internal_enable_takes_the_exposure_time_of_each_trigger():
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(
                TriggerMode="Internal Enable", ManualTrigger="Enable", NumTriggers=2,
                AcquireTime=0.02,
            )  # fmt: skip
            assert b.get("NumImages_RBV") == 1
            await b.put(Trigger=1)
            await asyncio.sleep(0.1)
            await b.put(AcquireTime=0.2)
            await b.put(Trigger=1)
            short, long = (pixels(m) for m in (await b.stream())[1:-1])
            await acquisition
            seen = b.ioc._sensor.mask == 0
            assert long[seen].sum() == pytest.approx(10 * short[seen].sum(), rel=0.05)

    run(test())


@pytest.mark.parametrize(
    ("mode", "images", "triggers", "times_s"),
    [
        ("External Series", 1, 4, (0.0, 0.03, 0.06, 0.09)),
        ("External Series", 4, 1, (0.0,)),
        ("External Series", 2, 2, (0.0, 0.06)),
        ("External Enable", 1, 4, (0.0, 0.03, 0.06, 0.09)),
    ],
)
def test_pulses_start_exposures(mode, images, triggers, times_s):
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(
                TriggerMode=mode, NumImages=images, NumTriggers=triggers,
                AcquireTime=0.02, AcquirePeriod=0.025,
            )  # fmt: skip
            b.pulses(*times_s)
            messages = await b.stream()
            await acquisition
            assert numbers(messages) == [0, 1, 2, 3]
            stamps = np.array([m.timestamp_s for m in messages[1:-1]])
            starts = [t + 0.025 * i for t in times_s for i in range(images)]
            np.testing.assert_allclose(stamps - stamps[0], starts, atol=2e-3)

    run(test())


def test_a_pulse_that_comes_while_it_exposes_is_ignored():
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(
                TriggerMode="External Series", NumImages=1, NumTriggers=3, AcquireTime=0.02
            )
            b.pulses(0.0, 0.01, 0.03, 0.06)
            stamps = np.array([m.timestamp_s for m in (await b.stream())[1:-1]])
            await acquisition
            np.testing.assert_allclose(stamps - stamps[0], [0.0, 0.03, 0.06], atol=2e-3)

    run(test())


def test_an_abort_ends_the_series_on_the_wire_and_disarms():
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(
                TriggerMode="External Series", NumImages=1, NumTriggers=10, AcquireTime=0.01
            )
            b.pulses(0.0, 0.02)
            await asyncio.sleep(0.2)
            await b.put(Acquire="Done")
            assert numbers(await b.stream()) == [0, 1]
            await acquisition
            assert b.get("Armed") == "Unarmed"
            assert b.get("DetectorState_RBV") == "Aborted"

    run(test())


def test_images_that_are_lost_leave_gaps_and_are_counted_when_asked_for():
    async def test() -> None:
        async with bench() as b:
            await b.put(SimulateLoss="1, 3")
            acquisition = await b.armed(**INTERNAL, NumImages=5, AcquireTime=0.01)
            assert numbers(await b.stream()) == [0, 2, 4]
            await acquisition
            assert b.get("StreamDropped_RBV") == 0
            await b.put(ReadStatus="Read")
            assert b.get("StreamDropped_RBV") == 2

    run(test())


def test_images_that_nobody_takes_fill_the_memory_and_are_dropped():
    async def test() -> None:
        async with bench(pulled=False) as b:
            port = b.ioc._ports[2]
            port._capacity = 3
            acquisition = await b.armed(**INTERNAL, NumImages=12, AcquireTime=0.01)
            await acquisition
            b.port.connect(b.ioc.ready["frame_address"])
            kept = numbers(await b.stream())
            await b.put(ReadStatus="Read")
            dropped = b.get("StreamDropped_RBV")
            assert 0 < dropped == 12 - len(kept)
            assert kept == list(range(len(kept)))

    run(test())


def test_a_detector_without_power_does_not_arm_until_it_is_initialised():
    async def test() -> None:
        async with bench() as b:
            await b.put(SimulatePowerCut=1)
            assert b.get("State_RBV") == "na"
            await b.put(**INTERNAL, NumImages=1, AcquireTime=0.01, StreamEnable="Enable")
            await b.put(Acquire="Acquire")
            assert b.get("DetectorState_RBV") == "Error"
            assert b.get("StatusMessage_RBV") == "Failed to arm the detector"
            await b.put(Initialize="Initialize")
            assert b.get("State_RBV") == "idle"
            await b.put(Acquire="Acquire")
            assert numbers(await b.stream()) == [0]

    run(test())


def test_nothing_is_streamed_while_the_stream_is_disabled():
    async def test() -> None:
        async with bench() as b:
            await b.put(**INTERNAL, NumImages=2, AcquireTime=0.01, StreamEnable="Disable")
            await b.put(Acquire="Acquire")
            assert not b.port.poll(200)
            await b.put(DataSource="Stream")
            await b.put(Acquire="Acquire")
            assert b.get("StatusMessage_RBV") == "Stream API is disabled"

    run(test())


def test_an_image_has_gaps_dead_pixels_and_spots_where_its_mask_has_none():
    async def test() -> None:
        async with bench(distance_mm=60.0) as b:
            acquisition = await b.armed(
                **INTERNAL, NumImages=1, AcquireTime=0.1, StreamHdrDetail="All"
            )
            image = pixels((await b.stream())[1])
            await acquisition
            mask = np.frombuffer(
                b.header()["pixel_mask"]["threshold_1"].value[1].value, "<u4"
            ).reshape(ROWS, COLUMNS)
            assert ((image == 2**32 - 1) == ((mask & 1) != 0)).all()
            assert ((image == 2**32 - 2) == ((mask & 2) != 0)).all()
            assert mask[:, 27:29].all()
            assert mask[23:25].all()
            assert 5 < (mask == 2).sum() < 80
            assert image[mask == 0].max() > 100
            number = (1, 0)
            expected = b.ioc._sensor._diffraction.photons(7.0, number=number, exposure_s=0.1)
            assert (image[mask == 0] == expected[mask == 0]).all()

    run(test())


def test_thresholds_count_only_photons_above_them():
    async def test() -> None:
        async with bench() as b:
            on = dict.fromkeys(("Threshold2Enable", "ThresholdDiffEnable"), "Enable")
            acquisition = await b.armed(
                **INTERNAL, **on, NumImages=1, AcquireTime=0.1, Threshold2Energy=13_000.0
            )
            messages = await b.stream()
            await acquisition
            assert messages[0].channels == ("threshold_1", "threshold_2", "difference")
            good = b.ioc._sensor.mask == 0
            first, second, difference = (pixels(m)[good] for m in messages[1:-1])
            assert first.sum() > 1000
            assert not second.any()
            assert (difference == first).all()

    run(test())


@pytest.mark.parametrize(
    ("exposure_s", "period_s", "dtype"),
    [(0.02, 0.02, "<u4"), (0.005, 0.005, "<u2"), (1e-4, 2e-4, "|u1")],
)
def test_the_exposure_time_decides_the_type_of_the_pixels(exposure_s, period_s, dtype):
    async def test() -> None:
        async with bench() as b:
            acquisition = await b.armed(
                **INTERNAL, NumImages=1, AcquireTime=exposure_s, AcquirePeriod=period_s
            )
            start, frame, _ = await b.stream()
            await acquisition
            assert start.dtype == dtype
            assert b.get("BitDepthImage_RBV") == 8 * np.dtype(dtype).itemsize
            assert pixels(frame, dtype).max() == np.iinfo(dtype).max

    run(test())


def test_times_energies_and_wavelength_follow_each_other():
    async def test() -> None:
        async with bench() as b:
            await b.put(AcquirePeriod=0.05)
            await b.put(AcquireTime=0.2)
            assert b.get("AcquirePeriod_RBV") == pytest.approx(0.2, abs=1e-5)
            await b.put(AcquirePeriod=0.1)
            assert b.get("AcquireTime_RBV") == pytest.approx(0.1, abs=1e-5)
            await b.put(Wavelength=1.0)
            assert b.get("PhotonEnergy_RBV") == pytest.approx(12_398.42, abs=0.01)
            assert b.get("ThresholdEnergy_RBV") == pytest.approx(6_199.21, abs=0.01)
            await b.put(PhotonEnergy=1e6)
            assert b.get("PhotonEnergy_RBV") == 40_000.0
            await b.put(AcquireTime=-1.0)
            assert b.get("AcquireTime") == b.get("AcquireTime_RBV") > 0

    run(test())


def test_the_shutter_keeps_photons_out():
    async def test() -> None:
        async with bench(kind=ImageKey.DARK) as b:
            acquisition = await b.armed(**INTERNAL, NumImages=1, AcquireTime=0.1)
            image = pixels((await b.stream())[1])
            await acquisition
            assert not image[b.ioc._sensor.mask == 0].any()

    run(test())


def test_an_eiger_of_the_first_generation_lacks_what_its_ioc_lacks():
    async def test() -> None:
        async with bench(1) as b:
            names = {name.removeprefix("T:cam1:") for name in b.ioc.channels}
            assert not names & {"StreamVersion", "Threshold2Energy", "TriggerExposure", "HVReset"}
            assert {"FWClear", "DCUBufferFree_RBV", "Link3_RBV"} <= names
            # The two generations list the details of the header in another order.
            assert b.ioc.at("StreamHdrDetail").enum_strings == ("All", "Basic", "None")
        async with bench(2) as b:
            names = {name.removeprefix("T:cam1:") for name in b.ioc.channels}
            assert not names & {"FWClear", "TriggerExposure", "Link0_RBV"}
            assert b.ioc.at("StreamHdrDetail").enum_strings == ("None", "Basic", "All")

    run(test())


def test_an_eiger2_speaks_the_legacy_stream_when_told_to():
    async def test() -> None:
        async with bench(pulled=False) as b:
            b.port.connect(b.ioc.ready["legacy_address"])
            b.version = 1
            acquisition = await b.armed(
                **INTERNAL, NumImages=2, AcquireTime=0.01, StreamVersion="Stream"
            )
            assert numbers(await b.stream()) == [0, 1]
            await acquisition
            with pytest.raises(FrameError):
                EigerStream2Reader().read(b.raw[0])

    run(test())
