"""The detectors that a simulated beamline has besides its camera."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from apsber_bluesky.core import SimulationSettings
from apsber_bluesky.simulation._camera import Look
from apsber_bluesky.simulation._pulses import Pulse


class ExtraDetector(Protocol):
    """One detector: its IOC's records, and the frames that it sends.

    Attributes
    ----------
    channels : dict of str to channel
        Its Channel Access channels, by PV name.
    pva_channels : dict of str to p4p SharedPV
        Its PV Access channels, by PV name, which the beamline's server serves; most have none.
    ready : dict
        What the session must know: ``frame_address``, or ``pva``, the NTNDArray that is relayed.
    """

    channels: dict[str, Any]
    pva_channels: dict[str, Any]

    @property
    def ready(self) -> dict[str, Any]:
        """What the session must know."""
        ...

    def trigger(self, pulses: list[Pulse]) -> None:
        """Take the trigger pulses of a motion controller."""
        ...

    async def start(self) -> None:
        """Give the records their first values."""
        ...

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves."""
        ...

    async def close(self) -> None:
        """End the acquisition and the stream."""
        ...


def _eiger(prefix: str, settings: SimulationSettings, look: Look) -> ExtraDetector:
    from apsber_bluesky.simulation._eiger_ioc import EigerIoc

    return EigerIoc(f"{prefix}eiger:", settings, look)


def _eiger1(prefix: str, settings: SimulationSettings, look: Look) -> ExtraDetector:
    from apsber_bluesky.simulation._eiger_ioc import EigerIoc

    return EigerIoc(f"{prefix}eiger1:", settings, look, generation=1)


def _jungfrau(prefix: str, settings: SimulationSettings, look: Look) -> ExtraDetector:
    from apsber_bluesky.simulation._jungfrau_ioc import JungfrauIoc

    return JungfrauIoc(f"{prefix}jungfrau:", settings, look)


def _vortex(prefix: str, settings: SimulationSettings, look: Look) -> ExtraDetector:
    from apsber_bluesky.simulation._xspress3_ioc import Xspress3Ioc

    return Xspress3Ioc(f"{prefix}vortex:", settings, look)


def _vortex_mca(prefix: str, settings: SimulationSettings, look: Look) -> ExtraDetector:
    from apsber_bluesky.simulation._xspress3_mca import McaIoc

    return McaIoc(f"{prefix}vortex_mca:", settings, look)


_MAKERS: dict[str, Callable[[str, SimulationSettings, Look], ExtraDetector]] = {
    "eiger": _eiger,
    "eiger1": _eiger1,
    "jungfrau": _jungfrau,
    "vortex": _vortex,
    "vortex_mca": _vortex_mca,
}


def make_extra_detectors(
    names: Sequence[str], prefix: str, settings: SimulationSettings, look: Look
) -> dict[str, ExtraDetector]:
    """The detectors of these names.

    Parameters
    ----------
    names : sequence of str
        As in ``simulation.detectors`` of a profile.
    prefix : str
        PV prefix ``$(P)``; each adds its name.
    settings : SimulationSettings
        Seed and strength of effects; the camera's size is not theirs.
    look : callable
        What an exposure at a time (``time.monotonic``) sees.
    """
    return {name: _MAKERS[name](prefix, settings, look) for name in names}
