"""Health and preview as PVs: what they are called, and how they are served on this computer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from apsber_bluesky.core import ConfigurationError
from apsber_bluesky.streaming._health import HealthWarning, ReceiverHealth, WarningKind
from apsber_bluesky.streaming._preview import bin_frame

LOOPBACK: Final = "127.0.0.1"

#: A larger frame is binned before it is shown [pixel].
PREVIEW_PIXELS: Final = 1 << 20

# EPICS' severities, and its status for what a device or a driver says.
_NO_ALARM, _MINOR, _MAJOR, _INVALID = range(4)
_NO_STATUS, _DEVICE, _DRIVER = range(3)

_UNION: Final = {
    "|i1": "byteValue",
    "<i2": "shortValue",
    "<i4": "intValue",
    "<i8": "longValue",
    "|u1": "ubyteValue",
    "<u2": "ushortValue",
    "<u4": "uintValue",
    "<u8": "ulongValue",
    "<f4": "floatValue",
    "<f8": "doubleValue",
}


@dataclass(frozen=True, slots=True)
class HealthPv:
    """One number of the health as a PV.

    Attributes
    ----------
    suffix : str
        Name behind ``<prefix>Health:``.
    field : str
        Attribute of `ReceiverHealth`.
    code : str
        p4p's code of the type.
    units, description : str
        For displays.
    kind : str or None
        The warning that puts it into alarm.
    """

    suffix: str
    field: str
    code: str
    units: str
    description: str
    kind: WarningKind | None = None


HEALTH_PVS: Final = (
    HealthPv("RunUid_RBV", "run_uid", "s", "", "run that is armed, or was last"),
    HealthPv("Stream_RBV", "stream", "s", "", "its stream: darks, flats or primary"),
    HealthPv("Armed_RBV", "armed", "?", "", "whether frames are expected now"),
    HealthPv("Expected_RBV", "expected", "l", "frames", "frames that were to come"),
    HealthPv("Received_RBV", "received", "l", "frames", "frames that came"),
    HealthPv("Written_RBV", "written", "l", "frames", "frames that are on disk"),
    HealthPv("Missing_RBV", "missing", "l", "frames", "gaps before the newest frame"),
    HealthPv("Duplicated_RBV", "duplicated", "l", "frames", "frames that came again"),
    HealthPv("Refused_RBV", "refused", "l", "frames", "frames that did not fit", "refused"),
    HealthPv("FrameRate_RBV", "frame_rate_hz", "d", "Hz", "over the last seconds", "silent"),
    HealthPv("DataRate_RBV", "data_rate_mb_s", "d", "MB/s", "stored bytes, over the last seconds"),
    HealthPv("Silent_RBV", "silent_s", "d", "s", "time since the last frame", "silent"),
    HealthPv("Backlog_RBV", "backlog_frames", "l", "frames", "wait for the disk", "backlog"),
    HealthPv("RingSlots_RBV", "ring_slots", "l", "frames", "frames that the ring holds"),
    HealthPv("RingFill_RBV", "ring_fill", "d", "", "part that a consumer has yet to take", "ring"),
    HealthPv("SpoolFree_RBV", "spool_free_gb", "d", "GB", "room on the disk", "disk"),
    HealthPv("SpoolSize_RBV", "spool_size_gb", "d", "GB", "size of the disk"),
    HealthPv("SpoolTime_RBV", "spool_free_s", "d", "s", "until it is full at this rate", "disk"),
    HealthPv("DecodePending_RBV", "decode_pending", "l", "frames", "wait to be decoded"),
    HealthPv("Decoded_RBV", "decoded", "l", "frames", "frames that were decoded"),
    HealthPv("Failure_RBV", "failure", "s", "", "why nothing can be written", "failure"),
)
WARNINGS_SUFFIX: Final = "Warnings_RBV"


class HealthPvs:
    """The health of the receiver on PVs ``<prefix>Health:...``, which nobody can write.

    Parameters
    ----------
    prefix : str
        What their names begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._pvs: dict[str, SharedPV] = {}
        self._types: dict[str, Any] = {}
        self._shown: dict[str, tuple[Any, int, str]] = {}
        self._prefix = f"{prefix}Health:"
        empty = ReceiverHealth()
        for pv in HEALTH_PVS:
            description = {"units": pv.units, "description": pv.description}
            self._open(pv.suffix, pv.code, _shown(pv, empty), {"display": description})
        self._open(WARNINGS_SUFFIX, "as", [], {})
        self.show(empty, [])
        self.lost("the receiver has not answered yet")

    def _open(self, suffix: str, code: str, value: Any, more: dict[str, Any]) -> None:
        kind = NTScalar.buildType(code, display=bool(more))
        self._types[suffix] = kind
        self._pvs[suffix] = SharedPV(initial=Value(kind, {"value": value, **more}))

    def add_to(self, provider: StaticProvider) -> None:
        """Have a server offer them."""
        for suffix, pv in self._pvs.items():
            provider.add(self._prefix + suffix, pv)

    def show(self, health: ReceiverHealth, warnings: Sequence[HealthWarning]) -> None:
        """Show what has changed; a PV with a warning is in alarm."""
        by_kind = {warning.kind: warning for warning in warnings}
        for pv in HEALTH_PVS:
            warning = by_kind.get(pv.kind) if pv.kind is not None else None
            severity = _NO_ALARM if warning is None else _severity(warning)
            message = "" if warning is None else warning.message
            self._post(pv.suffix, _shown(pv, health), severity, message)
        worst = max((_severity(warning) for warning in warnings), default=_NO_ALARM)
        messages = [warning.message for warning in warnings]
        self._post(WARNINGS_SUFFIX, messages, worst, messages[0] if messages else "")

    def lost(self, why: str) -> None:
        """Mark all values as no longer true."""
        for suffix, (value, _, _) in list(self._shown.items()):
            self._post(suffix, value, _INVALID, why)
        self._post(WARNINGS_SUFFIX, [why], _INVALID, why)

    def _post(self, suffix: str, value: Any, severity: int, message: str) -> None:
        shown = (value, severity, message)
        if self._shown.get(suffix) == shown:
            return
        self._shown[suffix] = shown
        status = {_NO_ALARM: _NO_STATUS, _INVALID: _DRIVER}.get(severity, _DEVICE)
        fields = {
            "value": value,
            "alarm": {"severity": severity, "status": status, "message": message},
            "timeStamp": _stamp(time.time()),
        }
        self._pvs[suffix].post(Value(self._types[suffix], fields))


