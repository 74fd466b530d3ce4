"""Connecting to the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from apsber_bluesky.core import ServiceError

_SERVER_FAILED: Final = 500


class CatalogUnreachable(ServiceError):
    """Nobody answers at the catalogue's address, or what answers is broken; it may come back."""


def is_unreachable(error: BaseException) -> bool:
    """Whether an error of the Tiled client means that the server is away, not that it refuses."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= _SERVER_FAILED
    return isinstance(error, (httpx.TransportError, CatalogUnreachable, ConnectionError))


def connect_catalog(uri: str) -> Any:
    """Connect to a Tiled server.

    Parameters
    ----------
    uri : str
        Its address; the key may be in it.

    Returns
    -------
    tiled.client.container.Container
        The root of the catalogue.

    Raises
    ------
    CatalogUnreachable
        If nobody answers there; a `ServiceError`.
    ServiceError
        If the key is refused.
    """
    import httpx
    from tiled.client import from_uri
    from tiled.client.utils import ClientError

    try:
        return from_uri(uri)
    except (httpx.HTTPError, ClientError, RuntimeError) as error:
        where = uri.split("?")[0]
        kind = CatalogUnreachable if is_unreachable(error) else ServiceError
        raise kind(f"cannot connect to the catalogue at {where}: {error}") from error


@contextmanager
def explain_catalog_errors(doing: str) -> Iterator[None]:
    """Turn errors of the Tiled client into a `ServiceError` that says what was being done.

    Parameters
    ----------
    doing : str
        What for, as in ``"read the volume"``.

    Raises
    ------
    CatalogUnreachable
        If nobody answers.
    ServiceError
        If the server refuses.
    """
    import httpx
    from tiled.client.utils import ClientError

    try:
        yield
    except (httpx.HTTPError, ClientError) as error:
        kind = CatalogUnreachable if is_unreachable(error) else ServiceError
        raise kind(f"cannot {doing} from the catalogue: {error}") from error
