"""Plans as queueserver's clients see them: devices by name, every argument with its type."""

from __future__ import annotations

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

#: Types that travel as JSON; all others are devices, or cannot be given from outside.
_PLAIN: Final = frozenset({bool, int, float, str, dict, list, tuple, type(None), Any})
_DEVICE_MODULES: Final = ("apsber_bluesky.devices", "ophyd", "bluesky.protocols")


def queue_plan(plan: Callable[..., Any], devices: Mapping[str, Any]) -> Callable[..., Any]:
    """The same plan, described so that queueserver can check its arguments.

    Annotations of device classes become lists of the names of the devices that are of that class.
    An argument that can only be given by a program, such as a callable, is left out if it has a
    default.

    Parameters
    ----------
    plan : callable
        A plan with annotations and a NumPy docstring.
    devices : mapping
        The devices of the session, by name.

    Returns
    -------
    callable
        A generator function of the same name and documentation.
    """
    from bluesky_queueserver import parameter_annotation_decorator

    hints = typing.get_type_hints(plan)
    parameters, described = [], {}
    for parameter in inspect.signature(plan).parameters.values():
        hint = hints.get(parameter.name, Any)
        has_default = parameter.default is not inspect.Parameter.empty
        if has_default and not (_can_travel(hint) and _is_literal(parameter.default)):
            continue
        parameters.append(parameter.replace(annotation=hint))
        if names := _device_names(hint, devices):
            described[parameter.name] = {
                "annotation": _as_text(hint),
                "devices": names,
                # Otherwise a sample that is called as a device would become that device.
                "convert_plan_names": False,
            }

    @functools.wraps(plan)
    def queued(*args: Any, **kwargs: Any) -> Any:
        return (yield from plan(*args, **kwargs))

    signature = inspect.Signature(parameters)
    queued.__signature__ = signature  # type: ignore[attr-defined]
    described_plan: Any = parameter_annotation_decorator({"parameters": described})(queued)
    described_plan.__signature__ = signature
    return typing.cast("Callable[..., Any]", described_plan)


def _leaves(hint: Any) -> Iterator[Any]:
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
            yield from _leaves(argument)


def _is_device_type(leaf: Any) -> bool:
    module = getattr(leaf, "__module__", "")
    return isinstance(leaf, type) and (
        module in _DEVICE_MODULES or module.startswith(tuple(f"{m}." for m in _DEVICE_MODULES))
    )


def _can_travel(hint: Any) -> bool:
    return all(leaf in _PLAIN or _is_device_type(leaf) for leaf in _leaves(hint))


def _is_literal(value: Any) -> bool:
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        return False
    return True


def _device_names(hint: Any, devices: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each device class of an annotation, the devices that are of that class."""
    kinds = {leaf for leaf in _leaves(hint) if _is_device_type(leaf)}
    return {
        kind.__name__: [name for name, device in _walk(devices) if _is_a(device, kind)]
        for kind in sorted(kinds, key=lambda kind: str(kind.__name__))
    }


def _walk(devices: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Devices, and the devices that they are made of: the axes of a stage."""
    from ophyd import Device

    for name, device in devices.items():
        yield name, device
        for part in getattr(device, "component_names", ()):
            component = getattr(type(device), part, None)
            kind = getattr(component, "cls", None)
            if isinstance(kind, type) and issubclass(kind, Device):
                yield f"{name}.{part}", getattr(device, part)


def _is_a(device: Any, kind: type) -> bool:
    if not getattr(kind, "_is_protocol", False):
        return isinstance(device, kind)
    # A protocol need not be checkable by isinstance.
    members = [name for name in {*vars(kind), *kind.__annotations__} if not name.startswith("_")]
    return all(hasattr(type(device), member) or hasattr(device, member) for member in members)


def _as_text(hint: Any) -> str:
    """An annotation with device classes by their bare names, as queueserver wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return f"typing.Union[{', '.join(map(_as_text, arguments))}]"
    if origin is not None and origin is not typing.Literal:
        name = {"dict": "typing.Dict", "tuple": "typing.Tuple"}.get(origin.__name__, "typing.List")
        inner = ", ".join("..." if a is Ellipsis else _as_text(a) for a in arguments)
        return f"{name}[{inner}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else repr(hint)
