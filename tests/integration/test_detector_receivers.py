"""Detectors with a receiver of their own: real processes, started when they are first used."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    Profile,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesRequest,
    ServiceError,
)
from apsber_bluesky.session._detector_receivers import make_detector_receivers
from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.simulation import EigerDcu, EigerSeries, PvaDetector

ROWS, COLUMNS = 6, 8


def images_of(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).poisson(40, (count, ROWS, COLUMNS)).astype("<u2")


def request_of(uid: str, count: int, detector: str, stream: str = "primary") -> SeriesRequest:
    return SeriesRequest(uid, stream, count, ROWS, COLUMNS, "<u2", detector)


def profile_of(root: Path, detectors: dict) -> Profile:
    return Profile.model_validate(
        {
            "name": "test",
            "session": {"beamline_id": "T", "instrument_name": "test", "data_root": str(root)},
            "streaming": {"detectors": detectors},
        }
    )


@pytest.fixture
def receivers_of(tmp_path):
    board, made = StatusBoard(), []

    def make(detectors, beamline=None):
        own = tmp_path / ".apsber"
        own.mkdir(exist_ok=True)
        profile = profile_of(tmp_path, detectors)
        receivers = make_detector_receivers(profile, own, board.address, beamline or {})
        made.extend(receivers.values())
        return receivers

    yield make
    for receiver in made:
        receiver.close()
    board.close()


def announce(receiver, root) -> tuple[str, RunFolder]:
    uid = str(uuid.uuid4())
    run = RunDescription(uid=uid, proposal="GUP-5", technique="scattering", detectors=("eiger",))
    receiver.begin_run(run)
    return uid, RunFolder.of(root, "GUP-5", uid)


def frames_of(path: Path, stream: str = "primary") -> np.ndarray:
    with h5py.File(path) as file:
        return file[f"entry/{stream}/data"][:]


def test_frames_of_two_series_lie_in_the_detectors_own_spool_and_books(receivers_of, tmp_path):
    dcu = EigerDcu()
    try:
        eiger = receivers_of(
            {"eiger": {"frame_address": dcu.address, "format": "eiger2", "codec": "bslz4"}}
        )["eiger"]
        uid, folder = announce(eiger, tmp_path)
        everything = images_of(12)
        for series, part in ((1, everything[:5]), (2, everything[5:])):
            ticket = eiger.arm(request_of(uid, len(part), "eiger"))
            description = EigerSeries(series, len(part), ROWS, COLUMNS)
            dcu.send_series(description, [(image,) for image in part])
            assert eiger.finish(uid, "primary", timeout_s=10) == ticket.first_index + len(part)
        books = eiger.close_run(uid)
        assert books.streams["primary"].written == 12
        assert books.complete
        assert np.array_equal(frames_of(folder.raw_of("eiger")), everything)
        assert not folder.raw.exists()
        with RunLedger(folder.ledger) as ledger:
            assert set(ledger.books.streams) == {"eiger:primary"}
    finally:
        dcu.close()


def test_a_receiver_that_is_killed_is_replaced_and_goes_on(receivers_of, tmp_path):
    dcu = EigerDcu()
    try:
        eiger = receivers_of(
            {"eiger": {"frame_address": dcu.address, "format": "eiger2", "codec": "bslz4"}}
        )["eiger"]
        uid, folder = announce(eiger, tmp_path)
        images = images_of(40)
        eiger.arm(request_of(uid, 40, "eiger"))
        killed = []

        def kill_midway(sent: int) -> None:
            if sent == 20:
                while eiger.written(uid, "primary") < 15:
                    time.sleep(0.01)
                os.kill(eiger._service.pid, signal.SIGKILL)
                killed.append(eiger._service.pid)
                while eiger._service.pid in killed or not eiger._service.answer:
                    time.sleep(0.01)

        series = EigerSeries(1, 40, ROWS, COLUMNS)
        dcu.send_series(series, [(image,) for image in images], before_each=kill_midway)
        eiger.finish(uid, "primary", timeout_s=3)
        books = eiger.close_run(uid).streams["primary"]
        assert killed
        assert books.written + len(books.missing) == 40
        assert books.recovered >= 15
        kept = np.setdiff1d(np.arange(40), books.missing)
        assert np.array_equal(frames_of(folder.raw_of("eiger"))[kept], images[kept])
    finally:
        dcu.close()


@pytest.mark.parametrize("first_id", [None, 0])
def test_frames_over_pv_access_are_relayed_series_after_series(
    receivers_of, tmp_path, monkeypatch, first_id
):
    channel = f"T{uuid.uuid4().hex}"
    detector = PvaDetector(channel, images_of(1)[0], last_id=77)
    for name, value in detector.configuration.items():
        monkeypatch.setenv(name, str(value))
    try:
        vortex = receivers_of({"vortex": {"pva": channel, "first_id": first_id}})["vortex"]
        uid, folder = announce(vortex, tmp_path)
        everything, sent = images_of(30), 0
        for count in (10, 20):
            vortex.arm(request_of(uid, count, "vortex"))
            part = everything[sent : sent + count]
            at = {} if first_id is None else {"first_id": first_id}
            detector.send(part, before_each=lambda _: time.sleep(0.002), **at)
            sent += count
            assert vortex.finish(uid, "primary", timeout_s=10) == sent
        assert vortex.close_run(uid).complete
        assert np.array_equal(frames_of(folder.raw_of("vortex")), everything)
    finally:
        detector.close()


def test_a_channel_that_is_not_there_is_named_when_it_is_armed(receivers_of, monkeypatch, tmp_path):
    monkeypatch.setattr("apsber_bluesky.streaming._client._REPEAT_S", 30.0)
    vortex = receivers_of({"vortex": {"pva": "NO:SUCH:Image"}})["vortex"]
    uid, _ = announce(vortex, tmp_path)
    with pytest.raises(ServiceError, match="NO:SUCH:Image did not connect"):
        vortex.arm(request_of(uid, 3, "vortex"))


def test_an_automatic_address_needs_the_simulated_detector(receivers_of):
    with pytest.raises(ServiceError, match=r"streaming\.detectors\.eiger\.frame_address is 'auto'"):
        receivers_of({"eiger": {"format": "eiger2"}})
    there = {"detectors": {"eiger": {"frame_address": "tcp://127.0.0.1:9"}}}
    assert receivers_of({"eiger": {"format": "eiger2"}}, there)["eiger"].name == "eiger"
