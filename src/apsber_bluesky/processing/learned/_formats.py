"""Models as they are stored: safetensors, TorchScript and ONNX. None of them is unpickled."""

from __future__ import annotations

import importlib
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from apsber_bluesky.core import (
    ConfigurationError,
    InputError,
    ModelCard,
    check_model_file,
)
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._placement import Precision

_MAXIMUM_BYTES = 4 << 30

Network = Callable[[torch.Tensor], torch.Tensor]
"""(n, slices, rows, columns) -> (n, outputs, rows, columns) or (n, classes)."""


def open_network(
    card: ModelCard, folder: Path, device: torch.device, precision: Precision
) -> Network:
    """Open the file of a model, once its hash is that of its card.

    Raises
    ------
    InputError
        If the file is missing, too large, not what the card says, or damaged.
    ConfigurationError
        If its format cannot run as it was asked to.
    """
    path = folder / card.file
    if path.is_file() and path.stat().st_size > _MAXIMUM_BYTES:
        raise InputError(
            f"the file {path} of model {card.name} has {path.stat().st_size} bytes; "
            f"at most {_MAXIMUM_BYTES} are read"
        )
    path = check_model_file(card, folder)
    return _READERS[card.format](card, path, device, precision)


def _open_safetensors(
    card: ModelCard, path: Path, device: torch.device, precision: Precision
) -> Network:
    del precision  # autocast's affair
    assert card.network is not None
    reader = _needed(card, "safetensors.torch")
    try:
        weights = reader.load_file(path)
    except _needed(card, "safetensors").SafetensorError as error:
        raise _unreadable(card, path, error) from error
    network = SliceNetwork(**card.network.model_dump())
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise _unreadable(card, path, "its tensors are not those of the card's network") from error
    return _placed(network, device)


def _open_torchscript(
    card: ModelCard, path: Path, device: torch.device, precision: Precision
) -> Network:
    del precision
    # A checkpoint of torch.save is an archive, too, but has pickled Python objects and no program.
    if not zipfile.is_zipfile(path):
        raise _unreadable(card, path, "it is no TorchScript archive")
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise _unreadable(card, path, "it holds no TorchScript program")
    try:
        with warnings.catch_warnings():
            # Torch prefers torch.export, whose files are pickled.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device)
    except RuntimeError as error:
        raise _unreadable(card, path, _one_line(error)) from error
    return _placed(network, device)


def _placed(network: Any, device: torch.device) -> Network:
    placed: Network = network.to(device, memory_format=torch.channels_last).eval()
    return placed


def _open_onnx(card: ModelCard, path: Path, device: torch.device, precision: Precision) -> Network:
    if precision != "float32":
        raise ConfigurationError(
            f"model {card.name} is an ONNX file, which runs in the precision that it was exported "
            f"in; leave precision at auto instead of {precision}"
        )
    onnxruntime = _needed(card, "onnxruntime")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ConfigurationError(
                f"model {card.name} is an ONNX file and this onnxruntime has no CUDA; "
                "install onnxruntime-gpu or set device to cpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        # From memory, so that it finds no weights in other files, which the hash says nothing of.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # its exceptions have no common class of their own
        raise _unreadable(card, path, _one_line(error)) from error
    return _OnnxNetwork(card, session)


class _OnnxNetwork:
    """A session of onnxruntime, called as a network is."""

    def __init__(self, card: ModelCard, session: Any) -> None:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or not outputs:
            raise InputError(
                f"model {card.name} has {len(inputs)} inputs and {len(outputs)} outputs; "
                "one input, and the answer first, are needed"
            )
        if inputs[0].type != "tensor(float)":
            raise InputError(
                f"model {card.name} takes {inputs[0].type}; export it for tensor(float), float32"
            )
        self._card, self._session = card, session
        self._input, self._output = inputs[0].name, outputs[0].name

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        values = {self._input: images.cpu().contiguous().numpy()}
        try:
            (answer,) = self._session.run([self._output], values)
        except Exception as error:  # see above
            raise InputError(
                f"model {self._card.name} refuses images of shape {tuple(images.shape)}: "
                f"{_one_line(error)}; export it for any number of images, rows and columns"
            ) from error
        return torch.from_numpy(answer).to(images.device)


def _needed(card: ModelCard, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"model {card.name} needs {error.name}, which is not installed; install "
            "apsber_bluesky[ml]"
        ) from error


def _unreadable(card: ModelCard, path: Path, why: object) -> InputError:
    return InputError(f"the file {path} of model {card.name} is no {card.format} model: {why}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


_READERS = {
    "safetensors": _open_safetensors,
    "torchscript": _open_torchscript,
    "onnx": _open_onnx,
}
