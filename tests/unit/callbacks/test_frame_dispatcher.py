"""From documents to frame references."""

from __future__ import annotations

import copy
import logging

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from event_model import DocumentNames, schema_validators
from ophyd.sim import det, motor

from apsber_bluesky.callbacks import FrameDispatcher, RunWatcher
from apsber_bluesky.core import FrameRange, InputError, RunDescription
from apsber_bluesky.streaming import RingOrFileSource


class Consumer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def begin_run(self, run: RunDescription) -> None:
        self.calls.append(("begin", run))

    def frames(self, frames: FrameRange) -> None:
        self.calls.append(("frames", frames))

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        self.calls.append(("capture", run_uid, start, stop))

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        self.calls.append(("end", run_uid, exit_status, reason))

    @property
    def ranges(self) -> list[tuple[str, int, int]]:
        frames = [call[1] for call in self.calls if call[0] == "frames"]
        return [(one.stream, one.start, one.stop) for one in frames]


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def dispatcher(consumer):
    return FrameDispatcher([consumer])


ALL = [
    ("darks", 0, 2),
    ("flats", 0, 2),
    ("primary", 0, 3),
    ("primary", 3, 6),
    ("flats", 2, 4),
]


def test_every_frame_of_a_run_is_announced_once_with_where_it_lies(
    engine, flyer, scan, consumer, dispatcher, tmp_path
):
    engine.subscribe(dispatcher)
    (uid,) = engine(scan.plan(flyer, scan.metadata()))
    begin, *frames, end = consumer.calls
    run = begin[1]
    assert (run.uid, run.sample, run.proposal) == (uid, "root", "GUP-7")
    assert run.scan.num_projections == 6
    assert consumer.ranges == ALL
    for _, one in frames:
        assert one.run_uid == uid
        assert one.uri == (tmp_path / f"camera 1 {one.stream}.h5").as_uri()
        assert one.dataset == f"/entry/{one.stream}/data"
    assert end == ("end", uid, "success", "")
    source = RingOrFileSource()
    for (_, one), (_, start, stop) in zip(frames, ALL, strict=True):
        assert source.read(one)[:, 0, 0].tolist() == list(range(start, stop))
    source.close()


def test_the_documents_keep_to_the_event_model(engine, flyer, scan):
    documents = []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    engine(scan.plan(flyer, scan.metadata()))
    names = [name for name, _ in documents]
    assert {"start", "descriptor", "stream_resource", "stream_datum", "stop"} <= set(names)
    for name, document in documents:
        schema_validators[DocumentNames[name]].validate(document)


def test_replayed_documents_say_the_same(engine, flyer, scan, consumer, dispatcher):
    documents = []
    engine.subscribe(dispatcher)
    engine.subscribe(lambda *item: documents.append(copy.deepcopy(item)))
    engine(scan.plan(flyer, scan.metadata()))
    again = Consumer()
    replay = FrameDispatcher([again])
    for name, document in documents:
        replay(name, document)
    assert again.calls == consumer.calls


def test_one_run_after_the_other_is_kept_apart(engine, flyer, scan, consumer, dispatcher):
    engine.subscribe(dispatcher)
    (first,) = engine(scan.plan(flyer, scan.metadata()))
    (second,) = engine(scan.plan(flyer, scan.metadata()))
    assert consumer.ranges == [*ALL, *ALL]
    uids = [call[1].run_uid for call in consumer.calls if call[0] == "frames"]
    assert uids == [first] * 5 + [second] * 5
    assert [call[1] for call in consumer.calls if call[0] == "end"] == [first, second]


def test_runs_without_tomography_are_left_alone(engine, flyer, scan, consumer, dispatcher):
    engine.subscribe(dispatcher)
    engine(bp.scan([det], motor, -1, 1, 3))
    engine(scan.plan(flyer, {}))
    assert consumer.calls == []
    engine(scan.plan(flyer, scan.metadata()))
    assert consumer.ranges == ALL


def test_a_run_that_fails_ends_with_the_reason(engine, flyer, scan, consumer, dispatcher):
    engine.subscribe(dispatcher)
    with pytest.raises(RuntimeError, match="stalled"):
        engine(scan.plan(flyer, scan.metadata(), fail_before="primary"))
    assert consumer.ranges == [("darks", 0, 2), ("flats", 0, 2)]
    assert consumer.calls[-1][2:] == ("fail", "the motor stalled")


def test_an_aborted_run_ends_as_aborted(engine, flyer, scan, consumer, dispatcher):
    engine.subscribe(dispatcher)

    def plan():
        yield from bps.open_run(scan.metadata())
        yield from bps.pause()

    from bluesky.utils import RunEngineInterrupted

    with pytest.raises(RunEngineInterrupted):
        engine(plan())
    engine.abort(reason="lunch")
    assert [call[0] for call in consumer.calls] == ["begin", "end"]
    assert consumer.calls[-1][2:] == ("abort", "lunch")


