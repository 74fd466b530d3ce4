"""Who may connect: CURVE with an allow list, and no CURVE without one.

libzmq lets any client key in unless a ZAP handler (ZMQ RFC 27) of the same context and domain says
otherwise, and it tells nobody why a handshake failed but the socket's monitor. So keys, handler,
domain and monitor come as one object.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket as sockets
import threading
from pathlib import Path
from typing import Any, Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from apsber_bluesky.core import ApsberError, ServiceError
from apsber_bluesky.streaming._keys import (
    PUBLIC_SUFFIX,
    KeyPair,
    allowed_files,
    load_public_key,
)

logger = logging.getLogger(__name__)

_DOMAIN: Final = b"apsber"
_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
_ZAP_PARTS: Final = 7
_MAXIMUM_PEERS: Final = 4096
_REASONS: Final = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "its key is not in the allow list",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): (
        "it has another public key for this server, or does not use CURVE"
    ),
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): (
        "it hung up during the handshake; it probably does not use CURVE"
    ),
}


class AllowList:
    """The public keys in a folder, read again when the folder changes.

    Parameters
    ----------
    folder : Path
        Holds one ``NAME.key`` for each client.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._signature: Any = None
        self._names: dict[bytes, str] = {}

    def name_of(self, public: bytes) -> str | None:
        """Whose key it is, None if it is nobody's."""
        files = allowed_files(self.folder)
        signature = [(f.name, s.st_mtime_ns, s.st_size, s.st_ino) for f, s in _states(files)]
        if signature != self._signature:
            self._names = _names(files)
            self._signature = signature
        return self._names.get(public)


def _states(files: list[Path]) -> list[tuple[Path, os.stat_result]]:
    found = []
    for file in files:
        # A key may be taken away at any moment.
        with contextlib.suppress(FileNotFoundError):
            found.append((file, file.stat()))
    return found


def _names(files: list[Path]) -> dict[bytes, str]:
    names = {}
    for file in files:
        try:
            names[load_public_key(file)] = file.name.removesuffix(PUBLIC_SUFFIX)
        except ApsberError as error:
            logger.warning("left out of the allow list: %s", error)
    return names


class CurveAuthenticator:
    """Make sockets that only clients with an allowed key can use.

    Parameters
    ----------
    keys : KeyPair
        The server's own.
    allowed : Path
        Folder of the public keys of clients; it may change at any time.

    Attributes
    ----------
    context : zmq.Context
        Sockets to be secured are made in this context.
    """

    def __init__(self, keys: KeyPair, allowed: Path) -> None:
        self.context = zmq.Context()
        self._keys = keys
        self._allowed = AllowList(allowed)
        self._secured: list[zmq.Socket[bytes]] = []
        self._monitors: queue.SimpleQueue[zmq.Socket[bytes]] = queue.SimpleQueue()
        self._peers: dict[tuple[zmq.Socket[bytes], int], str] = {}
        self._reasons: dict[zmq.Socket[bytes], str] = {}
        self._handler = self.context.socket(zmq.REP)
        self._handler.linger = 0
        self._handler.bind(_ZAP_ADDRESS)
        self._wake, self._woken = (self.context.socket(zmq.PAIR) for _ in range(2))
        self._woken.bind(f"inproc://authenticator-{id(self)}")
        self._wake.connect(f"inproc://authenticator-{id(self)}")
        self._thread = threading.Thread(target=self._serve, name="curve-authenticator")
        self._thread.start()

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket ask for an allowed key; call it before the socket is bound.

        Raises
        ------
        ServiceError
            If the socket was not made in this authenticator's context: nobody would check keys.
        """
        if socket.context is not self.context or not self._thread.is_alive():
            raise ServiceError("a socket can be secured only in the context of its authenticator")
        socket.curve_server = True
        socket.curve_secretkey = self._keys.secret
        socket.zap_domain = _DOMAIN
        self._secured.append(socket)
        # A timeout on the monitor's side must not keep the context from ending.
        monitor = socket.get_monitor_socket()
        monitor.linger = 0
        self._monitors.put(monitor)
        self._wake.send(b"monitor")

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._handler, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        monitors: list[zmq.Socket[bytes]] = []
        try:
            while True:
                ready = dict(poller.poll())
                for monitor in monitors:
                    if monitor in ready:
                        self._note(monitor)
                if self._handler in ready:
                    self._handler.send_multipart(self._answer(self._handler.recv_multipart()))
                if self._woken in ready:
                    if self._woken.recv() == b"stop":
                        return
                    monitors.append(self._monitors.get())
                    poller.register(monitors[-1], zmq.POLLIN)
        finally:
            for socket in (*monitors, self._handler, self._woken):
                socket.close(0)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """One ZAP reply: version, request id, status, text, user id, metadata."""
        version, number = request[0], request[1] if len(request) > 1 else b""
        code, text, user = b"400", b"refused", b""
        if len(request) == _ZAP_PARTS and request[2] == _DOMAIN and request[5] == b"CURVE":
            public = z85.encode(request[6])
            name = self._name_of(public)
            if name is None:
                logger.warning(
                    "refused %s: its key %s is not in the allow list %s; add it with"
                    " 'apsber keys allow FILE'",
                    request[3].decode("ascii", errors="replace"),
                    public.decode(),
                    self._allowed.folder,
                )
            else:
                code, text, user = b"200", b"OK", name.encode()
        return [version, number, code, text, user, b""]

    def _name_of(self, public: bytes) -> str | None:
        try:
            return self._allowed.name_of(public)
        except OSError as error:
            # Whom nobody can look up stays outside.
            logger.warning("cannot read the allow list %s: %s", self._allowed.folder, error)
            return None

    def _note(self, monitor: zmq.Socket[bytes]) -> None:
        event = parse_monitor_message(monitor.recv_multipart())
        kind, value = int(event["event"]), int(event["value"])
        if kind == zmq.EVENT_ACCEPTED:
            if len(self._peers) < _MAXIMUM_PEERS:
                self._peers[monitor, value] = _peer_of(value)
        elif kind in _REASONS:
            # The event does not say of whom; the disconnection that follows at once does.
            self._reasons[monitor] = _REASONS[kind]
        elif kind in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            peer = self._peers.pop((monitor, value), "an unknown address")
            if reason := self._reasons.pop(monitor, None):
                logger.warning("refused the connection of %s: %s", peer, reason)

    def close(self) -> None:
        """Stop; the secured sockets must have been closed.

        Raises
        ------
        ServiceError
            If one is still open.
        """
        if any(not socket.closed for socket in self._secured):
            raise ServiceError("close the secured sockets before their authenticator")
        if self._thread.is_alive():
            self._wake.send(b"stop")
            self._thread.join()
            self._wake.close(0)
            self.context.term()


def _peer_of(descriptor: int) -> str:
    """Address of the other end of a connection that libzmq owns."""
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as copy:
            host, port, *_ = copy.getpeername()
    except (OSError, ValueError):
        return "an address that has already gone"
    return f"{host}:{port}"
