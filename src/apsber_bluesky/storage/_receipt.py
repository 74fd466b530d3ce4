"""The receipt of a copy: which files were copied, and what they were when read back."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from apsber_bluesky.core import StorageError

RECEIPT_NAME = "archive.json"
RECEIPTS_FOLDER = "receipts"


class ReceiptFile(BaseModel):
    """One file of a copy.

    Attributes
    ----------
    path : str
        Path relative to the run folder, with ``/``.
    size : int
        Size [byte].
    sha256 : str
        Checksum, 64 hexadecimal digits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    size: int
    sha256: str


class Receipt(BaseModel):
    """Proof that a run was copied: every file was read back from the copy and compared.

    Attributes
    ----------
    run_uid, proposal : str
        The run.
    source, target : str
        Folder of the run and folder of the copy.
    host : str
        Machine that copied.
    program, version : str
        Program that copied.
    started, finished : str
        ISO 8601 times.
    num_files, total_bytes : int
        Size of the copy.
    files : tuple of ReceiptFile
        The files, sorted by path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_uid: str
    proposal: str
    source: str
    target: str
    host: str
    program: str
    version: str
    started: str
    finished: str
    num_files: int
    total_bytes: int
    files: tuple[ReceiptFile, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a receipt.

        Parameters
        ----------
        path : Path
            The receipt, or the folder of a run or of its copy.

        Raises
        ------
        StorageError
            If there is no receipt, or it is not one.
        """
        if path.is_dir():
            path = path / RECEIPTS_FOLDER / RECEIPT_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise StorageError(f"no receipt at {path}; was the run archived?") from error
        except (OSError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise StorageError(f"cannot read the receipt {path}: {reason}") from error