def _shown(pv: HealthPv, health: ReceiverHealth) -> Any:
    value = getattr(health, pv.field)
    return math.inf if value is None else value


def _severity(warning: HealthWarning) -> int:
    return _MAJOR if warning.serious else _MINOR


def _stamp(time_s: float) -> dict[str, int]:
    return {
        "secondsPastEpoch": int(time_s),
        "nanoseconds": int(time_s % 1 * 1e9),
    }


class PreviewPv:
    """The newest frame or slice on an NTNDArray, as areaDetector shows images.

    Before the first frame it is one black pixel with the id -1.

    Parameters
    ----------
    name : str
        Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._type = NTNDArray.buildType()
        self._pv = SharedPV(initial=self._value(np.zeros((1, 1), np.uint8), -1, {}, ""))

    def add_to(self, provider: StaticProvider) -> None:
        """Have a server offer it."""
        provider.add(self.name, self._pv)

    def show(
        self,
        pixels: NDArray[Any],
        number: int,
        attributes: Mapping[str, str | float],
        *,
        warning: str = "",
    ) -> None:
        """Show a frame, shape ``(rows, columns)``, with its number as ``uniqueId``.

        A warning makes its alarm MINOR.
        """
        self._pv.post(self._value(pixels, number, attributes, warning))

    def _value(
        self,
        pixels: NDArray[Any],
        number: int,
        attributes: Mapping[str, str | float],
        warning: str,
    ) -> Value:
        side = binning_for(pixels.shape)
        small = bin_frame(pixels, side)
        stamp = _stamp(time.time())
        return Value(
            self._type,
            {
                "value": (_UNION[small.dtype.str], small.reshape(-1)),
                "codec": {"name": ""},
                "compressedSize": small.nbytes,
                "uncompressedSize": small.nbytes,
                "uniqueId": number,
                "dataTimeStamp": stamp,
                "timeStamp": stamp,
                "alarm": {
                    "severity": _MINOR if warning else _NO_ALARM,
                    "status": _DEVICE if warning else _NO_STATUS,
                    "message": warning,
                },
                # Columns come first in an NTNDArray.
                "dimension": [
                    {"size": now, "offset": 0, "fullSize": full, "binning": side, "reverse": False}
                    for now, full in zip(small.shape[::-1], pixels.shape[::-1], strict=True)
                ],
                "attribute": [
                    {"name": name, "value": value, "descriptor": "", "sourceType": 0, "source": ""}
                    for name, value in {"ColorMode": 0, **attributes}.items()
                ],
            },
        )


def binning_for(shape: Sequence[int]) -> int:
    """Side of the squares that keep a preview of a frame below `PREVIEW_PIXELS`."""
    pixels = math.prod(shape)
    return max(1, math.ceil(math.sqrt(pixels / PREVIEW_PIXELS)))


def serve_here(provider: StaticProvider, port: int) -> Server:
    """Serve PVs to this computer alone.

    Parameters
    ----------
    provider : StaticProvider
        The PVs.
    port : int
        TCP and UDP port; 0 for free ones.

    Raises
    ------
    ConfigurationError
        If the port is taken.
    """
    if port == 0:
        return Server(providers=[provider], isolate=True)
    settings = {
        "EPICS_PVAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVAS_BROADCAST_PORT": str(port),
    }
    server = Server(providers=[provider], conf=settings, useenv=False)
    # It takes another port, with a line in its log, when this one is taken.
    if server_port(server) != port:
        server.stop()
        raise ConfigurationError(
            f"streaming.pva_port {port} is taken on {LOOPBACK}; give another, or 0 for any"
        )
    return server


def server_port(server: Server) -> int:
    """The TCP port that a server really has."""
    return int(server.conf()["EPICS_PVAS_SERVER_PORT"])
