"""What queueserver is told of a plan; checked with queueserver's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from bluesky_queueserver import validate_plan
from ophyd import Component, Device, Signal

from apsber_bluesky.session._queue_plans import queue_plan


class Axis(Device):
    """An axis."""

    value = Component(Signal)


class Stage(Device):
    """Two axes."""

    x = Component(Axis, "x")
    y = Component(Axis, "y")


class Camera(Device):
    """Another kind of device."""


# As if they were devices of the package: what else is a device cannot be told from a value.
for kind in (Axis, Stage, Camera):
    kind.__module__ = "apsber_bluesky.devices"

DEVICES = {
    "rotation": Axis("", name="rotation"),
    "stage": Stage("", name="stage"),
    "camera": Camera("", name="camera"),
}


def look(
    camera: Camera,
    axis: Axis | None = None,
    others: Sequence[Camera] = (),
    *,
    exposure_s: float = 0.1,
    mode: Literal["one", "two"] = "one",
    sample: str = "",
    ask: Callable[[], float] | None = None,
    md: dict[str, Any] | None = None,
) -> Any:
    """Look at something.

    Parameters
    ----------
    camera : Camera
        What looks.
    axis : Axis, optional
        What turns.
    others : sequence of Camera
        What looks, too.
    exposure_s : float
        How long [s].
    mode : {"one", "two"}
        How.
    sample : str
        At what.
    ask : callable, optional
        Whom to ask; for programs.
    md : dict, optional
        Metadata.
    """
    return (yield from (camera, axis, others, exposure_s, mode, sample, ask, md))


@pytest.fixture(scope="module")
def described():
    from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace

    plans, devices, *_ = existing_plans_and_devices_from_nspace(
        nspace={**DEVICES, "look": queue_plan(look, DEVICES)}
    )
    return plans, devices


def verdict(described, **arguments):
    plans, devices = described
    item = {"name": "look", "user_group": "primary", "kwargs": arguments}
    return validate_plan(item, allowed_plans=plans, allowed_devices=devices)


def test_every_argument_keeps_its_description_and_type(described):
    plan = described[0]["look"]
    assert plan["description"] == "Look at something."
    parameters = {p["name"]: p for p in plan["parameters"]}
    # What only a program can give is not offered.
    assert list(parameters) == [
        "camera", "axis", "others", "exposure_s", "mode", "sample", "md"
    ]  # fmt: skip
    assert parameters["exposure_s"]["description"] == "How long [s]."
    assert parameters["exposure_s"]["annotation"] == {"type": "float"}
    assert parameters["mode"]["annotation"]["type"] == "typing.Literal['one', 'two']"
    assert parameters["camera"]["annotation"]["devices"] == {"Camera": ["camera"]}
    axes = parameters["axis"]["annotation"]["devices"]
    assert axes == {"Axis": ["rotation", "stage.x", "stage.y"]}


@pytest.mark.parametrize(
    "arguments",
    [
        {"camera": "camera"},
        {"camera": "camera", "axis": "stage.y", "others": ["camera"], "mode": "two"},
        {"camera": "camera", "axis": None, "md": {"note": [1, "a"]}, "exposure_s": 1},
    ],
)
def test_good_arguments_are_taken(arguments, described):
    assert verdict(described, **arguments) == (True, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "camera"),
        ({"camera": "rotation"}, "Input should be 'camera'"),
        ({"camera": "camera", "axis": "camera"}, "axis"),
        ({"camera": "camera", "exposure_s": "long"}, "valid number"),
        ({"camera": "camera", "mode": "three"}, "'one' or 'two'"),
        ({"camera": "camera", "ask": 3}, "unexpected keyword argument 'ask'"),
        ({"camera": "camera", "others": "camera"}, "others"),
    ],
)
def test_bad_arguments_are_refused(arguments, words, described):
    success, message = verdict(described, **arguments)
    assert not success
    assert words in message


def test_a_device_class_that_nothing_is_of_offers_no_name(described):
    from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace

    plans, *_ = existing_plans_and_devices_from_nspace(nspace={"look": queue_plan(look, {})})
    (camera, *_) = plans["look"]["parameters"]
    assert camera["annotation"]["devices"] == {"Camera": []}


def test_the_plan_itself_is_as_it_was():
    given = dict(queue_plan(look, DEVICES).__signature__.parameters)
    assert "ask" not in given
    messages = list(queue_plan(look, DEVICES)("c", "a", exposure_s=3.0))
    assert messages == ["c", "a", (), 3.0, "one", "", None, None]
