"""Small helpers to write NeXus with h5py."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np


def add_group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    """Make a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def add_link(group: h5py.Group, name: str, target: h5py.Dataset) -> None:
    """Link a dataset the NeXus way: a hard link, and ``@target`` names the original."""
    target.attrs["target"] = target.name
    group[name] = target


def iso_time(seconds: float) -> str:
    """Unix time [s] as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="milliseconds")


def safe_name(name: str) -> str:
    """Turn any text into a valid NeXus name."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    return name if re.match(r"[A-Za-z0-9_]", name) else f"_{name}"


def add_values(group: h5py.Group, values: Mapping[str, Any]) -> None:
    """Write values of any kind, such as users put in metadata; see `plain`."""
    for key, value in values.items():
        name = stem = safe_name(str(key))
        number = 1
        while name in group:
            number += 1
            name = f"{stem}_{number}"
        group[name] = plain(value)


def plain(value: Any) -> Any:
    """Make what HDF5 can hold of a number, text, boolean, list, mapping or None.

    Lists that are not of one plain kind, mappings, None and text that HDF5 cannot hold become
    JSON text.
    """
    if isinstance(value, bool | np.bool_):
        return np.int8(value)
    if isinstance(value, str) and "\0" not in value:
        return value
    if isinstance(value, int | float | np.number):
        return value
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        array = np.asarray(value) if not _is_mixed(value) else None
        if array is not None and array.dtype.kind in "iuf":
            return array
        if array is not None and array.dtype.kind == "b":
            return array.astype(np.int8)
        if all(isinstance(item, str) and "\0" not in item for item in value):
            return list(value)
    return json.dumps(value, default=str, sort_keys=True)


def _is_mixed(value: Any) -> bool:
    """Whether NumPy would have to guess: nested, ragged or of several kinds."""
    return len({type(item) for item in value}) > 1 or any(
        isinstance(item, list | tuple | dict) for item in value
    )
