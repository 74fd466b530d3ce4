"""One series of an EIGER, written down as the messages that its DCU sends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._diffraction import HC_KEV_A
from apsber_bluesky.simulation._eiger_cbor import Tag, pack_cbor
from apsber_bluesky.simulation._eiger_pixels import EigerCodec, compress, compress_block

TIME_BASE_HZ: Final = 50_000_000
_TICK_NS: Final = 10**9 // TIME_BASE_HZ
_READOUT_TICKS: Final = 5  # 100 ns between one image and the next
_SENSOR_M: Final = 450e-6
_TAG_OF_DTYPE: Final = {"|u1": 64, "<u2": 69, "<u4": 70}

HeaderDetail = Literal["none", "basic", "all"]


@dataclass(frozen=True)
class EigerConditions:
    """What the header of a series says of the experiment.

    Attributes
    ----------
    photon_energy_eV, threshold_eV : float
        Photon energy and the energy above which photons count [eV].
    distance_m : float
        From the sample [m].
    pixel_size_m : float
        Side of a pixel [m].
    beam_centre_px : tuple of float or None
        Row and column of the direct beam [pixel]; None for the middle.
    count_time_s : float or None
        Exposure time [s]; None for the frame time.
    trigger_mode : str
        As DECTRIS calls it: ``ints``, ``inte``, ``exts`` or ``exte``.
    num_triggers : int
        Triggers that the images are shared by.
    description, serial_number : str
        Which detector it is.
    """

    photon_energy_eV: float = 12_398.0
    threshold_eV: float = 6_199.0
    distance_m: float = 0.1
    pixel_size_m: float = 75e-6
    beam_centre_px: tuple[float, float] | None = None
    count_time_s: float | None = None
    trigger_mode: str = "ints"
    num_triggers: int = 1
    description: str = "Simulated EIGER"
    serial_number: str = "E-00-0000"


@dataclass(frozen=True)
class EigerSeries:
    """What a series of an EIGER consists of.

    Attributes
    ----------
    series_id : int
        Its number.
    num_images, rows, columns : int
        Images to come, and their size [pixel].
    dtype : str
        ``"|u1"``, ``"<u2"`` or ``"<u4"``.
    channels : tuple of str
        Active thresholds; the legacy stream has one.
    codec : {"none", "bslz4", "lz4"}
        Compression.
    header_detail : {"none", "basic", "all"}
        How much the header says.
    frame_time_s : float
        From the start of one image to that of the next [s].
    began : datetime
        Start of the series.
    header_appendix, image_appendix : object, optional
        The user's own data, anything that JSON can hold.
    with_hash : bool
        Whether legacy images carry the MD5 sum of their pixels.
    conditions : EigerConditions
        What the header says of the experiment.
    pixel_mask : ndarray of uint32, shape (rows, columns), optional
        Mask of a header of all details: bit 0 gap, bit 1 dead; nothing is masked by default.
    """

    series_id: int
    num_images: int
    rows: int
    columns: int
    dtype: str = "<u2"
    channels: tuple[str, ...] = ("threshold_1",)
    codec: EigerCodec = "bslz4"
    header_detail: HeaderDetail = "basic"
    frame_time_s: float = 0.01
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    header_appendix: Any = None
    image_appendix: Any = None
    with_hash: bool = True
    conditions: EigerConditions = EigerConditions()
    pixel_mask: NDArray[np.uint32] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _TAG_OF_DTYPE:
            raise InputError(f"dtype {self.dtype} is not one of {', '.join(_TAG_OF_DTYPE)}")

    @property
    def unique_id(self) -> str:
        """Unique ID of the series."""
        return f"{self.began:%Y%m%dT%H%M%S%f}-{self.series_id}"

    @property
    def count_time_s(self) -> float:
        """Exposure time [s]."""
        given = self.conditions.count_time_s
        return self.frame_time_s if given is None else given

    @property
    def dtype_name(self) -> str:
        """The type of a pixel as the detector calls it."""
        return np.dtype(self.dtype).name

    def ticks(self, image_id: int) -> int:
        """Start of an image after that of the series, in units of 1/`TIME_BASE_HZ` s."""
        return round(image_id * self.frame_time_s * TIME_BASE_HZ)


@dataclass(frozen=True)
class ImageForm:
    """How an image is written down; type and shape are other than its series says to be faulty.

    Attributes
    ----------
    dtype : str
        Type of its pixels.
    transposed : bool
        Whether its sides are exchanged.
    begins_s : float or None
        Start after that of the series [s]; None for that of a series without gaps.
    """

    dtype: str
    transposed: bool = False
    begins_s: float | None = None

    def ticks(self, series: EigerSeries, image_id: int) -> tuple[int, int]:
        """Start and end after the start of the series, in units of 1/`TIME_BASE_HZ` s."""
        if self.begins_s is None:
            return series.ticks(image_id), series.ticks(image_id + 1) - _READOUT_TICKS
        begins = round(self.begins_s * TIME_BASE_HZ)
        return begins, begins + round(series.count_time_s * TIME_BASE_HZ)


def start_message2(series: EigerSeries) -> list[bytes]:
    """Stream V2: the start message."""
    conditions = series.conditions
    row, column = conditions.beam_centre_px or (series.rows / 2, series.columns / 2)
    message = {
        "type": "start",
        "arm_date": Tag(0, _date(series)),
        "beam_center_x": column,
        "beam_center_y": row,
        "channels": list(series.channels),
        "count_time": series.count_time_s,
        "countrate_correction_enabled": False,
        "countrate_correction_lookup_table": Tag(70, np.arange(4, dtype="<u4").tobytes()),
        "detector_description": conditions.description,
        "detector_serial_number": conditions.serial_number,
        "detector_translation": [0.0, 0.0, conditions.distance_m],
        "flatfield": _per_channel(series, np.ones((series.rows, series.columns), "<f4"), 85),
        "flatfield_enabled": True,
        "frame_time": series.frame_time_s,
        "goniometer": {"omega": {"increment": 0.0, "start": 0.0}},
        "image_dtype": series.dtype_name,
        "image_size_x": series.columns,
        "image_size_y": series.rows,
        "incident_energy": conditions.photon_energy_eV,
        "incident_wavelength": HC_KEV_A / (conditions.photon_energy_eV / 1000),
        "number_of_images": series.num_images,
        "pixel_mask": _per_channel(series, _mask(series), 70),
        "pixel_mask_enabled": True,
        "pixel_size_x": conditions.pixel_size_m,
        "pixel_size_y": conditions.pixel_size_m,
        "saturation_value": int(np.iinfo(series.dtype).max) - 1,
        "sensor_material": "Si",
        "sensor_thickness": _SENSOR_M,
        "series_id": series.series_id,
        "series_unique_id": series.unique_id,
        "threshold_energy": dict.fromkeys(series.channels, conditions.threshold_eV),
        "user_data": series.header_appendix,
        "virtual_pixel_interpolation_enabled": False,
    }
    if series.header_detail != "all":
        for table in ("countrate_correction_lookup_table", "flatfield", "pixel_mask"):
            del message[table]
    return [pack_cbor(message)]


def image_message2(
    series: EigerSeries, image_id: int, images: Sequence[NDArray[Any]], form: ImageForm
) -> list[bytes]:
    """Stream V2: an image message, of one image for each channel."""
    begins, ends = form.ticks(series, image_id)
    arrays = zip(series.channels, images, strict=True)
    message = {
        "type": "image",
        "series_id": series.series_id,
        "series_unique_id": series.unique_id,
        "image_id": image_id,
        "real_time": [ends - begins, TIME_BASE_HZ],
        "series_date": Tag(0, _date(series)),
        "start_time": [begins, TIME_BASE_HZ],
        "stop_time": [ends, TIME_BASE_HZ],
        "user_data": series.image_appendix,
        "data": {name: _array2(series, image, form) for name, image in arrays},
    }
    return [pack_cbor(message)]


def _array2(series: EigerSeries, image: NDArray[Any], form: ImageForm) -> Tag:
    content: Any = compress(image, series.codec)
    if series.codec != "none":
        element = image.itemsize if series.codec == "bslz4" else 0
        content = Tag(56500, [series.codec, element, content])
    shape = image.shape[::-1] if form.transposed else image.shape
    return Tag(40, [list(shape), Tag(_TAG_OF_DTYPE[form.dtype], content)])


def _mask(series: EigerSeries) -> NDArray[Any]:
    if series.pixel_mask is None:
        return np.zeros((series.rows, series.columns), "<u4")
    return series.pixel_mask.astype("<u4")


def _per_channel(series: EigerSeries, table: NDArray[Any], tag: int) -> dict[str, Tag]:
    array = Tag(40, [list(table.shape), Tag(tag, table.tobytes())])
    return dict.fromkeys(series.channels, array)


def end_message2(series: EigerSeries) -> list[bytes]:
    """Stream V2: the end message."""
    names = {"series_id": series.series_id, "series_unique_id": series.unique_id}
    return [pack_cbor({"type": "end", **names})]


def _date(series: EigerSeries) -> str:
    return series.began.isoformat(timespec="milliseconds")


def start_message1(series: EigerSeries) -> list[bytes]:
    """Legacy stream: the header, in the detail wanted."""
    detail = series.header_detail
    parts = [_json(htype="dheader-1.0", series=series.series_id, header_detail=detail)]
    if detail != "none":
        parts.append(_json(**_configuration(series)))
    if detail == "all":
        ones = np.ones((series.rows, series.columns), "<f4")
        table = np.ones((2, 1000), "<f4")
        for htype, array in (
            ("dflatfield-1.0", ones),
            ("dpixelmask-1.0", _mask(series)),
            ("dcountrate_table-1.0", table),
        ):
            shape = list(array.shape[::-1])
            parts += [_json(htype=htype, shape=shape, type=array.dtype.name), array.tobytes()]
    return _with_appendix(parts, series.header_appendix)


def _configuration(series: EigerSeries) -> dict[str, Any]:
    conditions = series.conditions
    row, column = conditions.beam_centre_px or (series.rows / 2, series.columns / 2)
    return {
        "beam_center_x": column,
        "beam_center_y": row,
        "bit_depth_image": 8 * np.dtype(series.dtype).itemsize,
        "compression": series.codec,
        "count_time": series.count_time_s,
        "data_collection_date": _date(series),
        "description": conditions.description,
        "detector_distance": conditions.distance_m,
        "detector_number": conditions.serial_number,
        "frame_time": series.frame_time_s,
        "nimages": series.num_images // conditions.num_triggers,
        "ntrigger": conditions.num_triggers,
        "photon_energy": conditions.photon_energy_eV,
        "threshold_energy": conditions.threshold_eV,
        "trigger_mode": conditions.trigger_mode,
        "x_pixel_size": conditions.pixel_size_m,
        "x_pixels_in_detector": series.columns,
        "y_pixel_size": conditions.pixel_size_m,
        "y_pixels_in_detector": series.rows,
    }


def image_message1(
    series: EigerSeries, image_id: int, images: Sequence[NDArray[Any]], form: ImageForm
) -> list[bytes]:
    """Legacy stream: an image, of the one channel that it has."""
    (image,) = images
    blob = compress_block(image) if series.codec == "lz4" else compress(image, series.codec)
    bits = 8 * image.itemsize
    encodings = {"none": "<", "bslz4": f"bs{bits}-lz4<", "lz4": "lz4<"}
    shape = list(image.shape if form.transposed else image.shape[::-1])
    begins, ends = form.ticks(series, image_id)
    begins_ns, ends_ns = begins * _TICK_NS, ends * _TICK_NS
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest() if series.with_hash else ""
    parts = [
        _json(htype="dimage-1.0", series=series.series_id, frame=image_id, hash=digest),
        _json(
            htype="dimage_d-1.0",
            shape=shape,
            type=np.dtype(form.dtype).name,
            encoding=encodings[series.codec],
            size=len(blob),
        ),
        blob,
        _json(
            htype="dconfig-1.0",
            start_time=begins_ns,
            stop_time=ends_ns,
            real_time=ends_ns - begins_ns,
        ),
    ]
    return _with_appendix(parts, series.image_appendix)


def end_message1(series: EigerSeries) -> list[bytes]:
    """Legacy stream: the end of the series."""
    return [_json(htype="dseries_end-1.0", series=series.series_id)]


def _with_appendix(parts: list[bytes], appendix: Any) -> list[bytes]:
    return parts if appendix is None else [*parts, json.dumps(appendix).encode()]


def _json(**content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
