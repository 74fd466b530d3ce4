"""Packets between the receiver and its decode workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import CODECS
from apsber_bluesky.streaming._decode_jobs import (
    MAXIMUM_PACKET_BYTES,
    DecodeJob,
    pack_result,
    unpack_job,
    unpack_result,
)
from apsber_bluesky.streaming._series_messages import DTYPES, MAXIMUM_FRAME_BYTES

JOB = DecodeJob(Path("/data/ü run/raw.h5"), 4096, 1000, "bslz4", 30, 40, "<u2", 7, 2**63 + 1, 5)
NUMBER = st.integers(0, 2**63 - 1)


@given(
    codec=st.sampled_from(CODECS),
    dtype=st.sampled_from(sorted(DTYPES)),
    size=st.integers(0, MAXIMUM_FRAME_BYTES),
    offset=NUMBER,
    sequence=NUMBER,
    tag=st.integers(0, 2**64 - 1),
    checksum=st.integers(0, 2**64 - 1),
    generation=NUMBER,
)
def test_a_job_arrives_as_it_was_sent(generation, **values):
    job = replace(JOB, **values)
    assert unpack_job(job.pack(generation)) == (job, generation)


def test_a_path_that_is_no_text_arrives_as_it_was_sent():
    job = replace(JOB, path=Path("/data/\udcff/raw.h5"))
    assert unpack_job(job.pack(1))[0] == job


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"offset": -1}, "no job for a decode worker"),
        ({"tag": 2**64}, "no job for a decode worker"),
        ({"rows": 2**32}, "no job for a decode worker"),
        ({"codec": "zip"}, "no job for a decode worker"),
        ({"dtype": "<u22"}, "'<u22' is not one of"),
        ({"path": Path("/" + "x" * MAXIMUM_PACKET_BYTES)}, "is too long"),
    ],
)
def test_what_fits_no_packet_is_refused(values, words):
    with pytest.raises(FrameError, match=words):
        replace(JOB, **values).pack(0)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_other_bytes_are_refused_or_are_a_job_of_a_possible_frame(data, cut):
    for packet in (data, JOB.pack(0)[:cut], JOB.pack(0)[:cut] + data):
        try:
            job, _ = unpack_job(packet)
        except FrameError:
            continue
        assert job.size <= MAXIMUM_FRAME_BYTES
        assert job.dtype in DTYPES


@pytest.mark.parametrize("decoded", [True, False])
def test_a_result_arrives_as_it_was_sent(decoded):
    assert unpack_result(pack_result(2**64 - 1, decoded=decoded)) == (2**64 - 1, decoded)
