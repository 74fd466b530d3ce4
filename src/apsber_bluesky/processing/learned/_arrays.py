"""Arrays of NumPy, CuPy and torch as tensors and back, without a copy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from apsber_bluesky.core import InputError


def as_tensor(array: Any) -> torch.Tensor:
    """A tensor of float32 where the array is; its memory is shared if it has that dtype.

    Raises
    ------
    InputError
        If its dtype is none of real numbers.
    """
    if not isinstance(array, torch.Tensor) and not hasattr(array, "__dlpack__"):
        array = np.asarray(array)
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise InputError(f"values of dtype {array.dtype} are no real numbers")
        # Torch takes neither big-endian arrays nor negative strides, and warns of read-only ones.
        array = np.require(array, np.float32, ["C", "W"])
    tensor: torch.Tensor = torch.from_dlpack(array)
    return tensor.to(torch.float32)


def like(tensor: torch.Tensor, array: Any) -> Any:
    """The tensor as the kind of array that another one is; its memory is shared if it can be."""
    if isinstance(array, torch.Tensor):
        return tensor.to(array.device)
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return cupy.from_dlpack(tensor.to(f"cuda:{array.device.id}"))
    return tensor.cpu().numpy()
