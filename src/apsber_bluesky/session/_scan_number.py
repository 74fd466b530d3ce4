"""Scan numbers go on from session to session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apsber_bluesky.core import ConfigurationError, atomic_file


class ScanNumber:
    """A source of scan ids for the RunEngine, kept in a file.

    Parameters
    ----------
    path : Path
        File that holds the last number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, metadata: dict[str, Any]) -> int:
        """The next number."""
        number = self.last + 1
        with atomic_file(self._path) as partial:
            partial.write_text(f"{number}\n", encoding="ascii")
        return number

    @property
    def last(self) -> int:
        """The last number given, 0 before the first.

        Raises
        ------
        ConfigurationError
            If the file holds something else.
        """
        if not self._path.exists():
            return 0
        text = self._path.read_text(encoding="ascii", errors="replace").strip()
        if not text.isdigit():
            raise ConfigurationError(f"{self._path} holds {text!r}, not a scan number; remove it")
        return int(text)
