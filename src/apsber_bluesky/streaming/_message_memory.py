"""Have the C library keep the memory of messages for the next ones."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# From glibc's <malloc.h>.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_KEEP_BYTES: Final = 1 << 30


def keep_message_memory() -> bool:
    """Keep freed memory of this process, up to 1 GiB.

    ZMQ takes memory for each message and frees it when the frame is written. The C library gives
    a part of it back each time and gets it again page by page, which costs as much as copying it.
    To be called before threads are started.

    Returns
    -------
    bool
        Whether there was such a setting: with another C library than glibc all stays as it is.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    wanted = ((_MMAP_THRESHOLD, _KEEP_BYTES), (_TRIM_THRESHOLD, _KEEP_BYTES), (_ARENA_MAX, 1))
    return all(mallopt(name, value) == 1 for name, value in wanted)
