from __future__ import annotations

import numpy as np
import pytest

# Once compiled, a function stays so: only a fresh interpreter shows what warming up does.
CODE = """
import numpy as np
from apsber_bluesky.processing import *
from apsber_bluesky.processing.preprocessing import (
    _normalise_kernels as normal, _stripes_kernels as stripes, _zingers_kernels as zingers
)

kernels = [
    normal.lines_of_counts, normal.lines_in_place, normal.lines_between_flats,
    stripes.rank_columns, stripes.transpose, zingers.replace_low,
]
made = lambda: [len(kernel.signatures) for kernel in kernels]
warm_up_preprocessing("{dtype}", interpolated={several}, zingers=True, stripes=True)
before = made()
frames = np.full((9, 20, 30), 7, "{dtype}")
flat = np.full((20, 30), 9.0)
frames.flags.writeable = False
if {several}:
    made_of = Normaliser(0 * flat, np.stack([flat, flat]), flat_positions=[0, 9])
    lines = made_of(frames, positions=np.arange(9))
else:
    lines = Normaliser(0 * flat, flat)(frames)
remove_zingers(lines)
remove_stripes_by_sorting(lines)
assert sum(before) > 3 and made() == before, (before, made())
"""


@pytest.mark.parametrize(("dtype", "several"), [("<u2", False), ("<f4", False), ("<u2", True)])
def test_after_warming_up_nothing_is_left_to_compile(run_python, dtype, several):
    outcome = run_python(CODE.format(dtype=dtype, several=several))
    assert outcome.returncode == 0, outcome.stderr


def test_an_empty_chunk_is_normalised():
    from apsber_bluesky.processing import normalise

    empty = normalise(np.zeros((0, 3, 4), np.uint16), np.zeros((3, 4)), np.ones((3, 4)))
    assert empty.shape == (0, 3, 4)