def test_all_consumers_are_told_in_order(engine, flyer, scan):
    consumers = [Consumer(), Consumer()]
    engine.subscribe(FrameDispatcher(consumers))
    engine(scan.plan(flyer, scan.metadata()))
    assert consumers[0].calls == consumers[1].calls
    assert len(consumers[0].calls) == 7


def test_files_of_other_kinds_and_streams_of_other_names_are_left_alone(
    engine, flyer, scan, consumer, dispatcher
):
    documents = []
    engine.subscribe(lambda *item: documents.append(copy.deepcopy(item)))
    engine(scan.plan(flyer, scan.metadata(), series=(("primary", 2), ("monitor", 2))))
    for name, document in documents:
        dispatcher(name, document)
    assert consumer.ranges == [("primary", 0, 2)]
    for changes in ({"mimetype": "image/tiff"}, {"parameters": {}}):
        other = Consumer()
        replay = FrameDispatcher([other])
        for name, document in documents:
            replay(name, {**document, **changes} if name == "stream_resource" else document)
        assert other.ranges == []
        assert other.calls[-1][0] == "end"


def test_frames_of_a_second_detector_are_left_alone(engine, flyer, scan):
    documents = []
    engine.subscribe(lambda *item: documents.append(copy.deepcopy(item)))
    engine(scan.plan(flyer, scan.metadata(), series=(("primary", 2),)))
    key = next(doc["data_key"] for name, doc in documents if name == "stream_resource")
    for detectors, expected in (
        ([key], [("primary", 0, 2)]),
        ([key.removesuffix("_image")], [("primary", 0, 2)]),
        (["another"], []),
    ):
        consumer = Consumer()
        dispatcher = FrameDispatcher([consumer])
        for name, document in documents:
            start = {**document, "detectors": detectors}
            dispatcher(name, start if name == "start" else document)
        assert consumer.ranges == expected


def test_runs_of_other_techniques_keep_the_frames_of_all_their_detectors_by_name(
    engine, flyer, scan
):
    documents = []
    engine.subscribe(lambda *item: documents.append(copy.deepcopy(item)))
    engine(scan.plan(flyer, {}, series=(("primary", 2),)))
    for extra, ranges in (
        ({}, []),
        ({"technique": "scattering", "detectors": ["eiger", "camera"]}, ["camera"]),
        ({"technique": "scattering", "detectors": []}, [""]),
    ):
        consumer = Consumer()
        dispatcher = FrameDispatcher([consumer])
        for name, document in documents:
            start = {**document, **extra}
            dispatcher(name, start if name == "start" else document)
        assert [call[1].detector for call in consumer.calls if call[0] == "frames"] == ranges
        if extra:
            run = consumer.calls[0][1]
            assert (run.technique, run.tomography) == ("scattering", None)
            with pytest.raises(InputError, match="is no tomography scan"):
                _ = run.scan


def test_a_technique_that_nobody_knows_stops_the_run_by_name(engine, flyer, scan, dispatcher):
    engine.subscribe(dispatcher)
    with pytest.raises(InputError, match="'technique' of the start document is 'alchemy'"):
        engine(scan.plan(flyer, {"technique": "alchemy"}))


def test_a_start_document_whose_scan_makes_no_sense_stops_the_run_by_name(
    engine, flyer, scan, consumer, dispatcher, caplog
):
    engine.subscribe(dispatcher)
    metadata = scan.metadata()
    metadata["tomography"]["rows"] = 0
    with caplog.at_level(logging.CRITICAL), pytest.raises(InputError, match="rows is 0"):
        engine(scan.plan(flyer, metadata))
    assert consumer.calls == []


def test_a_display_hears_of_every_run(engine, flyer, scan):
    told = []
    engine.subscribe(RunWatcher(told.append))
    (first,) = engine(scan.plan(flyer, scan.metadata()))
    (second,) = engine(scan.plan(flyer, {"plan_name": "any"}))
    opened = [message for message in told if message["type"] == "run_opened"]
    totals = {"darks": 2, "flats": 4, "primary": 6}
    nothing = dict.fromkeys(totals, 0)
    assert opened == [
        {"type": "run_opened", "run_uid": first, "totals": totals},
        {"type": "run_opened", "run_uid": second, "totals": nothing},
    ]
    closed = [message for message in told if message["type"] == "run_closed"]
    assert closed == [
        {"type": "run_closed", "run_uid": uid, "exit_status": "success"} for uid in (first, second)
    ]


def test_captures_are_announced_where_they_stand_among_the_frames(
    engine, flyer, scan, consumer, dispatcher
):
    from apsber_bluesky.devices import CaptureReading

    reading = CaptureReading()

    def plan():
        uid = yield from bps.open_run(scan.metadata())
        yield from bps.mv(reading.first, 4, reading.end, 28)
        for stream in ("captures", "others"):
            yield from bps.create(name=stream)
            yield from bps.read(reading)
            yield from bps.save()
        yield from bps.close_run()
        return uid

    engine.subscribe(dispatcher)
    (uid,) = engine(plan())
    assert [call for call in consumer.calls if call[0] == "capture"] == [("capture", uid, 4, 28)]
