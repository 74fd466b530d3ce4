from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run a piece of Python in a fresh interpreter."""

    def run(
        code: str, *, timeout: float = 100, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            **options,
        )

    return run


def _write_random_model(folder: Path, name: str, task: str, classes: list[str]) -> None:
    """A network with weights drawn by chance, and its card."""
    import torch

    from apsber_bluesky.core import ModelInput, NetworkShape
    from apsber_bluesky.processing.learned import SliceNetwork, write_model

    shape = NetworkShape(
        slices=3,
        outputs=len(classes) or 1,
        widths=[4, 6],
        biases=bool(classes),
        residual=not classes,
    )
    torch.manual_seed(7)
    network = SliceNetwork(**shape.model_dump())
    # A residual network begins as one that changes nothing.
    torch.nn.init.normal_(network.last.weight, std=0.1)
    about = {
        "name": name,
        "version": "1",
        "description": "Weights drawn by chance.",
        "task": task,
        "network": shape,
        "input": ModelInput(
            slices=3, unit="level", minimum=-3.0, maximum=20.0, pixel_size_um=(0.5, 50.0)
        ),
        "classes": classes,
    }
    write_model(folder, network, about)


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``random-denoiser`` and ``random-segmenter`` (air, soil, stone)."""
    folder = tmp_path_factory.mktemp("models")
    _write_random_model(folder, "random-denoiser", "denoise", [])
    _write_random_model(folder, "random-segmenter", "segment", ["air", "soil", "stone"])
    return folder


@pytest.fixture(scope="session")
def documented_code(repository: Path) -> Callable[[str, str], str]:
    """The code block behind the line ``<!-- tested: MARK -->`` of a page."""

    def extract(page: str, mark: str) -> str:
        text = (repository / page).read_text(encoding="utf-8")
        blocks = re.findall(rf"<!-- tested: {mark} -->\n```python\n(.*?)\n```\n", text, re.DOTALL)
        assert len(blocks) == 1, f"{page} has {len(blocks)} blocks marked {mark!r}"
        return str(blocks[0])

    return extract
