"""An areaDetector's NDPluginPva: one NTNDArray channel, with any codec of NDPluginCodec."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from p4p import Value
from p4p.nt import NTNDArray
from p4p.server import Server, StaticProvider
from p4p.server.raw import SharedPV

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._sls_receiver import StreamFaults

CODECS: Final = ("", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4")

# areaDetector's NDDataType in pvData's numbering of scalars.
_TYPE_CODES: Final = {
    dtype: code
    for code, dtype in enumerate(
        ["|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f4", "<f8"], start=1
    )
}
_UNION: Final = {
    "|i1": "byteValue",
    "<i2": "shortValue",
    "<i4": "intValue",
    "<i8": "longValue",
    "|u1": "ubyteValue",
    "<u2": "ushortValue",
    "<u4": "uintValue",
    "<u8": "ulongValue",
    "<f4": "floatValue",
    "<f8": "doubleValue",
}
_CHUNK_HEADER_BYTES: Final = 12


class PvaDetector:
    """Serve images as areaDetector does.

    What a client sees first is the last image of before, so one is there from the beginning.

    Parameters
    ----------
    channel : str
        PV name.
    stale : ndarray, shape (rows, columns)
        The image of before.
    codec : {"", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4"}
        How images are compressed.
    last_id : int
        ``uniqueId`` of the image of before.
    time_s : float
        Unix time of the image of before [s]; each further one is a millisecond later.

    Attributes
    ----------
    last_id : int
        ``uniqueId`` of the last image.
    configuration : dict of str to str
        ``EPICS_PVA_*`` settings with which clients find the channel.

    Raises
    ------
    InputError
        If there is no such codec.
    """

    def __init__(
        self,
        channel: str,
        stale: NDArray[Any],
        *,
        codec: str = "",
        last_id: int = 0,
        time_s: float = 1.7e9,
    ) -> None:
        if codec not in CODECS:
            raise InputError(f"codec {codec!r} is not one of {CODECS}")
        self._channel = channel
        self._codec = codec
        self._ticks = round(time_s * 1000)
        self._compressed_size = 0
        self._type = NTNDArray.buildType()
        self.last_id = last_id
        self._pv = SharedPV(initial=self.value(stale, last_id))
        self._server = self._serve(None)
        served = self._server.conf()
        self._server_configuration = {key: value for key, value in served.items() if value}
        self.configuration = {
            key: value
            for key, value in self._server_configuration.items()
            if key.startswith("EPICS_PVA_")
        }

    def _serve(self, configuration: dict[str, str] | None) -> Server:
        provider = StaticProvider("detector")
        provider.add(self._channel, self._pv)
        if configuration is None:
            return Server(providers=[provider], isolate=True)
        return Server(providers=[provider], conf=configuration, useenv=False)

    def value(self, image: NDArray[Any], unique_id: int) -> Value:
        """The NTNDArray of an image, a millisecond after the last."""
        self._ticks += 1
        return self._value(image, unique_id, self._ticks, None)

    def _value(
        self,
        image: NDArray[Any],
        unique_id: int,
        time_ms: int,
        attributes: Mapping[str, float] | None,
    ) -> Value:
        stamp = {
            "secondsPastEpoch": time_ms // 1000,
            "nanoseconds": time_ms % 1000 * 1_000_000,
        }
        dtype = image.dtype.str
        packed = encode_pixels(image, self._codec)
        if self._codec:
            # It stays at that when the codec is taken off.
            self._compressed_size = packed.nbytes
        return Value(
            self._type,
            {
                "value": (_UNION["|u1" if self._codec else dtype], packed),
                "codec": {"name": self._codec, "parameters": _TYPE_CODES[dtype]},
                "compressedSize": self._compressed_size or packed.nbytes,
                "uncompressedSize": image.nbytes,
                "uniqueId": unique_id,
                "dataTimeStamp": stamp,
                "timeStamp": stamp,
                "dimension": [
                    {"size": size, "offset": 0, "fullSize": size, "binning": 1, "reverse": False}
                    for size in reversed(image.shape)
                ],
                "attribute": [
                    {"name": name, "value": float(value), "descriptor": "", "source": ""}
                    for name, value in (attributes or {}).items()
                ],
            },
        )

    def send(
        self,
        images: NDArray[Any],
        *,
        first_id: int | None = None,
        angles_deg: NDArray[np.float64] | None = None,
        faults: StreamFaults | None = None,
        before_each: Callable[[int], None] | None = None,
    ) -> None:
        """Post one acquisition. A client that is slow misses images; nobody is told.

        Parameters
        ----------
        images : ndarray, shape (n, rows, columns)
            The images.
        first_id : int, optional
            ``uniqueId`` of the first; by default the counter runs on.
        angles_deg : ndarray, shape (n,), optional
            Rotation angles, sent as the attribute ``RotAngle`` [deg].
        faults : StreamFaults, optional
            What goes wrong. There is no end to miss. Corrupting breaks the compressed bytes, or
            the dimensions of plain ones.
        before_each : callable, optional
            Called with the number of posts so far, to hold them back.
        """
        faults = faults or StreamFaults()
        origin = self.last_id + 1 if first_id is None else first_id
        begun, self._ticks = self._ticks + 1, self._ticks + len(images)
        for posts, index in enumerate(faults.order(len(images))):
            if before_each is not None:
                before_each(posts)
            if index == faults.restart_before:
                origin = 1 - index
            angles = None if angles_deg is None else {"RotAngle": float(angles_deg[index])}
            # The time is that of the exposure, also of an image sent twice or too late.
            self._pv.post(
                self._spoiled(images[index], origin + index, begun + index, angles, index, faults)
            )
            self.last_id = max(origin + index, self.last_id if origin + index > 1 else 0)

    def _spoiled(
        self,
        image: NDArray[Any],
        unique_id: int,
        time_ms: int,
        attributes: Mapping[str, float] | None,
        index: int,
        faults: StreamFaults,
    ) -> Value:
        if index in faults.wrong_dtype:
            image = image.astype("<f8" if image.dtype != np.float64 else "<f4")
        value = self._value(image, unique_id, time_ms, attributes)
        if index in faults.truncate:
            data = value["value"]
            name = _UNION["|u1" if self._codec else image.dtype.str]
            value["value"] = (name, data[: len(data) // 2])
        if index in faults.corrupt:
            self._corrupt(value)
        return value

    def _corrupt(self, value: Value) -> None:
        if self._codec:
            value["value"] = ("ubyteValue", np.roll(value["value"], 3) ^ np.uint8(0xA5))
            return
        sizes = [int(dimension["size"]) for dimension in value["dimension"]]
        value["dimension"] = [{"size": size + 1} for size in sizes]

    def restart(self, image: NDArray[Any]) -> None:
        """Stop the server and start it again, as an IOC that was restarted: ids begin anew."""
        self._server.stop()
        self.last_id = 0
        self._pv = SharedPV(initial=self.value(image, 0))
        self._server = self._serve(self._server_configuration)

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()


def encode_pixels(image: NDArray[Any], codec: str) -> NDArray[Any]:
    """Pixels as NDPluginCodec compresses them.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
        The image.
    codec : {"", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4"}
        How.

    Returns
    -------
    ndarray, one-dimensional
        The pixels themselves, or the bytes of the compressed ones.
    """
    plain = np.ascontiguousarray(image)
    if codec == "":
        return plain.reshape(-1)
    if codec == "zlib":
        packed = zlib.compress(plain.data.cast("B"), 1)
    elif codec == "blosc":
        from numcodecs import blosc  # type: ignore[import-untyped]

        packed = blosc.compress(plain, b"lz4", 5, blosc.SHUFFLE)
    elif codec == "lz4":
        from numcodecs import lz4

        # A raw block; numcodecs writes the plain size before it.
        packed = lz4.compress(plain)[4:]
    else:
        packed = _hdf5_chunk(plain, codec)
        if codec == "bslz4":
            packed = packed[_CHUNK_HEADER_BYTES:]
    return np.frombuffer(packed, dtype=np.uint8)


def _hdf5_chunk(image: NDArray[Any], codec: str) -> bytes:
    import h5py
    import hdf5plugin

    filters = hdf5plugin.LZ4() if codec == "lz4hdf5" else hdf5plugin.Bitshuffle(cname="lz4")
    # In memory only; the name is not that of a file.
    with h5py.File("chunk", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=image, chunks=image.shape, **filters)
        return bytes(dataset.id.read_direct_chunk((0,) * image.ndim)[1])
