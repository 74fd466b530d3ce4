"""What a request must be before anything looks at what it asks for.

The key travels in the header ``Authorization``, never in a cookie: browsers send the cookies of a
host to all its ports, so any other server on this computer would be shown it. In the link it
stands behind ``#``, which browsers do not send, so it is in no log. A page of another origin cannot
set that header without asking first, by a method that is refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API: Final = "/api/"

_METHODS: Final = ("GET", "HEAD")
#: Path, query and headers; the parser bounds only those that come in pieces.
_LARGEST_HEAD_BYTES: Final = 1 << 14
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Let only requests through that may be answered, and dress the answers.

    Parameters
    ----------
    app : ASGI application
        What answers.
    key : str
        What requests below ``/api/`` must show.
    host_names : iterable of str
        Names under which browsers may ask, besides those of the loopback interface. Any other is a
        page elsewhere whose name has been pointed at this computer (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, key: str, host_names: Iterable[str]) -> None:
        self._app = app
        self._shown = f"Bearer {key}".encode()
        self._hosts = {*_LOCAL_NAMES, *(name.lower() for name in host_names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, dressed)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        head = sum(len(name) + len(value) for name, value in headers.raw)
        if head + len(scope["raw_path"]) + len(scope["query_string"]) > _LARGEST_HEAD_BYTES:
            return refuse(431, "the head of a request is shorter")
        if not self._is_ours(headers.getlist("host")):
            return refuse(421, "this server is not known by that name")
        if scope["method"] not in _METHODS:
            return refuse(405, "only looking is possible", {"allow": ", ".join(_METHODS)})
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return refuse(413, "a request has no body here")
        if scope["path"].startswith(API) and not self._shows_key(headers):
            return refuse(401, "the key is missing or wrong", {"www-authenticate": "Bearer"})
        return None

    def _is_ours(self, hosts: list[str]) -> bool:
        if len(hosts) != 1:
            return False
        # The port may be that of an ssh tunnel; names alone tell a page from elsewhere.
        name, bracket, _ = hosts[0].lower().partition("]")
        name = name.lstrip("[") if bracket else name.partition(":")[0]
        return name in self._hosts

    def _shows_key(self, headers: Headers) -> bool:
        shown = headers.get("authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(shown, self._shown)


def refuse(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An answer that says why there is none."""
    return JSONResponse({"error": why}, status, headers)
