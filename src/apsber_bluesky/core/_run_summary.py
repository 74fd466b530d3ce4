"""What the ledger and the folder of a run say of it, as plain JSON values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apsber_bluesky.core._errors import StorageError
from apsber_bluesky.core._ledger import RunLedger
from apsber_bluesky.core._run_folder import RunFolder

ORTHO_SLICES_NAME = "ortho_slices.png"
"""The picture in the folder of figures that people look at first."""


def describe_run(folder: RunFolder) -> dict[str, Any]:
    """What is known of a run, without a look at its pixels.

    Raises
    ------
    StorageError
        If the ledger or ``quality.json`` cannot be read.
    """
    with RunLedger(folder.ledger, read_only=True) as ledger:
        description = ledger.description
        value: dict[str, Any] = {
            "uid": folder.uid,
            "proposal": folder.proposal,
            "scan_id": description.get("scan_id"),
            "plan_name": description.get("plan_name"),
            "sample": description.get("sample"),
            "technique": description.get("technique"),
            "detectors": description.get("detectors", []),
            "start_time_s": description.get("start_time_s"),
            "scan": description.get("tomography") or description.get("conditions") or {},
            "state": str(ledger.state),
            "reason": ledger.reason,
            "folder": str(folder.path),
            "frames": ledger.books.to_dict(),
            "stages": [
                {"name": stage.name, "state": stage.state, "seconds": stage.seconds}
                for stage in ledger.stages
            ],
        }
    value["quality"] = read_quality(folder)
    value["products"] = {name: str(path) for name, path in product_paths(folder).items()}
    return value


def read_quality(folder: RunFolder) -> dict[str, Any]:
    """Contents of ``quality.json``; empty when the run has none.

    Raises
    ------
    StorageError
        If it is damaged.
    """
    if not folder.quality.exists():
        return {}
    try:
        return dict(json.loads(folder.quality.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {folder.quality}: {error}") from error


def product_paths(folder: RunFolder) -> dict[str, Path]:
    """What there is of a run on disk, by name."""
    products = {
        "frames": folder.raw,
        "nexus": folder.nexus,
        "volume": folder.volume,
        "denoised": folder.denoised,
        "labels": folder.labels,
        "uncertainty": folder.uncertainty,
        "probabilities": folder.probabilities,
        "quantities": folder.quantities,
        "inference": folder.inference,
        "quality": folder.quality,
        "figure": folder.figures / ORTHO_SLICES_NAME,
        "receipt": folder.receipts / "archive.json",
    }
    # Spools of detectors that have one for themselves, and what single techniques make.
    products |= {path.stem: path for path in sorted(folder.path.glob("*.h5")) if path != folder.raw}
    return {name: path for name, path in products.items() if path.exists()}
