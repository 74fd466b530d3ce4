"""Other models of the registry, run on a volume or on its three central slices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    PLANES,
    AnalysisSettings,
    InferenceSettings,
    InputError,
    ModelCard,
    array_checksum,
    atomic_file,
    explain_disk_errors,
    write_json,
)
from apsber_bluesky.pipeline._class_probabilities import class_probabilities
from apsber_bluesky.pipeline._context import Findings, RunContext, Stage
from apsber_bluesky.pipeline._followers import VOLUME, FinishFollower, SlabFollower
from apsber_bluesky.pipeline._learned_passes import (
    LearnedPass,
    Product,
    ProductValues,
    VolumeAhead,
)
from apsber_bluesky.pipeline._learned_stages import (
    LearnedFollower,
    OpenRunProduct,
    checksum_of,
    level_of,
)
from apsber_bluesky.processing import learned

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import Model, SlabStream

_OWN_PRODUCTS = ("volume", "denoised", "labels", "uncertainty", "probabilities")
_METRE_UM = 1e6


class InferencePass(LearnedPass):
    """Runs any model that takes volumes; what it makes has the model's name."""

    def __init__(self, settings: InferenceSettings, models: Path | None) -> None:
        super().__init__(settings, models)
        self._scores: list[NDArray[np.float32]] = []
        self._card: ModelCard | None = None

    def enter(self, findings: Findings) -> None:
        """Tell how the slices were classified."""
        if self._card is not None and self._scores:
            scores = class_probabilities(self._card, np.concatenate(self._scores))
            own = {"classes": self._card.classes, "slices": scores.tolist()}
            findings.inference[f"{self._card.name} on volume"] = own

    def _open_stream(
        self, model: Model, volume: VolumeAhead, level: float | None
    ) -> SlabStream[Any]:
        self._card, self._scores = model.card, []
        _check_name(model.card)
        return _stream(model, volume.shape, level, "1/pixel", volume.voxel_size_um)

    def _products(self, model: Model, first: int, answer: Any) -> ProductValues:
        card = model.card
        if card.task == "classify":
            self._scores.append(answer)
            return {}
        if card.task == "segment":
            return {Product(card.name, "labels", tuple(card.classes)): answer.labels}
        if card.task == "denoise":
            return {Product(card.name, "attenuation"): answer}
        channels = answer.shape[1]
        if channels == 1:
            return {Product(card.name, "image", unit=card.output_unit): answer[:, 0]}
        product = Product(card.name, "image", unit=card.output_unit, channels=channels)
        return {product: np.moveaxis(answer, 1, 0)}


class InferSlices:
    """Run a model on the three central slices of the volume.

    Images are kept in ``NAME_slices.h5``, the classes of slices in ``inference.json``.

    Parameters
    ----------
    settings : InferenceSettings
        Which model, and how it is run.
    models : Path or None
        The beamline's own models.
    read : callable
        Opens a volume of the run, by its path.
    """

    essential = False

    def __init__(
        self, settings: InferenceSettings, models: Path | None, read: Callable[[Path], Any]
    ) -> None:
        self.name = stage_name(settings)
        self._settings, self._models, self._read = settings, models, read

    def run(self, context: RunContext) -> None:
        """Run it."""
        started_s = time.time()
        card, folder = learned.find_model(self._settings.model, self._models)
        _check_name(card)
        model = learned.load_model(card, folder, self._settings)
        answers = {}
        for number, plane in enumerate(PLANES):
            context.check_cancelled(self.name)
            # xy lies across axis 0, xz across 1, yz across 2.
            answers[plane] = self._answer(context, model, number)
            context.report(self.name, number + 1, len(PLANES))
        outputs = {}
        if card.task == "classify":
            of_planes = {
                plane: class_probabilities(card, answer)[0].tolist()
                for plane, answer in answers.items()
            }
            own = {"classes": card.classes, **of_planes}
            context.findings.inference[f"{card.name} on slices"] = own
        else:
            outputs = _keep_slices(context, card, answers)
        volume = context.folder.volume.name
        context.record(
            self.name,
            started_s,
            {
                "model": card.name,
                "model_version": card.version,
                "model_sha256": card.sha256,
                "device": model.device,
                "precision": model.precision,
            },
            inputs={**checksum_of(context, volume), f"model {card.name}": card.sha256},
            outputs=outputs,
        )

    def _answer(self, context: RunContext, model: Model, axis: int) -> NDArray[Any]:
        """Answer to the central slice across an axis."""
        volume = self._read(context.folder.volume)
        unit, voxel_size_um = volume.attrs["unit"], context.run.scan.pixel_size_um
        middle, half = volume.shape[axis] // 2, model.card.input.slices // 2
        first = max(middle - half, 0)
        where: list[slice] = [slice(None)] * 3
        where[axis] = slice(first, middle + half + 1)
        slices = np.moveaxis(np.asarray(volume[tuple(where)]), axis, 0)
        level = None
        if model.card.input.unit == "level":
            level = level_of(context)
            if unit == "1/m" and voxel_size_um is not None:
                level *= _METRE_UM / voxel_size_um
        stream = _stream(model, slices.shape, level, unit, voxel_size_um)
        found = [_images(answer) for _, answer in stream.run(slices, len(slices))]
        return np.asarray(np.concatenate(found)[middle - first][None])


