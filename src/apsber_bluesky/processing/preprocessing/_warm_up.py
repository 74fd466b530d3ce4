"""Compiled code is made before it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from apsber_bluesky.processing.preprocessing._normalise import Normaliser
from apsber_bluesky.processing.preprocessing._stripes import remove_stripes_by_sorting
from apsber_bluesky.processing.preprocessing._zingers import remove_zingers

_SHAPE = (8, 4, 24)


def warm_up_preprocessing(
    dtype: Any, *, interpolated: bool = False, zingers: bool = False, stripes: bool = False
) -> None:
    """Compile what preprocessing will run, or load it from where it is kept.

    The first time on a machine this takes about a second for the normalisation and some more for
    each of the others, later some hundredths; without it the first chunk of a scan waits.

    Parameters
    ----------
    dtype : data-type
        Of the frames.
    interpolated : bool
        Whether flats will be interpolated.
    zingers, stripes : bool
        Whether zingers will be replaced, and stripes removed by sorting.
    """
    frames = np.ones(_SHAPE, dtype=dtype)
    dark, flat = np.zeros(_SHAPE[1:], np.float32), np.ones(_SHAPE[1:], np.float32)
    if interpolated:
        both = np.stack([flat, flat])
        lines = Normaliser(dark, both, flat_positions=[0, 1])(frames, positions=np.zeros(_SHAPE[0]))
    else:
        lines = Normaliser(dark, flat)(frames)
    if zingers:
        remove_zingers(lines)
    if stripes:
        remove_stripes_by_sorting(lines)
