"""A working beamline session from one profile: ``start("simulated")``."""

from apsber_bluesky.session._epics import prepare_epics
from apsber_bluesky.session._live_session import LiveSession, live_session
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._session import Session, start
from apsber_bluesky.session._workplace import Workplace, check_data_root

__all__ = [
    "LiveSession",
    "ServiceProcess",
    "Session",
    "Workplace",
    "check_data_root",
    "live_session",
    "prepare_epics",
    "start",
]
