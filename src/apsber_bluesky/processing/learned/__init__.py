"""Networks that denoise and segment volumes, how they are run and how they are trained."""

import importlib
from typing import TYPE_CHECKING, Any

from apsber_bluesky.core import ConfigurationError
from apsber_bluesky.processing.learned._memory import learned_bytes
from apsber_bluesky.processing.learned._store import ListedModel, find_model, list_models

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned._calibration import calibration_error, fit_temperature
    from apsber_bluesky.processing.learned._card_writing import write_model
    from apsber_bluesky.processing.learned._examples import (
        UNKNOWN,
        ExampleDescription,
        ExampleFolder,
        check_examples,
        check_labels,
    )
    from apsber_bluesky.processing.learned._level import object_level
    from apsber_bluesky.processing.learned._model import Model, load_model
    from apsber_bluesky.processing.learned._model_making import (
        ModelAbout,
        TrainingWatch,
        make_model,
        step_seconds,
    )
    from apsber_bluesky.processing.learned._network import SliceNetwork
    from apsber_bluesky.processing.learned._noise2inverse import (
        average_the_others,
        independence,
        self_supervised_loss,
        self_supervised_recipe,
    )
    from apsber_bluesky.processing.learned._patches import PatchDraw, draw_patch
    from apsber_bluesky.processing.learned._placement import choose_device
    from apsber_bluesky.processing.learned._recipes import (
        Recipe,
        denoiser_recipe,
        segmenter_recipe,
    )
    from apsber_bluesky.processing.learned._segmentation_figures import (
        count_labels,
        dice_coefficients,
    )
    from apsber_bluesky.processing.learned._slabs import SlabStream
    from apsber_bluesky.processing.learned._starting import begin_with
    from apsber_bluesky.processing.learned._training import (
        TrainingSettings,
        denoising_loss,
        segmentation_loss,
        train,
    )
    from apsber_bluesky.processing.learned._volume_models import (
        Denoiser,
        Segmented,
        Segmenter,
        Transformer,
    )

__all__ = [
    "UNKNOWN",
    "Denoiser",
    "ExampleDescription",
    "ExampleFolder",
    "ListedModel",
    "Model",
    "ModelAbout",
    "PatchDraw",
    "Recipe",
    "Segmented",
    "Segmenter",
    "SlabStream",
    "SliceNetwork",
    "TrainingSettings",
    "TrainingWatch",
    "Transformer",
    "average_the_others",
    "begin_with",
    "calibration_error",
    "check_examples",
    "check_labels",
    "choose_device",
    "count_labels",
    "denoiser_recipe",
    "denoising_loss",
    "dice_coefficients",
    "draw_patch",
    "find_model",
    "fit_temperature",
    "independence",
    "learned_bytes",
    "list_models",
    "load_model",
    "make_model",
    "object_level",
    "segmentation_loss",
    "segmenter_recipe",
    "self_supervised_loss",
    "self_supervised_recipe",
    "step_seconds",
    "train",
    "write_model",
]

# Most of these import torch, which who only wants to know what models there are does without.
_MODULES = {
    "UNKNOWN": "_examples",
    "Denoiser": "_volume_models",
    "ExampleDescription": "_examples",
    "ExampleFolder": "_examples",
    "Model": "_model",
    "ModelAbout": "_model_making",
    "PatchDraw": "_patches",
    "Recipe": "_recipes",
    "Segmented": "_volume_models",
    "Segmenter": "_volume_models",
    "SlabStream": "_slabs",
    "SliceNetwork": "_network",
    "TrainingSettings": "_training",
    "TrainingWatch": "_model_making",
    "Transformer": "_volume_models",
    "average_the_others": "_noise2inverse",
    "begin_with": "_starting",
    "calibration_error": "_calibration",
    "check_examples": "_examples",
    "check_labels": "_examples",
    "choose_device": "_placement",
    "count_labels": "_segmentation_figures",
    "denoiser_recipe": "_recipes",
    "denoising_loss": "_training",
    "dice_coefficients": "_segmentation_figures",
    "draw_patch": "_patches",
    "fit_temperature": "_calibration",
    "independence": "_noise2inverse",
    "load_model": "_model",
    "make_model": "_model_making",
    "object_level": "_level",
    "segmentation_loss": "_training",
    "segmenter_recipe": "_recipes",
    "self_supervised_loss": "_noise2inverse",
    "self_supervised_recipe": "_noise2inverse",
    "step_seconds": "_model_making",
    "train": "_training",
    "write_model": "_card_writing",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise ConfigurationError(
            "learned models need torch, which is not installed; install apsber_bluesky[ml]"
        ) from error
    return getattr(module, name)
