"""Frames for consumers on other computers, served beside the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from apsber_bluesky.core import StreamingSettings
from apsber_bluesky.streaming import (
    CurveAuthenticator,
    FanOut,
    FrameRing,
    RingOrFileSource,
    allowed_folder,
    load_keys,
)

#: Name of the key pair that the fan-out shows to its clients (``apsber keys create server``).
SERVER_KEY: Final = "server"


@contextmanager
def serve_fan_out(
    settings: StreamingSettings, keys: Path, ring: FrameRing
) -> Iterator[FanOut | None]:
    """Serve frames while the body runs, if the profile wants it.

    Parameters
    ----------
    settings : StreamingSettings
        ``fan_out_address``, and whether it is encrypted.
    keys : Path
        Folder of the server's keys and of those it allows.
    ring : FrameRing
        The receiver's ring.

    Yields
    ------
    FanOut or None
        To be told of runs and frames; None if the profile has no address.

    Raises
    ------
    ServiceError
        If the address cannot be bound, or is open to the network and not encrypted.
    StorageError
        If there are no keys, or others could read them.
    """
    if settings.fan_out_address is None:
        yield None
        return
    with ExitStack() as stack:
        authenticator = None
        if settings.fan_out_encrypted:
            authenticator = CurveAuthenticator(load_keys(keys, SERVER_KEY), allowed_folder(keys))
            stack.callback(authenticator.close)
        source = RingOrFileSource(ring)
        stack.callback(source.close)
        fan_out = FanOut(source.read, settings.fan_out_address, authenticator=authenticator)
        stack.callback(fan_out.close)
        yield fan_out
