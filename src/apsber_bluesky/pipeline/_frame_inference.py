"""Models of the registry that look at each frame while the frames come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    PARTIAL_SUFFIX,
    InferenceSettings,
    InputError,
    explain_disk_errors,
    file_checksum,
    sync_directory,
    sync_file,
)
from apsber_bluesky.pipeline._class_probabilities import class_probabilities
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._frame_stage import FrameStage, missing_frames_of

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import Model

# More pixels than this beyond the range of a model mean another kind of frame.
_MOST_BEYOND = 0.01


class FrameInference(FrameStage):
    """Run a model on each frame; its answers go to ``inference_<model>.h5``.

    The model is given photons per pixel; pixels that do not count are 0. Of one that classifies the
    file has ``/entry/data/probability`` (frames, classes) and ``label``; of one that segments
    ``label`` (frames, rows, columns); of others ``answer`` (frames, outputs, rows, columns).

    Parameters
    ----------
    settings : InferenceSettings
        Which model, and how it is run.
    own_models : Path or None
        The beamline's folder of models.
    """

    def __init__(self, settings: InferenceSettings, own_models: Path | None = None) -> None:
        super().__init__()
        self._settings, self._own_models = settings, own_models
        self._model: Model | None = None

    @property
    def name(self) -> str:
        """Name of the stage."""
        return f"inference {Path(self._settings.model).stem}"

    def _begin(self, context: RunContext, shape: tuple[int, int], photon: float) -> _Inference:
        if self._model is None:
            # Imported here: torch is large, and may not be installed.
            from apsber_bluesky.processing.learned import find_model, load_model

            card, folder = find_model(self._settings.model, self._own_models)
            if card.input.unit != "counts" or card.input.slices != 1:
                raise InputError(
                    f"model {card.name} takes {card.input.slices} slices in {card.input.unit};"
                    " frames are for models that take 1 image in counts"
                )
            self._model = load_model(card, folder, self._settings)
        return _Inference(context, self._model, photon)


class _Inference:
    """The answers of a model to one run."""

    def __init__(self, context: RunContext, model: Model, photon: float) -> None:
        import h5py

        self._context, self._model, self._photon = context, model, photon
        self._started_s = time.time()
        self._path = context.folder.path / f"inference_{model.card.name}.h5"
        self._partial = self._path.with_name(self._path.name + PARTIAL_SUFFIX)
        self._count = 0
        with explain_disk_errors(self._path, "write the answers of a model"):
            self._file: Any = h5py.File(self._partial, "w", libver="latest")
            self._file.attrs["default"] = "entry"
            entry = self._file.create_group("entry")
            entry.attrs.update({"NX_class": "NXentry", "default": "data"})
            data = entry.create_group("data")
            data.attrs.update({"NX_class": "NXdata", "axes": ["frame"]})
            data.attrs["classes"] = model.card.classes

    def look(self, first: int, images: NDArray[Any]) -> None:
        card = self._model.card
        answer = self._model.apply(self._photons(first, images)[:, None])
        values: dict[str, NDArray[Any]] = {"frame": np.arange(first, first + len(images))}
        if card.task == "classify":
            values["probability"] = class_probabilities(card, answer).astype(np.float32)
            values["label"] = answer.argmax(axis=1).astype(np.uint8)
        elif card.task == "segment":
            values["label"] = answer.argmax(axis=1).astype(np.uint8)
        else:
            values["answer"] = answer
        with explain_disk_errors(self._path, "write the answers of a model"):
            for name, value in values.items():
                self._append(name, value)
        self._count = first + len(images)
        self._context.report(f"inference {card.name}", self._count, self._count)

    def _photons(self, first: int, images: NDArray[Any]) -> NDArray[np.float32]:
        card, dtype = self._model.card, images.dtype
        counts = images.astype(np.float32)
        masked = ~np.isfinite(counts)
        if dtype.kind == "u":
            masked |= images >= np.iinfo(dtype).max - 1
        counts[masked] = 0
        counts /= np.float32(self._photon)
        low, high = card.input.minimum, card.input.maximum
        beyond = float(np.mean((counts < 2 * low - high) | (counts > 2 * high - low)))
        if beyond > _MOST_BEYOND:
            raise InputError(
                f"{beyond:.1%} of the pixels from frame {first} on are far beyond what model"
                f" {card.name} was trained on, {low:g} to {high:g} counts"
            )
        return counts

    def _append(self, name: str, value: NDArray[Any]) -> None:
        data = self._file["entry/data"]
        if name not in data:
            chunks = (1, *value.shape[1:]) if value.ndim > 2 else (1024, *value.shape[1:])
            data.create_dataset(
                name,
                (0, *value.shape[1:]),
                value.dtype,
                maxshape=(None, *value.shape[1:]),
                chunks=chunks,
                compression="gzip" if value.ndim > 2 else None,
            )
        data[name].resize(self._count + len(value), axis=0)
        data[name][self._count :] = value

    def finish(self) -> None:
        card = self._model.card
        with explain_disk_errors(self._path, "write the answers of a model"):
            data = self._file["entry/data"]
            data.attrs["signal"] = next(k for k in ("probability", "label", "answer") if k in data)
            data.create_dataset("missing", data=np.array(missing_frames_of(self._context), int))
            self._file.close()
            self._file = None
            sync_file(self._partial)
            self._partial.replace(self._path)
            sync_directory(self._path.parent)
        self._context.record(
            "frame_inference",
            self._started_s,
            {
                "model": card.name,
                "version": card.version,
                "device": self._model.device,
                "precision": self._model.precision,
                "num_frames": self._count,
            },
            inputs={"model": card.sha256},
            outputs={self._path.name: file_checksum(self._path)},
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)
