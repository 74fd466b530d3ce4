"""What is kept of a run: NeXus record, volume, verified second copy, catalogue."""

from apsber_bluesky.storage._archive import MANIFEST_NAME, archive_run, verify_copy
from apsber_bluesky.storage._catalog_client import (
    CatalogUnreachable,
    connect_catalog,
    explain_catalog_errors,
)
from apsber_bluesky.storage._catalog_follow import Follower, follow
from apsber_bluesky.storage._catalog_search import find_runs, products_of, run_of, volume_of
from apsber_bluesky.storage._document_delivery import DocumentDelivery
from apsber_bluesky.storage._document_journal import (
    DocumentJournal,
    journal_root,
    read_documents,
)
from apsber_bluesky.storage._element_map_reader import ElementMapImages, read_element_maps
from apsber_bluesky.storage._embedded_tiled import (
    PROCESSED_CONTAINER,
    RAW_CONTAINER,
    EmbeddedTiled,
    prepare_catalog,
)
from apsber_bluesky.storage._frame_reader import FrameReader, FrameSeries
from apsber_bluesky.storage._label_reader import LabelVolume, open_labels
from apsber_bluesky.storage._label_writer import write_drawn_labels
from apsber_bluesky.storage._nexus_record import write_nexus
from apsber_bluesky.storage._nexus_volume import NexusVolumeWriter
from apsber_bluesky.storage._publication import Publication, publish_run
from apsber_bluesky.storage._receipt import Receipt, ReceiptFile
from apsber_bluesky.storage._scan_file import FrameStack, OpenScan, ScanFile
from apsber_bluesky.storage._scan_layouts import open_scan
from apsber_bluesky.storage._tiff_volume import TiffVolumeWriter
from apsber_bluesky.storage._volume import VolumeInfo, open_volume, read_volume_info
from apsber_bluesky.storage._volume_content import VolumeContent, content_of, label_content
from apsber_bluesky.storage._volume_kinds import AnyVolumeWriter, check_volume_path, create_volume
from apsber_bluesky.storage._volume_writer import VolumeWriter

__all__ = [
    "MANIFEST_NAME",
    "PROCESSED_CONTAINER",
    "RAW_CONTAINER",
    "AnyVolumeWriter",
    "CatalogUnreachable",
    "DocumentDelivery",
    "DocumentJournal",
    "ElementMapImages",
    "EmbeddedTiled",
    "Follower",
    "FrameReader",
    "FrameSeries",
    "FrameStack",
    "LabelVolume",
    "NexusVolumeWriter",
    "OpenScan",
    "Publication",
    "Receipt",
    "ReceiptFile",
    "ScanFile",
    "TiffVolumeWriter",
    "VolumeContent",
    "VolumeInfo",
    "VolumeWriter",
    "archive_run",
    "check_volume_path",
    "connect_catalog",
    "content_of",
    "create_volume",
    "explain_catalog_errors",
    "find_runs",
    "follow",
    "journal_root",
    "label_content",
    "open_labels",
    "open_scan",
    "open_volume",
    "prepare_catalog",
    "products_of",
    "publish_run",
    "read_documents",
    "read_element_maps",
    "read_volume_info",
    "run_of",
    "verify_copy",
    "volume_of",
    "write_drawn_labels",
    "write_nexus",
]
