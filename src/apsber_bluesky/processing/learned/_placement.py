"""Where a network runs, how exactly, and whether its bits repeat."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Literal

import torch

from apsber_bluesky.core import ConfigurationError, LearnedSettings

Precision = Literal["float32", "bfloat16"]

# cuBLAS repeats its bits only with a workspace of its own; it reads this once, when it starts.
_CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Torch's switches are the process's: who turns them waits for who has turned them.
_SWITCHES = threading.RLock()


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU if there is one.

    Raises
    ------
    ConfigurationError
        If there is no such device.
    """
    if name == "auto":
        return torch.device(_gpu() or "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(
            f"device {name!r} is none that torch knows; give auto, cpu, cuda, cuda:N or xpu"
        ) from error
    if device.type == "cpu":
        return device
    if device.type not in ("cuda", "xpu"):
        raise ConfigurationError(f"device {name!r} is not supported; give auto, cpu, cuda or xpu")
    count = _count(device.type)
    if (device.index or 0) >= count:
        raise ConfigurationError(
            f"device {name!r} was asked for, but torch {torch.__version__} finds {count} "
            f"{device.type} devices here; give auto or cpu, or install the driver and the build "
            "of torch for it"
        )
    return device


def choose_precision(settings: LearnedSettings, device: torch.device) -> Precision:
    """The precision that the settings mean on a device."""
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cpu":
        return "float32"
    # Before Ampere bfloat16 is emulated, slower than float32.
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


@contextlib.contextmanager
def numerics(device: torch.device, precision: Precision, *, deterministic: bool) -> Iterator[None]:
    """Run without gradients in a precision; what is changed for it is put back afterwards.

    float32 means float32: convolutions do not round their factors to TF32.
    """
    with contextlib.ExitStack() as scope:
        scope.enter_context(torch.inference_mode())
        if precision == "bfloat16":
            scope.enter_context(torch.autocast(device.type, torch.bfloat16))
        if device.type == "cuda" or deterministic:
            scope.enter_context(_SWITCHES)
        if device.type == "cuda":
            scope.enter_context(
                torch.backends.cudnn.flags(
                    enabled=True,
                    benchmark=not deterministic,
                    deterministic=deterministic,
                    allow_tf32=False,
                )
            )
        if deterministic:
            scope.enter_context(_repeatable(device))
        yield


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    os.environ.setdefault(*_CUBLAS_WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    if device.type == "cpu":
        # oneDNN sums in another order for another number of threads.
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)
        torch.set_num_threads(threads)


def _gpu() -> str | None:
    return next((kind for kind in ("cuda", "xpu") if _count(kind)), None)


def _count(kind: str) -> int:
    with warnings.catch_warnings():
        # A build for CUDA on a machine without a driver warns, which is what "auto" is for.
        warnings.simplefilter("ignore")
        module = torch.cuda if kind == "cuda" else torch.xpu
        return int(module.device_count()) if module.is_available() else 0
