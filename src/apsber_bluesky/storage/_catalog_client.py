"""Connecting to the catalogue."""

from __future__ import annotations

from typing import Any

from apsber_bluesky.core import ServiceError


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
    ServiceError
        If nobody answers there or the key is refused.
    """
    import httpx
    from tiled.client import from_uri
    from tiled.client.utils import ClientError

    try:
        return from_uri(uri)
    except (httpx.HTTPError, ClientError, RuntimeError) as error:
        where = uri.split("?")[0]
        raise ServiceError(f"cannot connect to the catalogue at {where}: {error}") from error
