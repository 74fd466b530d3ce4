"""Devices from a profile, after the convention of BITS' ``devices.yml``."""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from apsber_bluesky.core import ConfigurationError

logger = logging.getLogger(__name__)

#: ophyd looks at the channels at least once in this time [s].
_SHORTEST_WAIT_S: Final = 0.1
_MACRO = re.compile(r"\$\((\w+)\)")


class Devices(Mapping[str, Any]):
    """The devices of a session, by name: ``devices.camera`` or ``devices["camera"]``.

    Attributes
    ----------
    missing : dict of str to str
        Devices that did not connect, and why. They can be used as soon as they connect.
    """

    def __init__(self, devices: dict[str, Any]) -> None:
        self._devices = devices
        self.missing: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        return self._devices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._devices[name]
        except KeyError:
            known = ", ".join(self._devices)
            raise AttributeError(f"no device {name!r}; there are {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._devices]

    def labelled(self, label: str) -> list[Any]:
        """Devices with a label, e.g. ``baseline``."""
        return [d for d in self.values() if label in getattr(d, "_ophyd_labels_", ())]

    def baseline(self) -> list[Any]:
        """Devices labelled ``baseline``, which are read before and after each run.

        Not those that are missing, and no detectors: what they read are frames and spectra.
        """
        from apsber_bluesky.devices import FrameDetector, VortexMca

        found = []
        for device in self.labelled("baseline"):
            if isinstance(device, FrameDetector | VortexMca):
                logger.warning("detector %s is left out of the baseline", device.name)
            elif device.name not in self.missing:
                found.append(device)
        return found

    def disconnect(self) -> None:
        """Let go of all channels; the devices cannot be used after this."""
        for device in self.values():
            device.destroy()

    def connect(self, timeout_s: float) -> None:
        """Wait for the devices to connect; those that do not are entered in `missing`.

        Channels connect by themselves, so waiting for one device after the other until the same
        moment takes no longer than waiting for the slowest, however many are missing.
        """
        deadline = time.monotonic() + timeout_s
        for name, device in self.items():
            try:
                left_s = max(deadline - time.monotonic(), _SHORTEST_WAIT_S)
                device.wait_for_connection(timeout=left_s)
                self.missing.pop(name, None)
            except TimeoutError as error:
                self.missing[name] = str(error)
                logger.warning("device %s is missing: %s", name, error)


def set_connection_timeout(timeout_s: float) -> None:
    """Give signals that connect when they are first used as long as all others [s].

    ophyd's own default of one second is short for a busy IOC. It can be set only before the first
    signal is made; later sessions of a process keep what the first one set.
    """
    from ophyd.signal import EpicsSignalBase

    if not EpicsSignalBase._EpicsSignalBase__any_instantiated:  # noqa: SLF001
        EpicsSignalBase.set_defaults(connection_timeout=timeout_s, timeout=timeout_s)


def expand_macros(text: str, macros: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by the macro's value, as EPICS does.

    Raises
    ------
    ConfigurationError
        If there is no such macro.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in macros:
            known = ", ".join(sorted(macros)) or "none"
            raise ConfigurationError(
                f"macro $({name}) in {text!r} is not set (set are: {known}); add it to"
                " session.macros"
            )
        return macros[name]

    return _MACRO.sub(value, text)


def make_devices(entries: Mapping[str, list[dict[str, Any]]], macros: Mapping[str, str]) -> Devices:
    """Make devices without connecting.

    Parameters
    ----------
    entries : mapping
        Import path of a class or factory -> list of its keyword arguments.
    macros : mapping
        Values of ``$(NAME)`` in string arguments.

    Returns
    -------
    Devices
        The devices, by name.

    Raises
    ------
    ConfigurationError
        If a class cannot be imported or made, or a name is used twice.
    """
    devices: dict[str, Any] = {}
    for path, arguments in entries.items():
        factory = _import(path)
        for values in arguments:
            expanded = {
                key: expand_macros(value, macros) if isinstance(value, str) else value
                for key, value in values.items()
            }
            name = expanded.get("name")
            if not isinstance(name, str) or not name.isidentifier():
                raise ConfigurationError(f"devices.{path}: name {name!r} is not a Python name")
            if name in devices:
                raise ConfigurationError(f"devices.{path}: there are two devices {name!r}")
            if "labels" in expanded:
                expanded["labels"] = _labels(path, name, expanded["labels"])
            try:
                devices[name] = factory(**expanded)
            except TypeError as error:
                raise ConfigurationError(f"devices.{path} {name!r}: {error}") from error
    return Devices(devices)


def _labels(path: str, name: str, labels: Any) -> set[str]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigurationError(
            f"devices.{path} {name!r}: labels is {labels!r}; give a list, such as [detectors]"
        )
    return set(labels)


def _import(path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"devices: cannot import {path!r}: {error}") from error
