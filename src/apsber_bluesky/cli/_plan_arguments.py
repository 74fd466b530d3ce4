"""Plan arguments from the command line, checked against the plan's own annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NewType

import yaml
from pydantic import TypeAdapter, ValidationError

from apsber_bluesky.core import InputError
from apsber_bluesky.session import device_types, devices_of

#: A device of the profile, or an axis of one: ``rotation``, ``sample_stage.y``.
DeviceName = NewType("DeviceName", str)


def find_plan(name: str) -> Callable[..., Any]:
    """A public plan by its name.

    Raises
    ------
    InputError
        If there is no such plan.
    """
    from apsber_bluesky import plans

    if name not in plans.__all__:
        raise InputError(f"no plan {name!r}; there are {', '.join(plans.__all__)}")
    plan: Callable[..., Any] = getattr(plans, name)
    return plan


def parse_arguments(
    plan: Callable[..., Any], words: list[str], device_names: Collection[str]
) -> dict[str, Any]:
    """Read ``name=value`` words; values are YAML, those of devices their names.

    Parameters
    ----------
    plan : callable
        The plan.
    words : list of str
        The words.
    device_names : collection of str
        Names of the devices that there are.

    Raises
    ------
    InputError
        If a word is of another form, or the plan has no such argument or refuses the value, or
        there is no such device.
    """
    hints = typing.get_type_hints(plan)
    options = {name: _option(hints[name]) for name in inspect.signature(plan).parameters}
    values = parse_words(plan.__name__, words, options)
    for name, value in values.items():
        if device_types(hints[name]) and value is not None:
            _check_name(name, value, device_names)
    return values


def _option(hint: Any) -> Any:
    if not device_types(hint):
        return hint
    return DeviceName | None if type(None) in typing.get_args(hint) else DeviceName


def _check_name(argument: str, device: str, known: Collection[str]) -> None:
    # An axis of a stage is seen to when the stage has been made.
    if device.partition(".")[0] not in known:
        raise InputError(
            f"{argument}={device!r} is no device of the profile; it has"
            f" {', '.join(known) or 'none'}"
        )


def parse_words(
    plan: str,
    words: list[str],
    options: Mapping[str, Any],
    descriptions: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Read ``name=value`` words; values are YAML.

    Parameters
    ----------
    plan : str
        Name of the plan.
    words : list of str
        The words.
    options : mapping
        Annotation of each argument that may be given.
    descriptions : mapping, optional
        What to say of an argument whose value is refused.

    Raises
    ------
    InputError
        If a word is of another form, or there is no such argument, or its value is refused.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is not of the form name=value")
        if name not in options:
            known = ", ".join(options)
            raise InputError(f"plan {plan} has no argument {name!r}; it has {known}")
        try:
            arguments[name] = _checked(name, text, options[name])
        except InputError as error:
            description = " ".join((descriptions or {}).get(name, "").split())
            raise InputError(
                f"{error}. {name}: {description}" if description else str(error)
            ) from None
    return arguments


def _checked(name: str, text: str, annotation: Any) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{name}={text!r} is not a value: {error}") from error
    if annotation is str and value is not None and not isinstance(value, str):
        value = text
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name}={text!r}: {error.errors()[0]['msg']}") from None


def bind(plan: Callable[..., Any], devices: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Make the plan, with its devices.

    A device that is not given is the one that the argument is named after, or the only one of the
    class that the plan wants.

    Raises
    ------
    InputError
        If the session has no such device.
    """
    hints = typing.get_type_hints(plan)
    values, missing = dict(arguments), []
    for parameter in inspect.signature(plan).parameters.values():
        name, kinds = parameter.name, device_types(hints[parameter.name])
        if not kinds or values.get(name, "") is None:
            continue
        fitting = {n: d for kind in kinds for n, d in devices_of(kind, devices).items()}
        if name in values:
            values[name] = _named(plan, name, values[name], fitting)
        elif parameter.default is not inspect.Parameter.empty:
            continue
        elif name in devices:
            values[name] = devices[name]
        elif len(fitting) == 1:
            (values[name],) = fitting.values()
        else:
            missing.append(f"{name} ({', '.join(fitting) or 'none fits'})")
    if missing:
        raise InputError(
            f"plan {plan.__name__} needs devices {', '.join(missing)}; give name=device. The"
            f" profile has {', '.join(devices) or 'none'}"
        )
    return plan(**values)


def _named(plan: Callable[..., Any], argument: str, name: str, fitting: dict[str, Any]) -> Any:
    if name not in fitting:
        raise InputError(
            f"{argument}={name!r} is no device that plan {plan.__name__} can use; give one of"
            f" {', '.join(fitting) or 'none: the profile has none'}"
        )
    return fitting[name]
