"""The records of a soft IOC with which captures are asked for; they keep what is written."""

from __future__ import annotations

from typing import Any

from apsber_bluesky.simulation import _channels as ca

_COMMANDS = ("Capture", "Flats", "Darks", "End")


class CaptureRequests:
    """Commands, number of captures and state of a scan that turns on and on.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:capture:"``.

    Attributes
    ----------
    channels : dict of str to channel
        The records, by PV name.
    """

    def __init__(self, prefix: str) -> None:
        records: dict[str, Any] = {name: ca.integer(0) for name in (*_COMMANDS, "Count")}
        records["State"] = ca.text()
        self.channels: dict[str, Any] = {f"{prefix}{name}": own for name, own in records.items()}
