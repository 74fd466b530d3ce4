"""Documents go to another process, so that a slow or missing catalogue cannot hold up a scan."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Values as JSON has them, which travel as msgpack.

    Users put whatever they like into the metadata of a run: NumPy values, dates, sets, paths,
    numbered keys. None of it may stop the scan.
    """
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case np.ndarray() if value.dtype.kind in "biuf":
            # Spectra have thousands of channels, and none of them needs a look of its own.
            return value.tolist()
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case enum.Enum():
            return plain(value.value)
        case None | bool() | int() | float() | str() | bytes():
            return _number_or_text(value)
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case PurePath():
            return str(value)
        case _:
            return repr(value)


def _number_or_text(value: Any) -> Any:
    # The largest numbers of msgpack have 64 bits.
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value


class DocumentForwarder:
    """Hand every document on.

    Parameters
    ----------
    send : callable
        Takes ``{"type": "document", "name": ..., "document": ...}``; must not wait.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Hand a document on."""
        self._send({"type": "document", "name": name, "document": plain(document)})
