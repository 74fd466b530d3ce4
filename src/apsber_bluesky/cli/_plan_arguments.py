"""Plan arguments from the command line, checked against the plan's own annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from apsber_bluesky.core import InputError


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


def parse_arguments(plan: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    """Read ``name=value`` words; values are YAML.

    Raises
    ------
    InputError
        If a word is of another form, or the plan has no such argument or refuses the value.
    """
    hints = typing.get_type_hints(plan)
    options = {name: hints[name] for name in keyword_parameters(plan)}
    return parse_words(plan.__name__, words, options)


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


def keyword_parameters(plan: Callable[..., Any]) -> list[str]:
    """Names of the arguments that have a default."""
    parameters = inspect.signature(plan).parameters.values()
    return [p.name for p in parameters if p.default is not inspect.Parameter.empty]


def device_parameters(plan: Callable[..., Any]) -> list[str]:
    """Names of the arguments that are devices: those without a default."""
    parameters = inspect.signature(plan).parameters.values()
    return [p.name for p in parameters if p.default is inspect.Parameter.empty]


def bind(plan: Callable[..., Any], devices: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Make the plan, with the devices that its arguments are named after.

    Raises
    ------
    InputError
        If the session has no such device.
    """
    wanted = device_parameters(plan)
    missing = [name for name in wanted if name not in devices]
    if missing:
        raise InputError(
            f"plan {plan.__name__} needs devices {', '.join(missing)}; the profile has"
            f" {', '.join(devices) or 'none'}"
        )
    return plan(*(devices[name] for name in wanted), **arguments)
