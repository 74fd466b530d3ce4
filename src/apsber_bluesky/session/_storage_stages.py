"""The stages that keep things: storage, joined to the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apsber_bluesky.core import RunFolder, ServiceError
from apsber_bluesky.pipeline import Product, RunContext
from apsber_bluesky.storage import (
    CatalogUnreachable,
    Publication,
    VolumeWriter,
    archive_run,
    connect_catalog,
    content_of,
    write_nexus,
)


def open_volume_writer(
    folder: RunFolder, shape: tuple[int, int, int], voxel_size_um: float | None
) -> VolumeWriter:
    """Make the place that the slabs of a run are written to."""
    return VolumeWriter(folder.volume, shape, voxel_size_um=voxel_size_um)


def open_product_writer(
    folder: RunFolder, product: Product, shape: tuple[int, int, int], voxel_size_um: float | None
) -> VolumeWriter:
    """Make the place that what a model makes of a volume is written to."""
    path = folder.product(product.name)
    content = content_of(product.kind, **product.about)
    return VolumeWriter(path, shape, voxel_size_um=voxel_size_um, content=content)


class WriteRecord:
    """Write the NeXus record."""

    name = "record"
    essential = True

    def run(self, context: RunContext) -> None:
        """Write ``run.nxs``."""
        findings = context.findings
        write_nexus(
            context.folder,
            context.run,
            processes=findings.processes,
            books=findings.books,
            centre_px=findings.centre_px,
            quality=findings.quality,
            exit_status=context.exit_status,
            notes=findings.notes,
        )
        context.report(self.name, 1, 1)


class Archive:
    """Make the verified second copy.

    Parameters
    ----------
    archive_root : Path
        Where copies are kept.
    """

    name = "archive"
    essential = True

    def __init__(self, archive_root: Path) -> None:
        self._archive_root = archive_root

    def run(self, context: RunContext) -> None:
        """Copy, verify, write the receipt."""
        archive_run(
            context.folder,
            self._archive_root,
            progress=context.report,
            cancelled=context.cancelled,
        )


class Publish:
    """Register the products in the catalogue.

    The run is on disk and archived whether or not the catalogue answers. If it does not, what is to
    be published is kept beside the documents, and the catalogue process publishes it later.

    Parameters
    ----------
    uri : str
        Address of the Tiled server, with its key.
    documents : Path
        Folder of the documents that the catalogue process delivers.
    """

    name = "publish"
    essential = False

    def __init__(self, uri: str, documents: Path) -> None:
        self._uri = uri
        self._documents = documents
        self._client: Any = None

    def run(self, context: RunContext) -> None:
        """Register volume, record and quality numbers."""
        findings = context.findings
        publication = Publication.of(
            context.folder,
            context.run,
            processes=findings.processes,
            books=findings.books,
            quality=findings.quality,
            state="complete" if findings.books.complete else "incomplete",
        )
        try:
            if self._client is None:
                self._client = connect_catalog(self._uri)
            publication.publish(self._client)
        except CatalogUnreachable as error:
            kept = publication.keep(self._documents)
            raise ServiceError(f"{error}; it is kept in {kept} and published later") from error
        context.report(self.name, 1, 1)
