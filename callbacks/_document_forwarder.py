"""Documents go to another process, so that a slow or missing catalogue cannot hold up a scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Arrays and NumPy numbers as lists and Python numbers, which travel as msgpack."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
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
