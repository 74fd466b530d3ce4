from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from apsber_bluesky.core import SimulationSettings
from apsber_bluesky.simulation._beamline import Beamline, PhantomSource
from apsber_bluesky.streaming import FramePublisher


@pytest.fixture
def channels() -> Iterator[set[str]]:
    publisher = FramePublisher()
    source = PhantomSource(SimulationSettings(rows=4, columns=4))
    beamline = Beamline("$(P)", source, publisher)
    yield {*beamline.channels, beamline.pva.pv_name}
    publisher.close()


@pytest.fixture
def documented(repository: Path) -> set[str]:
    text = (repository / "docs" / "reference" / "pv-list.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\$\(P\)[\w:.]+)` \|", text, re.MULTILINE))


def test_every_documented_channel_exists(channels: set[str], documented: set[str]) -> None:
    assert len(documented) > 30
    assert documented - channels == set()


def test_every_channel_beside_the_areadetector_is_documented(
    channels: set[str], documented: set[str]
) -> None:
    areadetector = re.compile(r"\$\(P\)cam:(cam1|image1|HDF1|Pva1):")
    assert {name for name in channels if not areadetector.match(name)} - documented == {
        f"$(P)cam:ZMQ1:{name}"
        for name in ("EnableCallbacks_RBV", "PluginType_RBV", "PortName_RBV", "Series_RBV")
    }
