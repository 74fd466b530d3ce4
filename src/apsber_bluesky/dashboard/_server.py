"""The server: one socket, one thread that watches, nothing that writes."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from typing import Any, Final

from apsber_bluesky.core import ConfigurationError, Profile, ServiceError
from apsber_bluesky.dashboard._app import make_app
from apsber_bluesky.dashboard._key import load_key
from apsber_bluesky.dashboard._watcher import Watcher

logger = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 30.0
_CONNECTIONS: Final = 128
_LARGEST_HEADERS_BYTES: Final = 1 << 14


class Dashboard:
    """Serve the page of a profile's data root, from a thread of this process.

    Parameters
    ----------
    profile : Profile
        Its data root, and where to serve.

    Attributes
    ----------
    address : str
        Where the page is, without the key.
    link : str
        The address with the key; whoever has it may look.

    Raises
    ------
    ConfigurationError
        If the port is taken, or the certificate cannot be read.
    StorageError
        If the key cannot be kept.
    """

    def __init__(self, profile: Profile) -> None:
        import uvicorn

        settings = profile.dashboard
        key = load_key(profile.session.data_root)
        self._watcher = Watcher(profile)
        names = [settings.interface, *settings.host_names]
        app = make_app(self._watcher, key, names)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            # The pure parser has a bound on headers; nothing here needs a WebSocket.
            http="h11",
            ws="none",
            lifespan="off",
            h11_max_incomplete_event_size=_LARGEST_HEADERS_BYTES,
            limit_concurrency=_CONNECTIONS,
            proxy_headers=False,
            server_header=False,
            log_config=None,
            timeout_graceful_shutdown=1,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )
        # Told at once, uvicorn would take its log away from every server of this process.
        config.access_log = False
        try:
            config.load()
        except OSError as error:
            raise ConfigurationError(
                f"cannot use dashboard.certificate {settings.certificate}: {error}"
            ) from error
        self._socket = _listen(settings.interface, settings.port)
        scheme = "https" if config.is_ssl else "http"
        self.address = f"{scheme}://{_place(self._socket)}/"
        self.link = f"{self.address}#key={key}"
        self._server: Any = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="dashboard")

    def start(self) -> None:
        """Begin to watch and to serve.

        Raises
        ------
        ServiceError
            If the server does not start.
        """
        self._watcher.start()
        self._thread.start()
        waited = threading.Event()
        for _ in range(int(_START_TIMEOUT_S / 0.02)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.02)
        if not self._server.started:
            self.close()
            raise ServiceError(f"the dashboard did not start at {self.address}")

    def check(self) -> None:
        """See that it serves.

        Raises
        ------
        ServiceError
            If it does no longer.
        """
        if not self._thread.is_alive():
            raise ServiceError(f"the dashboard at {self.address} has ended; see its log")

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """End; pages that are open try to reach it again by themselves."""
        self._watcher.close()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()


def _listen(interface: str, port: int) -> socket.socket:
    is_6 = ipaddress.ip_address(interface).version == 6
    try:
        return socket.create_server(
            (interface, port), family=socket.AF_INET6 if is_6 else socket.AF_INET
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot serve at {interface} port {port}: {error.strerror}; give another"
            " dashboard.interface or dashboard.port, or 0 for any free port"
        ) from error


def _place(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
