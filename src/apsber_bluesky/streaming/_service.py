"""The receiver as a process of its own: settings in on standard input, a ready line out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apsber_bluesky.core import ApsberError, StreamingSettings, begin_service, book_name
from apsber_bluesky.streaming._message_memory import keep_message_memory
from apsber_bluesky.streaming._messages import Outbox
from apsber_bluesky.streaming._receiver import Receiver
from apsber_bluesky.streaming._ring import FrameRing

if TYPE_CHECKING:
    from apsber_bluesky.streaming._relayed_port import RelayedPort


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``frame_address``, ``data_root``,
    ``ring_descriptor``, ``status_address`` and the settings ``streaming``; ``state_file``, from
    which a receiver goes on that follows one which was killed; ``control_address``, that of the one
    before; ``detector``, if the receiver is for one alone; ``pva`` and ``first_id`` if the detector
    speaks only PV Access, and ``environment``, in which its channel is found. The ready line on
    standard output holds ``control_address``.
    """
    keep_message_memory()
    settings, stop = begin_service()
    # Where PV Access looks, if that was decided after this process was started.
    os.environ.update(settings.get("environment", {}))
    with ExitStack() as stack:
        status = Outbox(settings["status_address"])
        stack.callback(status.close)
        ring = FrameRing(settings["ring_descriptor"])
        stack.callback(ring.close)
        try:
            ring.touch()
            with _receiver(settings, ring, status) as receiver:
                ready = {"ready": True, "control_address": receiver.control_address}
                print(json.dumps(ready), flush=True)  # noqa: T201
                receiver.serve(stop.is_set)
        except ApsberError as error:
            print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
            return 1
    return 0


@contextmanager
def _receiver(settings: dict[str, Any], ring: FrameRing, status: Outbox) -> Iterator[Receiver]:
    def report(run_uid: str, stream: str, received: int, expected: int) -> None:
        status.send(
            {
                "type": "frames",
                "run_uid": run_uid,
                "stream": book_name(stream, detector),
                "received": received,
                "expected": expected,
            }
        )

    def warn(run_uid: str, text: str) -> None:
        status.send({"type": "warning", "run_uid": run_uid, "stage": "receive", "message": text})

    streaming = StreamingSettings(**settings["streaming"])
    detector = str(settings.get("detector", ""))
    with ExitStack() as stack:
        port = _relayed_port(settings, streaming)
        if port is not None:
            stack.callback(port.close)
        receiver = Receiver(
            settings["frame_address"] if port is None else port.address,
            Path(settings["data_root"]),
            ring,
            settings=streaming,
            report=report,
            warn=warn,
            control_address=settings.get("control_address", "tcp://127.0.0.1:*"),
            state_file=Path(settings["state_file"]) if "state_file" in settings else None,
            detector=detector,
            on_series=(lambda _: None) if port is None else port.on_series,
        )
        stack.callback(receiver.close)
        yield receiver


def _relayed_port(settings: dict[str, Any], streaming: StreamingSettings) -> RelayedPort | None:
    channel = settings.get("pva")
    if channel is None:
        return None
    from apsber_bluesky.core import forgo_real_time

    # Before the import: EPICS' library decides then what its threads may do.
    forgo_real_time()
    from apsber_bluesky.streaming._relayed_port import RelayedPort

    return RelayedPort(
        channel, queue_size=streaming.high_water_mark, first_id=settings.get("first_id")
    )
