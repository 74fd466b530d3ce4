"""Settings of what learned models do with a volume."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from apsber_bluesky.core._settings import Settings


class LearnedSettings(Settings):
    """How a model is run.

    Attributes
    ----------
    model : str
        Name of a model, or the path of its card.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``xpu``.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 on a GPU and float32 on a CPU.
    tile : int
        Most rows and columns that are worked on at once [pixel]; memory and speed depend on it.
    overlap : int or None
        How many of them neighbouring tiles share [pixel]; None takes so many that the result does
        not depend on the tiles.
    deterministic : bool
        Whether equal inputs must give equal bits on any run, whatever it costs.
    """

    model: str
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    tile: int = Field(default=2048, ge=64)
    overlap: int | None = Field(default=None, ge=0)
    deterministic: bool = False


class DenoiseSettings(LearnedSettings):
    """Denoising; its presence in the profile makes volumes be denoised."""

    model: str = "denoiser"


class SegmentSettings(LearnedSettings):
    """Segmentation; its presence in the profile makes volumes be segmented.

    Attributes
    ----------
    level_per_pixel : float or None
        Attenuation of the object's usual voxel [1/pixel]; None measures it.
    probabilities : bool
        Whether the probability of each class is kept, too.
    uncertainty : bool
        Whether an uncertainty map is kept.
    quantify : bool
        Whether the labels are measured: porosity, connected components, thickness.
    """

    model: str = "soil-segmenter"
    level_per_pixel: PositiveFloat | None = None
    probabilities: bool = False
    uncertainty: bool = True
    quantify: bool = True


class InferenceSettings(LearnedSettings):
    """Another model of the registry.

    Attributes
    ----------
    on : {"volume", "slices", "frames"}
        What it is run on: the whole volume, its three central slices, or raw frames.
    """

    on: Literal["volume", "slices", "frames"] = "volume"
