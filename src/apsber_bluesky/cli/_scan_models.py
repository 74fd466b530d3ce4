"""Models that follow the reconstruction of a scan on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apsber_bluesky.core import (
    Cancellation,
    DenoiseSettings,
    InputError,
    ProcessingSettings,
    SegmentSettings,
    StageProgress,
)

if TYPE_CHECKING:
    from apsber_bluesky.cli._scan_job import ScanOptions
    from apsber_bluesky.pipeline import LearnedPass, Product

_METRE_UM = 1e6


def model_settings(options: ScanOptions) -> ProcessingSettings:
    """What the options say of models."""
    how: dict[str, Any] = {} if options.device is None else {"device": options.device}
    denoise, segment = options.denoise, options.segment
    return ProcessingSettings(
        models=options.models,
        denoise=None if denoise is None else DenoiseSettings(model=denoise, **how),
        segment=None if segment is None else SegmentSettings(model=segment, **how),
    )


@dataclass(frozen=True, slots=True)
class ScanModels:
    """The models that a user asked for, loaded, and where their products go.

    Attributes
    ----------
    passes : dict of str to LearnedPass
        By the name of their step; empty if none was asked for.
    settings : ProcessingSettings
        How they are run.
    path : Path
        The volume.
    """

    passes: dict[str, LearnedPass]
    settings: ProcessingSettings
    path: Path

    @classmethod
    def of(cls, options: ScanOptions, path: Path, *, overwrite: bool) -> ScanModels:
        """Load them, before anything takes long.

        Raises
        ------
        InputError
            If the volume is of a kind that models do not read, or a model's file is wrong.
        ConfigurationError
            If there is no such model, or no torch.
        StorageError
            If a product is there already and stays.
        """
        from apsber_bluesky.pipeline import offline_passes
        from apsber_bluesky.storage import check_volume_path

        settings = model_settings(options)
        passes = offline_passes(settings.denoise, settings.segment, settings.models)
        models = cls(passes, settings, path)
        if passes and path.suffix != ".zarr":
            raise InputError(
                f"models read volumes that are OME-Zarr; end {path.name!r} in .zarr, or leave out"
                " --denoise and --segment"
            )
        for product in models._expected():
            check_volume_path(models.product_path(product), overwrite=overwrite)
        return models

    def _expected(self) -> list[str]:
        products = ["denoised"] if self.settings.denoise is not None else []
        segment = self.settings.segment
        return products + ([] if segment is None else ["labels", "uncertainty"])

    def product_path(self, product: str) -> Path:
        """Where a product goes: beside the volume."""
        return self.path.with_name(f"{self.path.stem}_{product}.zarr")

    def apply(
        self, checksum: str, processes: Any, progress: StageProgress, cancelled: Cancellation
    ) -> dict[str, str]:
        """Send the volume through the models; gives path and name of each product.

        Raises
        ------
        ApsberError
            As of `apsber_bluesky.pipeline.apply_models`.
        """
        from apsber_bluesky.pipeline import apply_models
        from apsber_bluesky.storage import open_volume, read_volume_info

        info = read_volume_info(self.path)
        size = info.voxel_size_um

        apply_models(
            open_volume(self.path),
            self.passes,
            self._open_product,
            name=self.path.name,
            checksum=checksum,
            per_pixel=1.0 if info.unit == "1/pixel" or size is None else size / _METRE_UM,
            voxel_size_um=size,
            progress=progress,
            cancelled=cancelled,
            processes=processes,
        )
        return {name: str(self.product_path(name).absolute()) for name in self._expected()}

    def _open_product(
        self, product: Product, shape: tuple[int, int, int], voxel_size_um: float | None
    ) -> Any:
        from apsber_bluesky.storage import VolumeWriter, content_of

        content = content_of(product.kind, **product.about)
        path = self.product_path(product.name)
        return VolumeWriter(path, shape, voxel_size_um=voxel_size_um, content=content)
