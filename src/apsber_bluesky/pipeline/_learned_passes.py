"""A model on its way through a volume, and the products that it leaves."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    DenoiseSettings,
    InputError,
    LearnedSettings,
    ProcessRecord,
    SegmentSettings,
)
from apsber_bluesky.pipeline._accumulation import central_rows
from apsber_bluesky.pipeline._context import Findings
from apsber_bluesky.pipeline._followers import Slab
from apsber_bluesky.processing import learned

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import Model, Segmented, SlabStream


@dataclass(frozen=True, slots=True)
class Product:
    """Something that is made of a volume, voxel by voxel.

    Attributes
    ----------
    name : str
        Of its file, without ``.zarr``.
    kind : {"attenuation", "labels", "uncertainty", "probabilities", "image"}
        What its values are.
    classes : tuple of str
        Of labels and probabilities.
    unit : str
        Of an image.
    channels : int
        Of an image.
    """

    name: str
    kind: Literal["attenuation", "labels", "uncertainty", "probabilities", "image"]
    classes: tuple[str, ...] = ()
    unit: str = ""
    channels: int = 0

    @property
    def about(self) -> dict[str, Any]:
        """What storage wants to know beside the kind; see `apsber_bluesky.storage.content_of`."""
        return {
            "quantity": self.name,
            "classes": self.classes,
            "unit": self.unit,
            "channels": self.channels,
        }


@dataclass(frozen=True, slots=True)
class VolumeAhead:
    """A volume whose slabs are still to come.

    Attributes
    ----------
    shape : tuple of int
        Slices, rows, columns.
    voxel_size_um : float or None
        Edge of a voxel [um].
    level_per_pixel : callable
        Measures the attenuation of the object's usual voxel [1/pixel].
    """

    shape: tuple[int, int, int]
    voxel_size_um: float | None
    level_per_pixel: Callable[[], float]


OpenProduct = Callable[[Product, tuple[int, int, int], float | None], Any]
"""(product, shape, voxel size [um]) -> context manager that yields a sink with a checksum."""

#: Slices that the object's level is measured in; more would change it little, and take memory.
LEVEL_SLICES = 4

ProductValues = dict[Product, NDArray[Any]]
"""What is kept of an answer."""


class LearnedPass(ABC):
    """One model; volumes go through it one after another, slab by slab.

    Parameters
    ----------
    settings : LearnedSettings
        Which model, and how it is run.
    models : Path or None
        The beamline's own models.

    Attributes
    ----------
    processes : sequence of ProcessRecord
        How the products came about; to be set before `finish` if they are to tell.
    """

    def __init__(self, settings: LearnedSettings, models: Path | None) -> None:
        self.settings = settings
        self.processes: Sequence[ProcessRecord] = ()
        self._models = models
        self._model: Model | None = None
        self._volume: VolumeAhead | None = None
        self._level: float | None = None
        self._stream: SlabStream[Any] | None = None
        self._sinks: dict[str, Any] = {}
        self._open_sinks = contextlib.ExitStack()

    def prepare(self) -> None:
        """Load the model, so that what is wrong with it is known before anything takes long.

        Raises
        ------
        ConfigurationError
            If there is no such model, or no torch.
        InputError
            If its file does not fit its card, or it does something else.
        """
        self._check(self._loaded())

    def begin(self, volume: VolumeAhead, open_product: OpenProduct) -> None:
        """Begin a volume.

        Raises
        ------
        ConfigurationError
            If there is no such model, or no torch.
        InputError
            If the model does not fit the volume, or its file its card.
        """
        self.abandon()
        self._volume, self._open_product = volume, open_product
        model = self._loaded()
        needs_level = model.card.input.unit == "level"
        self._level = self._level_of(volume) if needs_level else None
        self._stream = self._open_stream(model, volume, self._level)

    def take(self, slab: NDArray[np.float32]) -> list[Slab]:
        """Take the next slab [1/pixel]; gives what others may take of it."""
        return self._keep(self._running().push(slab))

    def finish(self) -> list[Slab]:
        """All slabs were taken: the products get their names.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        slabs = self._keep(self._running().finish())
        for sink in self._sinks.values():
            sink.processes = self.processes
        self._stream = None
        self._open_sinks.close()
        return slabs

    def abandon(self) -> None:
        """Leave nothing of what is not finished."""
        self._stream = None
        self._sinks = {}
        # Sinks keep nothing when they are left because of an error.
        error = InputError("the products are not wanted any more")
        with contextlib.suppress(InputError):
            self._open_sinks.__exit__(InputError, error, None)

    @property
    def parameters(self) -> dict[str, Any]:
        """What a record should know."""
        model = self._loaded()
        return {
            "model": model.card.name,
            "model_version": model.card.version,
            "model_sha256": model.card.sha256,
            "device": model.device,
            "precision": model.precision,
            "deterministic": self.settings.deterministic,
            "tile": self.settings.tile,
            "neighbouring_slices": model.card.input.slices,
            "level_per_pixel": float("nan") if self._level is None else self._level,
        }

    @property
    def outputs(self) -> dict[str, str]:
        """Checksum of each product, once they are finished."""
        return {sink.path.name: sink.checksum for sink in self._sinks.values()}

    def enter(self, findings: Findings) -> None:
        """Tell what the stages after it may want to know."""
        del findings  # most have nothing to tell but their products

    # -- what each kind of model does

    @abstractmethod
    def _open_stream(
        self, model: Model, volume: VolumeAhead, level: float | None
    ) -> SlabStream[Any]:
        """Get the model ready for a volume."""

    @abstractmethod
    def _products(self, model: Model, first: int, answer: Any) -> ProductValues:
        """What is kept of an answer; may look at it, too."""

    def _check(self, model: Model) -> None:
        """Refuse a model that does something else."""
        del model  # any will do

    def _handed_on(self, answer: Any) -> NDArray[np.float32] | None:
        """What others may take of an answer [1/pixel]."""
        del answer
        return None

    def _level_of(self, volume: VolumeAhead) -> float:
        return volume.level_per_pixel()

    # -- all of them

    def _loaded(self) -> Model:
        card, folder = learned.find_model(self.settings.model, self._models)
        # A model is loaded once, but one that was trained again takes the place of the old one.
        if self._model is None or self._model.card != card:
            self._model = learned.load_model(card, folder, self.settings)
        return self._model

    def _running(self) -> SlabStream[Any]:
        if self._stream is None:
            raise InputError("no volume was begun")
        return self._stream

    def _keep(self, answers: Sequence[tuple[int, Any]]) -> list[Slab]:
        handed_on: list[Slab] = []
        model = self._model
        assert model is not None
        for first, answer in answers:
            for product, values in self._products(model, first, answer).items():
                self._sink(product).write(first, values)
            if (slab := self._handed_on(answer)) is not None:
                handed_on.append((first, slab))
        return handed_on

    def _sink(self, product: Product) -> Any:
        if product.name not in self._sinks:
            assert self._volume is not None
            opened = self._open_product(product, self._volume.shape, self._volume.voxel_size_um)
            self._sinks[product.name] = self._open_sinks.enter_context(opened)
        return self._sinks[product.name]


