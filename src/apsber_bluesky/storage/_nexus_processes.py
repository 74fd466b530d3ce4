"""Provenance, frame books and quality numbers in the NeXus record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

import h5py
import numpy as np

from apsber_bluesky.core import FrameBooks, ProcessRecord, QualityMetric, Verdict
from apsber_bluesky.storage._nexus_tools import add_group, add_values, iso_time, safe_name


def add_process(entry: h5py.Group, record: ProcessRecord) -> None:
    """Add one ``NXprocess``.

    Its ``parameters`` are the step's own; ``provenance`` holds host, times and checksums, and in
    ``record`` the whole record as JSON, from which `ProcessRecord.from_dict` reads it back.
    """
    name = f"process_{record.sequence_index}_{safe_name(record.name)}"
    group = add_group(entry, name, "NXprocess")
    group["program"] = record.program
    group["version"] = record.version
    group["date"] = iso_time(record.finished_s)
    group["sequence_index"] = np.int64(record.sequence_index)
    add_values(add_group(group, "parameters", "NXparameters"), record.parameters)
    _add_provenance(add_group(group, "provenance", "NXparameters"), record)


def _add_provenance(group: h5py.Group, record: ProcessRecord) -> None:
    group["step"] = record.name
    group["host"] = record.host
    group["started"] = iso_time(record.started_s)
    group["duration_s"] = float(record.finished_s - record.started_s)
    for what, checksums in (("input", record.inputs), ("output", record.outputs)):
        for number, (name, checksum) in enumerate(checksums.items(), start=1):
            group[f"{what}_{number}"] = name
            group[f"{what}_{number}_checksum"] = checksum
    group["record"] = json.dumps(record.to_dict(), default=str, sort_keys=True)


def add_books(entry: h5py.Group, books: FrameBooks, exit_status: str) -> None:
    """Add ``acquisition``: how the run ended, and what became of every frame."""
    group = add_group(entry, "acquisition", "NXcollection")
    group["exit_status"] = exit_status
    group["complete"] = np.int8(books.complete and exit_status == "success")
    if books.fault:
        group["fault"] = books.fault
    for name, total in books.totals().items():
        group[name] = np.int64(total)
    for stream, series in books.streams.items():
        for field in fields(series):
            value = np.asarray(getattr(series, field.name), dtype=np.int64)
            group[f"{safe_name(stream)}_{field.name}"] = value


def add_quality(entry: h5py.Group, quality: Sequence[QualityMetric]) -> None:
    """Add ``quality``: each number with its unit, verdict, limits and source."""
    group = add_group(entry, "quality", "NXcollection")
    group["verdict"] = str(Verdict.worst([metric.verdict for metric in quality]))
    for metric in quality:
        name = safe_name(metric.name)
        group[name] = metric.value
        group[name].attrs["units"] = metric.unit
        for key in ("verdict", "warn_limit", "fail_limit", "source", "note"):
            value = getattr(metric, key)
            group[name].attrs[key] = str(value) if isinstance(value, str) else value
