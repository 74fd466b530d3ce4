"""Which library an array belongs to, so that one function serves processor and GPU."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def array_namespace(array: Any) -> Any:
    """The module whose functions take this array: ``cupy`` for one on a GPU, else ``numpy``.

    CuPy is never imported here: who holds one of its arrays has done so.
    """
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(array, cupy.ndarray) else np
