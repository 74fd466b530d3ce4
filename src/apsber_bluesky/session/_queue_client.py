"""A client of a queue server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import zmq

from apsber_bluesky.core import InputError, ServiceError
from apsber_bluesky.session._queue_folder import QueueAddress

_REQUEST_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.1
_USER: Final = {"user": "apsber", "user_group": "primary"}

#: How long the worker may take to see the runs of the queue through to the archive [s].
PROCESSING_TIMEOUT_S: Final = 600.0


class QueueClient:
    """Ask a queue server for things; one at a time.

    Parameters
    ----------
    control_address : str
        Where the server listens, e.g. ``tcp://127.0.0.1:60615``.
    public_key : str or None
        Its public key, Z85; None for a server without.
    timeout_s : float
        How long one answer may take [s].
    """

    def __init__(
        self,
        control_address: str,
        public_key: str | None,
        timeout_s: float = _REQUEST_TIMEOUT_S,
    ) -> None:
        self.control_address = control_address
        self._timeout_ms = int(1000 * timeout_s)
        self._public_key = public_key
        self._context = zmq.Context()
        self._socket = self._connect()

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.REQ)
        socket.linger = 0
        try:
            if self._public_key is not None:
                socket.curve_serverkey = self._public_key.encode()
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.connect(self.control_address)
        except (zmq.ZMQError, ValueError) as error:
            self._context.destroy(linger=0)
            raise InputError(
                f"cannot use the queue server's address {self.control_address!r} or its key:"
                f" {error}"
            ) from None
        return socket

    @classmethod
    def at(cls, address: QueueAddress) -> Self:
        """The client of a server of this computer."""
        return cls(address.control_address, address.public_key)

    def close(self) -> None:
        """Let go of the server."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One request, as the manager's API documents it.

        Raises
        ------
        ServiceError
            If nobody answers.
        InputError
            If the manager refuses; the message is its own.
        """
        self._socket.send_json({"method": method, "params": parameters})
        if not self._socket.poll(self._timeout_ms):
            # A socket that has asked must hear the answer before it may ask again.
            self._socket.close()
            self._socket = self._connect()
            raise ServiceError(
                f"no queue server answers at {self.control_address}: it is not running, or does"
                " not know this key"
            )
        answer: dict[str, Any] = self._socket.recv_json()  # type: ignore[assignment]
        if answer.get("success") is False:
            raise InputError(str(answer.get("msg") or f"{method} was refused"))
        return answer

    def status(self) -> dict[str, Any]:
        """The manager's status."""
        return self.request("status")

    def queue(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Items that wait, and the one that runs."""
        answer = self.request("queue_get")
        return answer["items"], answer["running_item"] or None

    def history(self) -> list[dict[str, Any]]:
        """Items that have run, the oldest first, each with its ``result``."""
        return list(self.request("history_get")["items"])

    def plans(self) -> dict[str, Any]:
        """Descriptions of the plans, by name."""
        return dict(self.request("plans_allowed", user_group="primary")["plans_allowed"])

    def devices(self) -> dict[str, Any]:
        """Descriptions of the devices, by name."""
        return dict(self.request("devices_allowed", user_group="primary")["devices_allowed"])

    def add(self, plan: str, arguments: dict[str, Any]) -> str:
        """Put a plan at the end of the queue.

        Returns
        -------
        str
            Uid of the item.

        Raises
        ------
        InputError
            If the manager refuses it.
        """
        item = {"item_type": "plan", "name": plan, "args": [], "kwargs": arguments}
        answer = self.request("queue_item_add", item=item, **_USER)
        return str(answer["item"]["item_uid"])

    def wait(
        self,
        done: Callable[[dict[str, Any]], bool],
        timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Any]:
        """Wait until the manager's status is as wanted.

        Raises
        ------
        ServiceError
            If it takes too long.
        """
        deadline = time.monotonic() + timeout_s
        while not done(status := self.status()):
            check()
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"the queue server is still {status['manager_state']} after {timeout_s:g} s"
                )
            time.sleep(_POLL_S)
        return status

    def open_environment(
        self, timeout_s: float, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Open the worker's environment: start the session in it.

        Raises
        ------
        ServiceError
            If it does not open; the manager's log says why.
        """
        self.request("environment_open")
        status = self.wait(lambda now: now["manager_state"] == "idle", timeout_s, check)
        if not status["worker_environment_exists"]:
            raise ServiceError("the environment of the queue did not open")
        return status

    def start(self) -> None:
        """Run what is in the queue."""
        self.request("queue_start")

    def abort(self, timeout_s: float = 60.0) -> bool:
        """Stop the plan that is running, now, in good order; the rest of the queue stays.

        Returns
        -------
        bool
            Whether a plan was running.
        """
        status = self.status()
        if status["manager_state"] not in ("executing_queue", "starting_queue", "paused"):
            return False
        if status["manager_state"] != "paused":
            self.request("re_pause", option="immediate")
        # A plan that was about to end, or cannot be resumed, does not get as far as pausing.
        halted = ("paused", "idle")
        status = self.wait(lambda now: now["manager_state"] in halted, timeout_s)
        if status["manager_state"] == "paused":
            self.request("re_abort")
            self.wait(lambda now: now["manager_state"] == "idle", timeout_s)
        return True

    def finish(self, timeout_s: float = 86400.0) -> bool:
        """Let the plan that is running end, and start no other.

        Returns
        -------
        bool
            Whether a plan was running.
        """
        if self.status()["manager_state"] == "idle":
            return False
        self.request("queue_stop")
        self.wait(lambda now: now["manager_state"] == "idle", timeout_s)
        return True

    def close_environment(self, timeout_s: float = PROCESSING_TIMEOUT_S) -> None:
        """End the session of the worker once its runs are in the archive, then the worker."""
        if not self.status()["worker_environment_exists"]:
            return
        function = {
            "item_type": "function",
            "name": "close_session",
            "kwargs": {"timeout_s": timeout_s},
        }
        with _unless_refused():
            answer = self.request("function_execute", item=function, **_USER)
            task = answer["task_uid"]
            self.wait(lambda _: self._is_completed(task), timeout_s + 60.0)
        self.wait(lambda now: now["manager_state"] == "idle", timeout_s)
        self.request("environment_close")
        self.wait(lambda now: now["manager_state"] == "idle", 60.0)

    def _is_completed(self, task_uid: str) -> bool:
        return bool(self.request("task_status", task_uid=task_uid)["status"] != "running")

    def shut_down(self, *, now: bool) -> None:
        """End the plan, the environment and the manager.

        Parameters
        ----------
        now : bool
            Whether the plan that is running is aborted; else it runs to its end.
        """
        if now:
            self.abort()
        else:
            self.finish()
        self.close_environment()
        self.request("manager_stop", option="safe_on")


@contextmanager
def _unless_refused() -> Iterator[None]:
    """A worker whose startup is not ours has no ``close_session``, and needs none."""
    try:
        yield
    except InputError as error:
        if "close_session" not in str(error):
            raise
