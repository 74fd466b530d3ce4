"""Plans as queueserver's clients see them: devices by name, every argument with its type."""

from __future__ import annotations

import ast
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from apsber_bluesky.session._plan_devices import (
    annotation_leaves,
    device_types,
    devices_of,
    is_device_type,
)

#: Types that travel as JSON; all others are devices, or cannot be given from outside.
_PLAIN: Final = frozenset({bool, int, float, str, dict, list, tuple, type(None), Any})


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


def _can_travel(hint: Any) -> bool:
    return all(leaf in _PLAIN or is_device_type(leaf) for leaf in annotation_leaves(hint))


def _is_literal(value: Any) -> bool:
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        return False
    return True


def _device_names(hint: Any, devices: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each device class of an annotation, the devices that are of that class."""
    return {kind.__name__: list(devices_of(kind, devices)) for kind in device_types(hint)}


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
