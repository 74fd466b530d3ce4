"""The sections of a profile about frames in motion, and who may look at them."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
)

from apsber_bluesky.core._settings import Settings

PVA_PORT: Final = 5075
PVA_BROADCAST_PORT: Final = 5076

# Characters that mean nothing to the gateway's own files, where names are part of regular
# expressions and lines.
_NAME: Final = r"[A-Za-z0-9_.:\[\]<>;{}/-]"
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")

PvPrefix = Annotated[str, StringConstraints(pattern=rf"^{_NAME}{{1,40}}$")]
PvPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:\[\]<>;{}/*-]{1,200}$")]


def _interface(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise ValueError("give the IPv4 address of a network interface, as 127.0.0.1") from None


def _accounts(value: dict[str, list[str]]) -> dict[str, list[str]]:
    for pattern, names in value.items():
        wrong = [name for name in names if not _ACCOUNT.fullmatch(name)]
        if wrong or not names:
            raise ValueError(f"{pattern!r} names {wrong or 'no accounts'}; give login names")
    return value


Interface = Annotated[str, AfterValidator(_interface)]
Port = Annotated[int, Field(ge=1024, lt=65536)]


class StreamingLimits(Settings):
    """When the live health of the receiver deserves a warning.

    Attributes
    ----------
    ring_fill : float
        Part of the ring whose frames somebody still waits for; above it consumers are behind.
    spool_minutes : float
        Time until the disk is full at the present rate [min].
    spool_free_percent : float
        Room on the disk [% of its size].
    backlog_frames : int
        Frames that wait for the disk, while they become more.
    silent_s : float
        Time without a frame while a series is armed [s].
    """

    ring_fill: float = Field(default=0.8, gt=0, le=1)
    spool_minutes: NonNegativeFloat = 10.0
    spool_free_percent: float = Field(default=5.0, ge=0, le=100)
    backlog_frames: PositiveInt = 16
    silent_s: PositiveFloat = 10.0


class DetectorStreamSettings(Settings):
    """The stream of one detector that has a receiver of its own.

    Attributes
    ----------
    frame_address, format, codec, channels, module_grid
        As in `StreamingSettings`; ``auto`` takes the simulated detector's address.
    pva : str or None
        NTNDArray PV of a detector that speaks only PV Access; it is relayed to the receiver, and
        `frame_address` is not used. ``auto`` takes the simulated detector's.
    first_id : int or None
        ``uniqueId`` of the first frame of every series at that PV, for hardware that counts each
        from the same number; None for a counter that runs on, as areaDetector's.
    ring_megabytes : int
        Size of its shared-memory ring [MB].
    """

    frame_address: str = "auto"
    format: Literal["apsber", "eiger1", "eiger2", "jungfrau"] = "apsber"
    codec: Literal["none", "bslz4", "lz4"] = "none"
    channels: PositiveInt = 1
    module_grid: tuple[PositiveInt, PositiveInt] = (1, 1)
    pva: str | None = None
    first_id: NonNegativeInt | None = None
    ring_megabytes: PositiveInt = 32


class StreamingSettings(Settings):
    """Frames in motion.

    Attributes
    ----------
    frame_address : str
        ZMQ address of the detector's frame port; ``auto`` takes the simulated camera's. Several,
        one for each module of a Jungfrau, are separated by commas. ``pva://`` and the PV of an
        NTNDArray has that relayed; macros in it are replaced.
    format : {"apsber", "eiger1", "eiger2", "jungfrau"}
        What the detector speaks there: the suite's own protocol, DECTRIS Stream V1 (legacy) or V2
        (CBOR), or that of slsReceiver.
    codec : {"none", "bslz4", "lz4"}
        How the detector compresses frames; they are stored as they come.
    channels : int
        Images per frame: thresholds of an EIGER.
    module_grid : tuple of int
        Rows and columns of modules that make up a Jungfrau.
    ring_megabytes : int
        Size of the shared-memory ring [MB].
    decode_workers : int
        Processes that decode compressed frames into the ring; 0 leaves that to the consumers.
    writer_backlog_megabytes : int
        Frames that may wait for the disk [MB].
    high_water_mark : int
        Frames that may wait in the receiver's socket.
    series_timeout_s : float
        How long a series may be silent [s] before its missing frames are given up.
    retake_s : float
        Frames that came less than this long before a scan was interrupted are taken again [s];
        those of a scan that can be are announced so much later. As long as what interrupts scans,
        such as a beam that is lost, takes to be noticed.
    fan_out_address : str or None
        ZMQ address at which consumers on other computers get frames, e.g. ``tcp://0.0.0.0:5601``;
        None serves nobody.
    fan_out_encrypted : bool
        Whether only consumers with an allowed key get them (``apsber keys``).
    preview_hz : float
        Most frames per second that the preview shows [Hz]; 0 shows none.
    health_prefix : str
        What the PVs of health and preview begin with.
    pva_port : int
        Port of these PVs on this computer, TCP and UDP; 0 takes any free one.
    limits : StreamingLimits
        When health deserves a warning.
    detectors : dict of str to DetectorStreamSettings
        Detectors, by name, that have a receiver of their own, started when one is first used.
        All others share the address above.
    """

    frame_address: str = "auto"
    format: Literal["apsber", "eiger1", "eiger2", "jungfrau"] = "apsber"
    codec: Literal["none", "bslz4", "lz4"] = "none"
    channels: PositiveInt = 1
    module_grid: tuple[PositiveInt, PositiveInt] = (1, 1)
    ring_megabytes: PositiveInt = 128
    decode_workers: NonNegativeInt = 1
    writer_backlog_megabytes: PositiveInt = 64
    high_water_mark: PositiveInt = 256
    series_timeout_s: PositiveFloat = 10.0
    retake_s: NonNegativeFloat = 0.2
    fan_out_address: str | None = None
    fan_out_encrypted: bool = True
    preview_hz: float = Field(default=2.0, ge=0, le=10)
    health_prefix: PvPrefix = "APSBER:"
    pva_port: Port | Literal[0] = 0
    limits: StreamingLimits = StreamingLimits()
    detectors: dict[str, DetectorStreamSettings] = Field(default_factory=dict)

    def of_detector(self, name: str) -> StreamingSettings:
        """The settings of the receiver that a detector has for itself."""
        own = self.detectors[name].model_dump(exclude={"pva", "first_id"})
        return self.model_copy(update={**own, "detectors": {}})

    @property
    def preview_pv(self) -> str:
        """Name of the PV that shows the newest frame."""
        return f"{self.health_prefix}Preview:Image"


class GatewaySettings(Settings):
    """What ``apsber gateway`` shows of this beamline to a wider network.

    Attributes
    ----------
    interface : str
        IPv4 address of the network interface at which clients find the gateway.
    server_port, broadcast_port : int
        Its ports, TCP and UDP.
    upstream : list of str
        Addresses of the IOCs that have the PVs of `pvs`, as in ``EPICS_PVA_ADDR_LIST``; the
        health and preview of the session need none.
    upstream_broadcast_port : int
        UDP port at which these IOCs are searched for.
    pvs : list of str
        PVs of these IOCs that are shown; ``*`` stands for anything. All others are hidden.
    writable : dict of str to list of str
        PVs that may be written -> accounts that may do so. Clients say themselves who they are:
        this guards against accidents, not against attackers.
    status_prefix : str
        What the PVs of the gateway's own state begin with.
    """

    interface: Interface = "127.0.0.1"
    server_port: Port = PVA_PORT
    broadcast_port: Port = PVA_BROADCAST_PORT
    upstream: list[str] = Field(default_factory=list)
    upstream_broadcast_port: Port = PVA_BROADCAST_PORT
    pvs: list[PvPattern] = Field(default_factory=list)
    writable: Annotated[dict[PvPattern, list[str]], AfterValidator(_accounts)] = Field(
        default_factory=dict
    )
    status_prefix: PvPrefix = "GWS:"
