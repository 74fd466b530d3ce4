"""Publish what was made of a run in Tiled, beside the raw run and linked to it by its uid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from apsber_bluesky.core import (
    ELEMENT_MAPS_NAME,
    HITS_NAME,
    DataFileError,
    FrameBooks,
    ProcessRecord,
    QualityMetric,
    RunDescription,
    RunFolder,
    ServiceError,
    Verdict,
    atomic_file,
)
from apsber_bluesky.storage._catalog_client import CatalogUnreachable, is_unreachable
from apsber_bluesky.storage._document_journal import PUBLICATION_SUFFIX, entry_name
from apsber_bluesky.storage._embedded_tiled import PROCESSED_CONTAINER
from apsber_bluesky.storage._volume import open_volume, read_volume_info

#: Volumes of a run that are published, by the names of their nodes.
VOLUMES = ("volume", "denoised", "labels", "uncertainty", "probabilities")


def publish_run(
    client: Any,
    folder: RunFolder,
    run: RunDescription,
    *,
    processes: Sequence[ProcessRecord],
    books: FrameBooks,
    quality: Sequence[QualityMetric],
    state: str,
) -> Any:
    """Publish the products of a run as ``processed/<run uid>``.

    The node has `VOLUMES`, ``nexus``, ``maps`` and ``hits``, those that are there. All are
    registered where they lie, so the server must see the run folder and be allowed to read it; no
    values travel. Publishing a run again replaces what was published.

    Parameters
    ----------
    client : tiled.client.container.Container
        Root of the catalogue.
    folder : RunFolder
        The run.
    run : RunDescription
        What was scanned.
    processes, books, quality : sequence of ProcessRecord, FrameBooks, sequence of QualityMetric
        Provenance, frame books and quality numbers, to be found by queries such as
        ``Key("quality.verdict") == "pass"``, ``Key("quality.signal_to_noise.value") > 5`` and
        ``Key("models.segment.name") == "soil-segmenter"``.
    state : str
        State of the run, e.g. ``"complete"``.

    Returns
    -------
    tiled.client.container.Container
        The node.

    Raises
    ------
    ServiceError
        If the catalogue cannot be reached, refuses, or cannot read the volume.
    DataFileError
        If the volume is there but damaged.
    """
    about = Publication.of(
        folder, run, processes=processes, books=books, quality=quality, state=state
    )
    return about.publish(client)


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published of a run; it can be kept in a file until the catalogue is back.

    Attributes
    ----------
    folder : RunFolder
        The run.
    metadata : dict
        What the run is found by, as plain JSON values.
    """

    folder: RunFolder
    metadata: dict[str, Any]

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        run: RunDescription,
        *,
        processes: Sequence[ProcessRecord],
        books: FrameBooks,
        quality: Sequence[QualityMetric],
        state: str,
    ) -> Self:
        """Gather what `publish_run` describes."""
        return cls(folder, _metadata(run, processes, books, quality, state))

    def publish(self, client: Any) -> Any:
        """Publish it; gives the node.

        Raises
        ------
        CatalogUnreachable
            If the server does not answer.
        ServiceError
            If it refuses, or cannot read the volume.
        DataFileError
            If the volume is there but damaged.
        """
        import httpx
        from tiled.client.utils import ClientError

        folder = self.folder
        sources = {
            **{name: _volume_source(folder.product(name)) for name in VOLUMES},
            "nexus": _nexus_source(folder.nexus),
            "maps": _nexus_source(folder.path / ELEMENT_MAPS_NAME),
            "hits": _nexus_source(folder.path / HITS_NAME),
        }
        try:
            return _publish(client, folder, self.metadata, sources)
        except (httpx.HTTPError, ClientError) as error:
            kind = CatalogUnreachable if is_unreachable(error) else ServiceError
            raise kind(f"cannot publish run {folder.uid} in Tiled: {error}") from error

    def keep(self, directory: Path) -> Path:
        """Write it to a folder of documents, whence it is published later.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        name = entry_name(self.metadata["time"], self.folder.uid, PUBLICATION_SUFFIX)
        path = directory / name
        text = json.dumps({"folder": str(self.folder.path), "metadata": self.metadata})
        with atomic_file(path) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `keep` wrote.

        Raises
        ------
        DataFileError
            If the file holds something else.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            return cls(RunFolder(Path(value["folder"])), dict(value["metadata"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataFileError(f"{path} does not describe what to publish: {error}") from error


def _publish(
    client: Any, folder: RunFolder, metadata: dict[str, Any], sources: dict[str, Any]
) -> Any:
    node = _node(client, folder.uid, metadata)
    if stale := [key for key in node if key in sources]:
        node.delete_contents(stale)
    for key, source in sources.items():
        if source is not None:
            node.new(source.structure_family, [source], key=key, metadata=_about(key, folder))
    node = client[PROCESSED_CONTAINER][folder.uid]
    for name in VOLUMES:
        if sources[name] is not None:
            _check_readable(node[name], folder.product(name))
    return node


def _node(client: Any, uid: str, metadata: dict[str, Any]) -> Any:
    from tiled.structures.core import Spec

    if PROCESSED_CONTAINER not in client:
        client.create_container(PROCESSED_CONTAINER)
    processed = client[PROCESSED_CONTAINER]
    tomography = metadata.get("technique", "tomography") == "tomography"
    specs = [Spec("NXtomoproc")] if tomography else []
    if uid not in processed:
        return processed.create_container(uid, metadata=metadata, specs=specs)
    node = processed[uid]
    node.replace_metadata(metadata=metadata, specs=specs)
    return node


def _check_readable(volume: Any, path: Path) -> None:
    """Ask for one voxel: registering succeeds even where the server may not read."""
    # Not through the client's own read, which repeats a refused request for half a minute.
    response = volume.context.http_client.get(
        volume.item["links"]["full"],
        params={
            "slice": ",".join(["0:1"] * len(volume.shape)),
            "format": "application/octet-stream",
        },
    )
    if response.is_error:
        # A server that fails at a file must not look like one that is away.
        raise ServiceError(
            f"Tiled cannot read {path} (status {response.status_code}); the server must see that"
            " folder and have it among its readable storage"
        )


def _metadata(
    run: RunDescription,
    processes: Sequence[ProcessRecord],
    books: FrameBooks,
    quality: Sequence[QualityMetric],
    state: str,
) -> dict[str, Any]:
    verdict = Verdict.worst([metric.verdict for metric in quality])
    numbers = {metric.name: metric.to_dict() for metric in quality}
    return {
        "run_uid": run.uid,
        "scan_id": run.scan_id,
        "sample": run.sample,
        "plan_name": run.plan_name,
        "proposal": run.proposal,
        "beamline_id": run.beamline_id,
        "time": run.start_time_s,
        "state": str(state),
        "technique": run.technique,
        "detectors": list(run.detectors),
        "scan": run.tomography.model_dump(mode="json") if run.tomography else run.conditions,
        "processes": [record.to_dict() for record in processes],
        "models": _models(processes),
        "frames": books.to_dict(),
        "quality": {**numbers, "verdict": str(verdict)},
    }


def _models(processes: Sequence[ProcessRecord]) -> dict[str, dict[str, str]]:
    """Which model did what, so that runs can be found by it."""
    keys = {"name": "model", "version": "model_version", "sha256": "model_sha256"}
    return {
        record.name: {key: str(record.parameters[own]) for key, own in keys.items()}
        for record in processes
        if "model_sha256" in record.parameters
    }


def _uri(path: Path) -> str:
    return f"file://localhost{quote(str(path.resolve()))}"


def _volume_source(path: Path) -> Any:
    from tiled.structures.array import ArrayStructure
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import Asset, DataSource, Management

    if not path.exists():
        return None
    values = open_volume(path)
    dims = ("c", "z", "y", "x")[-values.ndim :]
    return DataSource(
        structure_family=StructureFamily.array,
        structure=ArrayStructure.from_array(values, dims=dims),
        mimetype="application/x-zarr",
        management=Management.external,
        assets=[Asset(data_uri=_uri(path / "0"), is_directory=True, parameter="data_uri")],
    )


def _nexus_source(path: Path) -> Any:
    from tiled.structures.core import StructureFamily
    from tiled.structures.data_source import Asset, DataSource, Management

    if not path.exists():
        return None
    return DataSource(
        structure_family=StructureFamily.container,
        structure=None,
        mimetype="application/x-hdf5",
        management=Management.external,
        assets=[Asset(data_uri=_uri(path), is_directory=False, parameter="data_uris", num=0)],
    )


def _about(key: str, folder: RunFolder) -> dict[str, Any]:
    if key == "hits":
        return {"quantity": "Bragg peaks in each frame"}
    if key == "maps":
        return {"quantity": "counts in the lines of each element", "unit": "counts"}
    if key not in VOLUMES:
        return {"definition": "NXtomo"}
    info = read_volume_info(folder.product(key))
    about = {
        "quantity": info.quantity,
        "unit": info.unit,
        "voxel_size_um": info.voxel_size_um,
        "checksum": info.checksum,
    }
    return about | ({"classes": list(info.classes)} if info.classes else {})
