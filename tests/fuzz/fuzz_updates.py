"""NTNDArray updates under fuzz, those of an Xspress3 among them."""

from __future__ import annotations

import functools
import math
import uuid
from typing import Any

import numpy as np
import xxhash
from fuzz_cases import Case
from fuzz_readers import refusal, sound_start
from fuzz_trees import Pairs, forms, msgpack_decode, msgpack_encode

from apsber_bluesky.core import FrameError
from apsber_bluesky.simulation import PvaDetector
from apsber_bluesky.streaming import NtndarrayReader
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

ROWS, COLUMNS, IMAGES = 9, 14, 5
MSGPACK = forms("bslz4 lz4 lz4hdf5 zlib blosc RotAngle <u2 |u1 <f8")["msgpack"]


def tree_of(value: Any) -> Pairs:
    """An update as a tree, so that anything can be put into it."""
    data = value["value"]
    stamp = value["dataTimeStamp"]
    return Pairs(
        [
            ("value", [data.dtype.str, data.tobytes()]),
            ("codec", Pairs([(n, value[f"codec.{n}"]) for n in ("name", "parameters")])),
            ("uniqueId", value["uniqueId"]),
            ("dataTimeStamp", Pairs([(n, stamp[n]) for n in ("secondsPastEpoch", "nanoseconds")])),
            ("dimension", [Pairs([("size", each["size"])]) for each in value["dimension"]]),
            (
                "attribute",
                [Pairs([(n, each[n]) for n in ("name", "value")]) for each in value["attribute"]],
            ),
        ]
    )


def update_of(tree: Any) -> Any:
    """What PV Access would hand over: dicts, and an array where one can be made."""
    if isinstance(tree, Pairs):
        found = {key: update_of(value) for key, value in tree if isinstance(key, str)}
        data = found.get("value")
        if isinstance(data, list) and len(data) == 2:
            found["value"] = _array(*data)
        return found
    return [update_of(item) for item in tree] if isinstance(tree, list) else tree


def _array(dtype: Any, content: Any) -> Any:
    try:
        if np.dtype(dtype).kind not in "iufb":
            return content
        return np.frombuffer(content, dtype)
    except (TypeError, ValueError, SyntaxError, AttributeError, OverflowError):
        return content


@functools.cache
def seeds() -> tuple[Case, ...]:
    """Updates that an emulated areaDetector would post, with each codec; and spectra."""
    cases = []
    kinds = [(codec, "<u2") for codec in ("", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4")]
    for codec, dtype in [*kinds, ("", "<u4"), ("", "<f8"), ("bslz4", "|u1")]:
        images = np.random.default_rng(3).poisson(20, (3, ROWS, COLUMNS)).astype(dtype)
        detector = PvaDetector(f"F{uuid.uuid4().hex}", images[0], codec=codec)
        try:
            updates = [tree_of(detector.value(image, n)) for n, image in enumerate(images)]
        finally:
            detector.close()
        angle = [Pairs([("name", "RotAngle"), ("value", 1.5)])]
        for tree in updates:
            tree[-1] = ("attribute", angle)
        last = Pairs([*updates[2]])
        last[2] = ("uniqueId", IMAGES + 2)
        cases.append([[msgpack_encode(tree)] for tree in (*updates, last)])
    return tuple(cases)


def run(case: Case) -> list[str]:
    reader = NtndarrayReader(3, IMAGES)
    seen: list[str] = []
    numbers: list[int] = []
    start: SeriesStart | None = None
    for message in case:
        tree = msgpack_decode(message[0]) if message else None
        try:
            found = reader.read(update_of(tree))
        except FrameError as error:
            seen.append(refusal(error))
            continue
        seen.append("taken" if found else "not delivered")
        for each in found:
            if isinstance(each, SeriesStart):
                sound_start(each)
                assert start is None
                start = each
                seen.append("start")
            elif isinstance(each, SeriesEnd):
                assert reader.ended
                seen.append("end")
            else:
                assert start is not None
                numbers.append(each.number)
                check_frame(each, start, update_of(tree))
                seen.append("frame")
    assert len(set(numbers)) == len(numbers), "a frame came twice"
    assert all(0 <= number < IMAGES for number in numbers)
    assert sorted(set(range(IMAGES)) - set(numbers)) == reader.missing
    assert seen.count("end") <= 1
    return seen


def check_frame(frame: Frame, start: SeriesStart, update: dict[str, Any]) -> None:
    assert frame.series == start.series
    assert len(frame.pixels) == start.frame_bytes
    assert frame.checksum == xxhash.xxh3_64_intdigest(frame.pixels)
    assert math.isfinite(frame.timestamp_s)
    assert not math.isinf(frame.angle_deg)
    sizes = [dimension["size"] for dimension in update["dimension"]]
    assert sizes in ([start.columns, start.rows], [start.columns] if start.rows == 1 else None)
    if update["codec"]["name"] == "":
        assert update["value"].astype(start.dtype).tobytes() == frame.pixels
    names = [attribute["name"] for attribute in update["attribute"]]
    assert names.count("RotAngle") <= 1
