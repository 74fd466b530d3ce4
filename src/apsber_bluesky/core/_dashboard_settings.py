"""The section of a profile about the live web page."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from apsber_bluesky.core._settings import FolderPath, Settings

DASHBOARD_PORT: Final = 8087

_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("give the IP address of a network interface, as 127.0.0.1") from None


def _host_name(value: str) -> str:
    if not _HOST_NAME.fullmatch(value):
        raise ValueError("give a host name without a port, as beamline.example.org")
    return value.lower()


class DashboardSettings(Settings):
    """Where ``apsber dashboard`` serves its page.

    Attributes
    ----------
    interface : str
        IP address of the network interface at which browsers find it.
    port : int
        Its TCP port; 0 for any free one.
    host_names : list of str
        Names, besides `interface` and ``localhost``, under which browsers may ask for it.
    certificate, private_key : Path or None
        TLS certificate and its key (PEM); needed for any interface but the loopback one.
    """

    interface: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    port: int = Field(default=DASHBOARD_PORT, ge=0, lt=65536)
    host_names: list[Annotated[str, AfterValidator(_host_name)]] = Field(default_factory=list)
    certificate: FolderPath | None = None
    private_key: FolderPath | None = None

    @property
    def is_local(self) -> bool:
        """Whether this computer alone can reach it."""
        return ipaddress.ip_address(self.interface).is_loopback

    @model_validator(mode="after")
    def _is_encrypted_on_a_network(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("give certificate and private_key, or neither")
        if not self.is_local and self.certificate is None:
            raise ValueError(
                f"the page at {self.interface} would show its key to the network; give certificate"
                " and private_key, or serve at 127.0.0.1 and reach it through ssh -L"
            )
        return self
