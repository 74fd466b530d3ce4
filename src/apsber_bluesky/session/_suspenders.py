"""The RunEngine of a session waits for beam, whoever gives it its plans."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from apsber_bluesky.core import ConfigurationError, SuspenderSettings

logger = logging.getLogger(__name__)


def install_suspenders(
    engine: Any, devices: Mapping[str, Any], settings: SuspenderSettings | None
) -> list[Any]:
    """Have a RunEngine suspend plans while there is no beam.

    They watch the RunEngine, not single plans, so they also hold what IPython and queueserver give
    it. Plans that run on another RunEngine take `apsber_bluesky.devices.with_beam`.

    Parameters
    ----------
    engine : bluesky.RunEngine
        The engine.
    devices : mapping
        Devices of the session, by name.
    settings : SuspenderSettings or None
        When plans wait; None for never.

    Returns
    -------
    list of SuspenderBase
        Those that were installed; none if the storage ring is missing, with a note in the log.

    Raises
    ------
    ConfigurationError
        If the device of that name is no storage ring.
    """
    from apsber_bluesky.devices import StorageRing, beam_suspenders

    if settings is None:
        return []
    ring = devices.get(settings.storage_ring)
    if ring is not None and not isinstance(ring, StorageRing):
        raise ConfigurationError(
            f"session.suspenders.storage_ring is {settings.storage_ring!r}, a"
            f" {type(ring).__name__}; give the name of a StorageRing"
        )
    suspenders = beam_suspenders(
        ring,
        ring_current_mA=settings.ring_current_mA,
        resume_mA=settings.resume_mA,
        permit=settings.permit,
        settle_s=settings.settle_s,
    )
    for suspender in suspenders:
        engine.install_suspender(suspender)
    return list(suspenders)