class DenoisePass(LearnedPass):
    """Makes ``denoised`` of a volume."""

    def __init__(self, settings: DenoiseSettings, models: Path | None) -> None:
        super().__init__(settings, models)

    def _open_stream(
        self, model: Model, volume: VolumeAhead, level: float | None
    ) -> SlabStream[Any]:
        denoiser = learned.Denoiser(model)
        return denoiser.slabs(volume.shape, level, pixel_size_um=volume.voxel_size_um)

    def _check(self, model: Model) -> None:
        learned.Denoiser(model)

    def _products(self, model: Model, first: int, answer: NDArray[np.float32]) -> ProductValues:
        return {Product("denoised", "attenuation"): answer}

    def _handed_on(self, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        return answer


class SegmentPass(LearnedPass):
    """Makes ``labels`` of a volume, ``uncertainty`` and ``probabilities`` if they are wanted.

    Attributes
    ----------
    classes : tuple of str
        What the labels stand for.
    central_labels, central_uncertainty : ndarray or None
        Those of the central slices.
    """

    settings: SegmentSettings

    def __init__(self, settings: SegmentSettings, models: Path | None) -> None:
        super().__init__(settings, models)
        self.classes: tuple[str, ...] = ()
        self.central_labels: NDArray[np.uint8] | None = None
        self.central_uncertainty: NDArray[np.float16] | None = None

    def enter(self, findings: Findings) -> None:
        """Tell what the stages after it may want to know."""
        findings.classes = self.classes
        findings.central_labels = self.central_labels
        findings.central_uncertainty = self.central_uncertainty

    def _open_stream(
        self, model: Model, volume: VolumeAhead, level: float | None
    ) -> SlabStream[Segmented]:
        self.classes = tuple(model.card.classes)
        rows = central_rows(volume.shape[0])
        shape = (rows.stop - rows.start, *volume.shape[1:])
        self._central = rows
        self.central_labels = np.full(shape, 255, np.uint8)
        self.central_uncertainty = (
            np.zeros(shape, np.float16) if self.settings.uncertainty else None
        )
        return learned.Segmenter(model).slabs(
            volume.shape,
            level,
            pixel_size_um=volume.voxel_size_um,
            uncertainty=self.settings.uncertainty,
            probabilities=self.settings.probabilities,
        )

    def _check(self, model: Model) -> None:
        learned.Segmenter(model)

    def _level_of(self, volume: VolumeAhead) -> float:
        return self.settings.level_per_pixel or volume.level_per_pixel()

    def _products(self, model: Model, first: int, answer: Segmented) -> ProductValues:
        _copy_common(self._central, self.central_labels, first, answer.labels)
        _copy_common(self._central, self.central_uncertainty, first, answer.uncertainty)
        values: ProductValues = {Product("labels", "labels", self.classes): answer.labels}
        if answer.uncertainty is not None:
            values[Product("uncertainty", "uncertainty")] = answer.uncertainty
        if answer.probabilities is not None:
            values[Product("probabilities", "probabilities", self.classes)] = answer.probabilities
        return values


def measure_level(central: NDArray[np.float32]) -> float:
    """Level of the object in some slices from the middle of its volume [1/pixel].

    Raises
    ------
    InputError
        If a value is NaN or infinite, or nothing stands out.
    """
    return float(learned.object_level(central[:: -(-len(central) // LEVEL_SLICES)]))


def _copy_common(
    place: slice, target: NDArray[Any] | None, first: int, values: NDArray[Any] | None
) -> None:
    """Copy those of some slices that lie in a part of the volume."""
    if target is None or values is None:
        return
    start, stop = max(place.start, first), min(place.stop, first + len(values))
    if start < stop:
        target[start - place.start : stop - place.start] = values[start - first : stop - first]
