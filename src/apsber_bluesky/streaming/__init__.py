"""Frames in motion: received, accounted for, spooled and handed on."""

from typing import TYPE_CHECKING, Any

from apsber_bluesky.streaming._client import ReceiverClient
from apsber_bluesky.streaming._codecs import decode, encode, hdf5_filter
from apsber_bluesky.streaming._eiger_header1 import Expectation
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._gateway import (
    check_gateway_files,
    check_gateway_network,
    write_gateway_files,
)
from apsber_bluesky.streaming._health import (
    HealthCounter,
    HealthWarning,
    ReceiverHealth,
    find_warnings,
    time_until_full_s,
)
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._live_slices import SlicePublisher, SliceSubscriber
from apsber_bluesky.streaming._messages import Inbox, Outbox
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._publisher import FramePublisher
from apsber_bluesky.streaming._receiver import Receiver
from apsber_bluesky.streaming._ring import FrameRing, create_ring_memory
from apsber_bluesky.streaming._series_messages import (
    Codec,
    Frame,
    FrameReader,
    SeriesEnd,
    SeriesStart,
)
from apsber_bluesky.streaming._source import RingOrFileSource, path_of_uri
from apsber_bluesky.streaming._spool_audit import audit_spool, read_spool_index, reconcile_books
from apsber_bluesky.streaming._status_messages import StatusPublisher, StatusSubscriber

if TYPE_CHECKING:
    from apsber_bluesky.streaming._relay import PvaMonitor, Relay, RelayBooks
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import ClientKeys, FanOutClient
from apsber_bluesky.streaming._fan_out_distributor import FanOutLimits
from apsber_bluesky.streaming._fan_out_runs import missing_in_ledger
from apsber_bluesky.streaming._keys import (
    KeyPair,
    allow_key,
    allowed_folder,
    allowed_keys,
    create_keys,
    list_keys,
    load_keys,
    load_public_key,
)
from apsber_bluesky.streaming._preview import Preview, PreviewPublisher, PreviewSubscriber

__all__ = [
    "ClientKeys",
    "Codec",
    "CurveAuthenticator",
    "EigerStream1Reader",
    "EigerStream2Reader",
    "Expectation",
    "FanOut",
    "FanOutClient",
    "FanOutLimits",
    "Frame",
    "FramePublisher",
    "FrameReader",
    "FrameRing",
    "HealthCounter",
    "HealthWarning",
    "Inbox",
    "JungfrauReader",
    "KeyPair",
    "NtndarrayReader",
    "Outbox",
    "Preview",
    "PreviewPublisher",
    "PreviewSubscriber",
    "PvaMonitor",
    "Receiver",
    "ReceiverClient",
    "ReceiverHealth",
    "Relay",
    "RelayBooks",
    "RingOrFileSource",
    "SeriesEnd",
    "SeriesStart",
    "SlicePublisher",
    "SliceSubscriber",
    "StatusPublisher",
    "StatusSubscriber",
    "allow_key",
    "allowed_folder",
    "allowed_keys",
    "audit_spool",
    "check_gateway_files",
    "check_gateway_network",
    "create_keys",
    "create_ring_memory",
    "decode",
    "encode",
    "find_warnings",
    "hdf5_filter",
    "list_keys",
    "load_keys",
    "load_public_key",
    "missing_in_ledger",
    "path_of_uri",
    "read_spool_index",
    "reconcile_books",
    "time_until_full_s",
    "write_gateway_files",
]


def __getattr__(name: str) -> Any:
    # These import p4p, whose EPICS threads the receiver does without.
    if name in ("PvaMonitor", "Relay", "RelayBooks"):
        from apsber_bluesky.streaming import _relay

        return getattr(_relay, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
