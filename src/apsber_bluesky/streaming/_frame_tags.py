"""Tags: 64-bit numbers that name the frames of all streams of all runs."""

from __future__ import annotations

from typing import Final

import xxhash

_INDEX_BITS: Final = 32


def stream_key(run_uid: str, stream: str) -> int:
    """A number for a stream of a run, from which `frame_tag` makes tags."""
    return xxhash.xxh3_64_intdigest(f"{run_uid}/{stream}".encode()) >> _INDEX_BITS


def frame_tag(key: int, index: int) -> int:
    """The tag of a frame: its stream in the upper, its index + 1 in the lower half; never 0."""
    return (key << _INDEX_BITS) | (index + 1)


def key_of_tag(tag: int) -> int:
    """The `stream_key` that a tag was made from."""
    return tag >> _INDEX_BITS


def index_of_tag(tag: int) -> int:
    """The index in its stream of the frame that a tag names."""
    return (tag & ((1 << _INDEX_BITS) - 1)) - 1
