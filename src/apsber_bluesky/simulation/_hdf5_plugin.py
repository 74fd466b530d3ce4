"""``HDF1:``: the file plugin, as ophyd's ``HDF5Plugin_V34`` drives it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ophyd.areadetector.plugins import HDF5Plugin_V34

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._hdf5_file import FileOptions, FrameFile
from apsber_bluesky.simulation._plugin import Frame, Plugin

log = logging.getLogger(__name__)

_LONGEST_MESSAGE = 255
_COMPRESSIONS = ("None", "zlib")
_UNPRIMED = "No frame has passed yet: the size of the array is unknown; acquire one first"


class FileOutlet(Plugin):
    """Writes frames to HDF5 files in Single, Capture and Stream mode.

    Settings are copied when a client changes them, under a lock that also covers the open file, so
    that the camera's thread never reads a record that is just being written.

    Parameters
    ----------
    prefix : str
        PV prefix.
    thread : ThreadPoolExecutor
        The camera's thread: files are opened, written and closed there, in order with the frames.
    """

    def __init__(self, prefix: str, thread: ThreadPoolExecutor) -> None:
        super().__init__(prefix, HDF5Plugin_V34, kind="NDFileHDF5", port="FILE1", enabled=False)
        self._thread = thread
        self._lock = threading.RLock()
        self._file: FrameFile | None = None
        self._buffer: list[Frame] = []
        self._capturing = False
        self._captured = 0
        self._file_number = 0
        self._full_name = ""
        self._error = ""
        self._finished = asyncio.Event()
        self._finished.set()
        both = {
            "AutoIncrement": "Yes", "FileTemplate": "%s%s_%6.6d.h5", "NumCapture": 1, "ZLevel": 6,
            "NumFramesFlush": 0, "NumFramesChunks": 1, "NumRowChunks": 0, "NumColChunks": 0,
            "StoreAttr": "Yes",
        }  # fmt: skip
        self._initial |= {f"{name}{end}": v for name, v in both.items() for end in ("", "_RBV")}
        self._initial["SWMRSupported_RBV"] = "Supported"

    async def start(self) -> None:
        """Give the records their first values."""
        await super().start()
        self.at("FilePath").on_put = self._put_path
        self.at("FileNumber").on_put = self._put_number
        self.at("Capture").on_put = self._put_capture
        self.at("WriteFile").on_put = self._put_write
        self.at("Compression").on_put = self._put_compression
        ca.fix(self.at("FileFormat"), self.at("FileFormat_RBV"))

    def _setting(self, name: str) -> Any:
        return self.at(f"{name}_RBV").value

    # What clients write, in the server's loop.

    async def _put_path(self, value: str) -> None:
        path = value if value.endswith(os.sep) or not value else value + os.sep
        missing = not Path(path).is_dir() if path else True
        depth = self._setting("CreateDirectory")
        if path and missing and depth:
            missing = not await asyncio.to_thread(_create, Path(path), depth)
        await self.post(
            {
                "FilePath": path,
                "FilePath_RBV": path,
                "FilePathExists_RBV": "No" if missing else "Yes",
            }
        )

    async def _put_number(self, value: int) -> None:
        with self._lock:
            self._file_number = value
        await self.post({"FileNumber_RBV": value})

    async def _put_compression(self, value: str) -> None:
        if value in _COMPRESSIONS:
            await self.post({"Compression_RBV": value})
        else:
            await self.post({"Compression": self._setting("Compression")})

    async def _put_capture(self, value: str) -> None:
        loop = asyncio.get_running_loop()
        if value == "Done":
            await loop.run_in_executor(self._thread, self._end_capture)
        elif not self._capturing:
            self._finished.clear()
            await loop.run_in_executor(self._thread, self._begin_capture)
            await self.report(final=False)
            await self._finished.wait()
            return
        await self.report(final=False)

    async def _put_write(self, value: str) -> None:
        if value != "Write":
            return
        await self.post({"WriteFile_RBV": "Writing"})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write_now)
        await self.report(final=False)
        await self.post({"WriteFile": "Done", "WriteFile_RBV": "Done"})

    # What happens to frames, in the camera's thread.

    def consume(self, frame: Frame) -> None:
        """Write or keep a frame, as the mode says."""
        mode = self._setting("FileWriteMode")
        with self._lock:
            if mode == "Single":
                if self._setting("AutoSave") == "Yes":
                    self._guarded(self._write_frames, [frame])
            elif self._capturing:
                self._captured += 1
                if mode == "Stream":
                    self._guarded(self._stream, frame)
                else:
                    self._buffer.append(frame)
                wanted = self._setting("NumCapture")
                if 0 < wanted <= self._captured:
                    self._end_capture()

    def _guarded(self, write: Any, *arguments: Any) -> None:
        """Report a failed write in the records; the camera goes on, as a real one would."""
        try:
            write(*arguments)
        except (OSError, ValueError, TypeError) as error:
            log.warning("cannot write %s: %s", self._full_name, error)
            self._error = " ".join(str(error).split())
            self._close()
            self._capturing = False
        else:
            self._error = ""

    def _begin_capture(self) -> None:
        with self._lock:
            self._captured = 0
            self._buffer.clear()
            self._error = ""
            mode = self._setting("FileWriteMode")
            if mode == "Single":
                self._error = "Capture has no meaning in Single mode"
                return
            lazy = self._setting("LazyOpen") == "Yes"
            if self._last is None and not (lazy and mode == "Stream"):
                self._error = _UNPRIMED
                return
            self._capturing = True
            if mode == "Stream" and not lazy and self._last is not None:
                self._guarded(self._open, self._last)

    def _end_capture(self) -> None:
        with self._lock:
            was_capturing, self._capturing = self._capturing, False
            self._close()
            if was_capturing and self._buffer and self._setting("AutoSave") == "Yes":
                self._guarded(self._write_frames, self._buffer)

    def _write_now(self) -> None:
        with self._lock:
            if self._setting("FileWriteMode") == "Capture":
                frames = list(self._buffer)
            else:
                frames = [self._last] if self._last is not None else []
            if frames:
                self._guarded(self._write_frames, frames)
            else:
                self._error = _UNPRIMED

    def _stream(self, frame: Frame) -> None:
        if self._file is None:
            self._open(frame)
        assert self._file is not None
        self._file.append(frame)
        every = self._setting("NumFramesFlush")
        if every > 0 and self._file.num_frames % every == 0:
            self._file.flush()

    def _write_frames(self, frames: list[Frame]) -> None:
        self._open(frames[0])
        assert self._file is not None
        for frame in frames:
            self._file.append(frame)
        self._close()

    def _open(self, frame: Frame) -> None:
        template = self._setting("FileTemplate")
        name = template % (self._setting("FilePath"), self._setting("FileName"), self._file_number)
        self._full_name = name
        if not Path(name).is_absolute():
            raise ValueError(f"{name!r} is not an absolute path; set FilePath first")
        zlib = self._setting("ZLevel") if self._setting("Compression") == "zlib" else None
        swmr = self._setting("SWMRMode") == "On"
        self._file = FrameFile(Path(name), frame, FileOptions(zlib, swmr))
        if self._setting("AutoIncrement") == "Yes":
            self._file_number += 1

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def shut_down(self) -> None:
        """Close a file that is still open, in the camera's thread."""
        self._end_capture()

    async def report(self, *, final: bool) -> None:
        """Bring the records up to date."""
        await super().report(final=final)
        with self._lock:
            values = {
                "NumCaptured_RBV": self._captured,
                "FullFileName_RBV": self._full_name,
                "FileNumber": self._file_number,
                "FileNumber_RBV": self._file_number,
                "SWMRActive_RBV": "Active"
                if self._file is not None and self._setting("SWMRMode") == "On"
                else "Off",
                "WriteStatus": "Write error" if self._error else "Write OK",
                "WriteMessage": self._error[:_LONGEST_MESSAGE],
            }
            capturing = self._capturing
        await self.post(values)
        if capturing:
            await self.post({"Capture": "Capture", "Capture_RBV": "Capturing"})
        else:
            await self.post({"Capture": "Done", "Capture_RBV": "Done"})
            self._finished.set()


def _create(path: Path, depth: int) -> bool:
    """Create the missing folders of a path, as far as ``CreateDirectory`` allows.

    A negative depth is the largest number of folders to create, a positive one the number of
    folders (the root is one) that must be there already.
    """
    missing = sum(not folder.exists() for folder in (path, *path.parents))
    if (missing > -depth) if depth < 0 else (len(path.parts) - missing < depth):
        return False
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("cannot create %s: %s", path, error)
        return False
    return True
