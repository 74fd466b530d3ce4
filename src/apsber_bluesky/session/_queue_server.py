"""A queue server: Redis and queueserver's RE manager, started and stopped together."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from apsber_bluesky.core import ApsberError, InputError, Profile, ServiceError
from apsber_bluesky.session._interactive import PROFILE_VARIABLE
from apsber_bluesky.session._queue_client import QueueClient
from apsber_bluesky.session._queue_folder import FOLDER_VARIABLE, QueueAddress, QueueFolder
from apsber_bluesky.session._queue_redis import check_redis, embedded_settings
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._workplace import check_data_root

logger = logging.getLogger(__name__)

#: What clients of queueserver try if they are not told.
QUEUE_PORT: Final = 60615

_START_TIMEOUT_S: Final = 60.0
_OPEN_TIMEOUT_S: Final = 180.0
_INFO_OFFSET: Final = 10
#: A Redis of somebody else runs already, or does not.
_REDIS_TIMEOUT_S: Final = 2.0
_LOOPBACK: Final = "127.0.0.1"


class QueueServer:
    """The queue of one data root.

    Parameters
    ----------
    profile_name : str
        Name or file of the profile, for the worker.
    profile : Profile
        The same profile, read.
    redis : str or None
        ``HOST:PORT`` of a Redis; None starts one.
    port : int, optional
        Port of the control socket on the loopback interface, 0 for any. Console output is published
        ten ports higher, or at any. If not given it is `QUEUE_PORT`, or any if that is taken.
    """

    def __init__(
        self,
        profile_name: str,
        profile: Profile,
        *,
        redis: str | None = None,
        port: int | None = None,
    ) -> None:
        if port is not None and not 0 <= port <= 65535 - _INFO_OFFSET:
            raise InputError(f"port is {port}; give one from 0 (any) to {65535 - _INFO_OFFSET}")
        self._profile_name = profile_name
        self._data_root = profile.session.data_root.resolve()
        self._redis = redis
        self._port = port
        self.folder = QueueFolder(self._data_root)
        self._stack = ExitStack()
        self._services: list[ServiceProcess] = []
        self._manager: ServiceProcess | None = None
        self.address: QueueAddress | None = None

    def start(self, check: Callable[[], None] = lambda: None) -> QueueAddress:
        """Start everything and open the environment; on any failure nothing is left running.

        Parameters
        ----------
        check : callable
            Called now and then; may raise to give up.

        Returns
        -------
        QueueAddress
            Where clients find it.

        Raises
        ------
        ServiceError
            If Redis, the manager or the environment does not start.
        """
        check_data_root(self._data_root)
        if (other := self.folder.address()) is not None:
            raise ServiceError(
                f"process {other.pid} already runs the queue of {self._data_root}; stop it with"
                " 'apsber queue stop'"
            )
        public_key, secret_key = self.folder.make_keys()
        with ExitStack() as stack:
            redis_address = self._start_redis(stack, check)
            control, info = (f"tcp://{_LOOPBACK}:{port}" for port in self._ports())
            config = self.folder.write_config(
                {
                    "network": {
                        "zmq_control_addr": control,
                        "zmq_info_addr": info,
                        "zmq_private_key": secret_key,
                        "redis_addr": redis_address,
                    }
                }
            )
            address = self.folder.announce(control, info, public_key)
            stack.callback(self.folder.withdraw)
            self._manager = self._start_manager(stack, config, check)
            self._open(address, check)
            self.address = address
            self._stack = stack.pop_all()
        return address

    def _start_redis(self, stack: ExitStack, check: Callable[[], None]) -> str:
        if self._redis is not None:
            check_redis(self._redis, _REDIS_TIMEOUT_S)
            return self._redis
        settings, address = embedded_settings(self.folder.path, _free_port())
        service = self._launch(stack, "redis")
        service.configure(settings)
        service.wait_ready(_START_TIMEOUT_S, check)
        check_redis(address)
        return address

    def _launch(self, stack: ExitStack, name: str) -> ServiceProcess:
        log = self.folder.path / f"{name}-{os.getpid()}.log"
        service = ServiceProcess(name, ["apsber_bluesky.session", f"queue-{name}"], log)
        stack.callback(service.stop)
        self._services.append(service)
        return service

    def _start_manager(
        self, stack: ExitStack, config: Path, check: Callable[[], None]
    ) -> ServiceProcess:
        manager = self._launch(stack, "manager")
        name = self._profile_name
        profile = str(Path(name).expanduser().absolute()) if Path(name).is_file() else name
        manager.configure(
            {
                "config": str(config),
                "environment": {
                    PROFILE_VARIABLE: profile,
                    "APSBER_DATA_ROOT": str(self._data_root),
                    FOLDER_VARIABLE: str(self.folder.path),
                },
            }
        )
        manager.wait_ready(_START_TIMEOUT_S, check)
        return manager

    def _open(self, address: QueueAddress, check: Callable[[], None]) -> None:
        def check_both() -> None:
            check()
            self.check()

        with QueueClient(address.control_address, address.public_key, timeout_s=1.0) as client:
            self._wait_for_manager(client, check_both)
            try:
                client.open_environment(_OPEN_TIMEOUT_S, check_both)
            except ServiceError as error:
                raise ServiceError(f"{error}: {self._complaint()}") from None

    def _wait_for_manager(self, client: QueueClient, check: Callable[[], None]) -> None:
        for _ in range(int(_START_TIMEOUT_S)):
            check()
            try:
                client.wait(lambda now: now["manager_state"] == "idle", _START_TIMEOUT_S, check)
            except ServiceError as error:
                logger.debug("the manager does not answer yet: %s", error)
            else:
                return
        raise ServiceError(f"the RE manager did not start: {self._complaint()}")

    def _complaint(self) -> str:
        """The last thing in the manager's log that looks like an error."""
        if self._manager is None:
            return "it was not started"
        lines = self._manager.log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.strip() for line in lines if "Error: " in line]
        return f"{errors[-1] if errors else 'no message'} (log: {self._manager.log})"

    def check(self) -> None:
        """Raise if the manager, or a Redis of our own, has ended.

        Raises
        ------
        ServiceError
            If so, with the end of its log.
        """
        for service in self._services:
            stopped_by_a_client = service is self._manager and service.exit_status == 0
            if not service.is_running and not stopped_by_a_client:
                raise ServiceError(f"{service.name} of the queue has ended: {self._complaint()}")

    @property
    def is_running(self) -> bool:
        """Whether the manager runs; a client may have stopped it."""
        return self._manager is not None and self._manager.is_running

    @property
    def exit_status(self) -> int | None:
        """How the manager ended: 0 when a client stopped it; None while it runs."""
        return None if self._manager is None else self._manager.exit_status

    def stop(self) -> None:
        """Abort the plan that is running, let its run be processed, and end everything."""
        if self.is_running and self.address is not None:
            try:
                with QueueClient.at(self.address) as client:
                    client.shut_down(now=True)
            except ApsberError as error:
                logger.warning("the queue did not stop in good order: %s", error)
        self._stack.close()

    def _ports(self) -> tuple[int, int]:
        usual = (QUEUE_PORT, QUEUE_PORT + _INFO_OFFSET)
        if self._port is None and all(map(_is_free, usual)):
            return usual
        if self._port:
            return self._port, self._port + _INFO_OFFSET
        return _free_port(), _free_port()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
