"""Find devices by name or label, with the words that BITS users know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from apsber_bluesky.core import InputError


class DeviceNotFoundError(InputError, LookupError):
    """No device, or more than one, has this name or label."""


class DeviceRegistry:
    """The devices of a session: ``oregistry["camera"]``, ``oregistry.findall("motors")``.

    A name may reach into a device: ``oregistry["rotation.velocity"]``.

    Parameters
    ----------
    devices : mapping of str to device
        The devices, by name; a live view, so devices that are added later are found.
    """

    def __init__(self, devices: Mapping[str, Any]) -> None:
        self._devices = devices

    @property
    def device_names(self) -> list[str]:
        """Names of the devices."""
        return list(self._devices)

    @property
    def root_devices(self) -> list[Any]:
        """The devices themselves."""
        return list(self._devices.values())

    @property
    def labels(self) -> list[str]:
        """Labels that devices have."""
        return sorted({label for device in self.root_devices for label in _labels(device)})

    def __iter__(self) -> Iterator[str]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._named(name) is not None

    def __getitem__(self, name: str) -> Any:
        """The device or component of this name, else the only device with this label.

        Raises
        ------
        DeviceNotFoundError
            If there is none, or more than one.
        """
        return self.find(name)

    def find(
        self,
        any_of: str | None = None,
        *,
        label: str | None = None,
        name: str | None = None,
        allow_none: bool = False,
    ) -> Any:
        """The one device of a name or label; see `findall`.

        Raises
        ------
        DeviceNotFoundError
            If there is none and `allow_none` is False, or there are several.
        """
        found = self.findall(any_of, label=label, name=name, allow_none=allow_none)
        if len(found) > 1:
            names = ", ".join(device.name for device in found)
            raise DeviceNotFoundError(
                f"{any_of or label or name!r} fits {len(found)} devices: {names}; give one name"
            )
        return found[0] if found else None

    def findall(
        self,
        any_of: str | None = None,
        *,
        label: str | None = None,
        name: str | None = None,
        allow_none: bool = False,
    ) -> list[Any]:
        """Devices of a name or label.

        Parameters
        ----------
        any_of : str, optional
            Name or label.
        label, name : str, optional
            Label; name, which may reach into a device with dots.
        allow_none : bool
            Whether an empty list is a good answer.

        Returns
        -------
        list
            The devices, in the order of the profile, each once.

        Raises
        ------
        DeviceNotFoundError
            If there is none and `allow_none` is False.
        """
        wanted = [text for text in (any_of, label, name) if text is not None]
        if not wanted:
            raise InputError("give a name or a label to look for")
        found: list[Any] = []
        for text in (any_of, name):
            device = None if text is None else self._named(text)
            found += [] if device is None or device in found else [device]
        for device in self.root_devices:
            if _labels(device).intersection(wanted[: None if name is None else -1]):
                found += [] if device in found else [device]
        if not found and not allow_none:
            labels = ", ".join(self.labels) or "none"
            raise DeviceNotFoundError(
                f"no device or label {', '.join(wanted)!r}; devices: {', '.join(self) or 'none'};"
                f" labels: {labels}"
            )
        return found

    def _named(self, name: str) -> Any:
        root, *path = name.split(".")
        thing = self._devices.get(root)
        for part in path:
            if part not in getattr(thing, "component_names", ()):
                return None
            thing = getattr(thing, part)
        return thing

    def __repr__(self) -> str:
        return f"<DeviceRegistry: {', '.join(self) or 'empty'}>"


def _labels(device: Any) -> set[str]:
    return set(getattr(device, "_ophyd_labels_", ()))
