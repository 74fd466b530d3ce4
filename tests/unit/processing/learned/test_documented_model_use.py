"""What the documentation says of models runs as it stands there."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import DenoiseSettings
from apsber_bluesky.processing.learned import Denoiser, load_model, object_level


@pytest.mark.parametrize("depth", [3, 24])
def test_the_example_denoises_a_volume(make_model, tmp_path, documented_code, depth):
    card = make_model()
    volume = np.random.default_rng(0).normal(0, 0.002, (depth, 48, 48)).astype(np.float32)
    volume[:, 12:36, 12:36] += 0.02
    result = np.full_like(volume, np.nan)
    exec(
        documented_code("docs/how-to/use-a-model.md", "denoise a volume"),
        {"name": card.name, "models": tmp_path, "volume": volume, "result": result},
    )
    middle = depth // 2
    level = object_level(volume[middle - 1 : middle + 2])
    model = load_model(card, tmp_path, DenoiseSettings())
    stream = Denoiser(model).slabs(volume.shape, level)
    ((_, whole), (_, end)) = stream.run(volume, depth)
    np.testing.assert_allclose(result, np.concatenate([whole, end]), atol=1e-6)