class KeepInference:
    """Write ``inference.json``, if a model has something to say that is no image."""

    name = "inference"
    essential = False

    def run(self, context: RunContext) -> None:
        """Write it."""
        found = context.findings.inference
        if found:
            write_json(context.folder.inference, {"run_uid": context.run.uid, "models": found})
        context.report(self.name, 1, 1)


def stage_name(settings: InferenceSettings) -> str:
    """What the stage of a model is called."""
    return f"infer {Path(settings.model).stem} on {settings.on}"


def inference_stages(
    settings: AnalysisSettings,
    models: Path | None,
    open_product: OpenRunProduct,
    read: Callable[[Path], Any],
) -> tuple[list[SlabFollower], list[Stage]]:
    """What follows the reconstruction, and the stages after it, for the models of the profile.

    Parameters
    ----------
    settings : AnalysisSettings
        ``inference``; models for frames are others' affair.
    models : Path or None
        The beamline's own models.
    open_product : OpenRunProduct
        Makes the places that products are written to.
    read : callable
        Opens a volume of the run, by its path.
    """
    followers: list[SlabFollower] = []
    stages: list[Stage] = []
    for own in settings.inference:
        if own.on == "volume":
            name = stage_name(own)
            followers.append(
                LearnedFollower(name, VOLUME, InferencePass(own, models), open_product)
            )
            stages.append(FinishFollower(name))
        elif own.on == "slices":
            stages.append(InferSlices(own, models, read))
    if stages:
        stages.append(KeepInference())
    return followers, stages


def _stream(
    model: Model,
    shape: Sequence[int],
    level: float | None,
    unit: Any,
    voxel_size_um: float | None,
) -> SlabStream[Any]:
    depth, rows, columns = shape
    kinds = {"denoise": learned.Denoiser, "segment": learned.Segmenter}
    kind: Any = kinds.get(model.card.task, learned.Transformer)
    stream: SlabStream[Any] = kind(model).slabs(
        (depth, rows, columns), level, unit=unit, pixel_size_um=voxel_size_um
    )
    return stream


def _images(answer: Any) -> NDArray[Any]:
    return np.asarray(getattr(answer, "labels", answer))


def _check_name(card: ModelCard) -> None:
    if card.name in _OWN_PRODUCTS:
        raise InputError(
            f"a model called {card.name!r} would write over the run's own; give it another name"
        )


def _keep_slices(
    context: RunContext, card: ModelCard, answers: dict[str, NDArray[Any]]
) -> dict[str, str]:
    path = context.folder.path / f"{card.name}_slices.h5"
    with (
        explain_disk_errors(path, "write the slices"),
        atomic_file(path) as partial,
        h5py.File(partial, "w") as file,
    ):
        for plane, answer in answers.items():
            file[plane] = answer[0]
            file[plane].attrs["units"] = card.output_unit or "1"
    return {f"{path.name} {plane}": array_checksum(a[0]) for plane, a in answers.items()}
