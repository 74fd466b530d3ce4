"""Which devices a plan's argument can be: those of the classes that its annotation names."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_DEVICE_MODULES: Final = ("apsber_bluesky.devices", "ophyd", "bluesky.protocols")


def annotation_leaves(hint: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    if typing.get_origin(hint) is typing.Literal:
        yield str
        return
    arguments = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) is Callable:
        yield hint
        return
    for argument in arguments:
        if argument is not Ellipsis:
            yield from annotation_leaves(argument)


def is_device_type(leaf: Any) -> bool:
    """Whether a type is a class of devices, or a protocol that devices have."""
    module = getattr(leaf, "__module__", "")
    return isinstance(leaf, type) and (
        module in _DEVICE_MODULES or module.startswith(tuple(f"{m}." for m in _DEVICE_MODULES))
    )


def device_types(hint: Any) -> list[type]:
    """The device classes of an annotation, by name."""
    kinds = {leaf for leaf in annotation_leaves(hint) if is_device_type(leaf)}
    return sorted(kinds, key=lambda kind: str(kind.__name__))


def devices_of(kind: type, devices: Mapping[str, Any]) -> dict[str, Any]:
    """Devices of a class, and axes of stages (``sample_stage.x``), by name."""
    return {name: device for name, device in _walk(devices) if _is_a(device, kind)}


def _walk(devices: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Devices, and the devices that they are made of: the axes of a stage."""
    from ophyd import Device

    for name, device in devices.items():
        yield name, device
        for part in getattr(device, "component_names", ()):
            component = getattr(type(device), part, None)
            kind = getattr(component, "cls", None)
            # One that connects when it is first looked at would be waited for.
            lazy = getattr(component, "lazy", False)
            if isinstance(kind, type) and issubclass(kind, Device) and not lazy:
                yield f"{name}.{part}", getattr(device, part)


def _is_a(device: Any, kind: type) -> bool:
    if not getattr(kind, "_is_protocol", False):
        return isinstance(device, kind)
    # A protocol need not be checkable by isinstance.
    members = [name for name in {*vars(kind), *kind.__annotations__} if not name.startswith("_")]
    return all(hasattr(type(device), member) or hasattr(device, member) for member in members)
