"""Functions compiled for the processor they run on, kept compiled between sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])

# A multiplication and an addition may be rounded as one; nothing else is reordered, so the
# result does not depend on where in an array a value stands.
_FUSED = {"contract"}


def compiled(function: _Function) -> _Function:
    """Compile a function of arrays and scalars; it runs without the interpreter lock.

    The machine code is kept beside the source, in the user's cache folder or in the folder
    ``NUMBA_CACHE_DIR``; where none of them can be written, each process compiles anew.
    """
    # Division by zero gives infinity, as in NumPy; a check for it would keep loops scalar.
    options: dict[str, Any] = {"nogil": True, "fastmath": _FUSED, "error_model": "numpy"}
    try:
        made: _Function = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        made = numba.njit(**options)(function)
    return made
