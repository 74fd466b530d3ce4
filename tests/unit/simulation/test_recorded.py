from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, ImageKey
from apsber_bluesky.simulation import RecordedScan

TOOTH = Path(__file__).parents[2] / "data" / "tooth.h5"
N, ROWS, COLUMNS = 6, 3, 5


def frames(count: int, base: float, dtype: str = "f4") -> np.ndarray:
    ramp = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    return (base + 100 * np.arange(count)[:, None, None] + ramp).astype(dtype)


def dxchange(path: Path, change: Callable[[dict[str, np.ndarray]], object] | None = None) -> Path:
    parts = {
        "data": frames(N, 1000),
        "data_white": frames(2, 5000),
        "data_dark": frames(3, 10),
        "theta": np.arange(N) * 30.0,
    }
    if change is not None:
        change(parts)
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            file[f"exchange/{name}"] = value
    return path


def nxtomo(path: Path, keys: list[int], dtype: str = "u2") -> Path:
    with h5py.File(path, "w") as file:
        file["entry/definition"] = "NXtomo"
        file["entry/instrument/detector/data"] = frames(len(keys), 0, dtype)
        file["entry/instrument/detector/image_key"] = np.array(keys)
        file["entry/sample/rotation_angle"] = np.arange(len(keys)) * 10.0
        size = file.create_dataset("entry/instrument/detector/x_pixel_size", data=0.65)
        size.attrs["units"] = "um"
    return path


def test_the_tooth_is_read_as_it_was_measured() -> None:
    scan = RecordedScan.open(TOOTH)
    try:
        assert (scan.rows, scan.columns, scan.dtype) == (2, 640, np.dtype("<f4"))
        assert (scan.num_projections, scan.num_flats, scan.num_darks) == (181, 10, 10)
        assert scan.rotation_start_deg == 0.0
        assert scan.rotation_stop_deg == pytest.approx(180.0)
        with h5py.File(TOOTH) as file:
            theta = file["exchange/theta"][()]
            frame = scan.frame(ImageKey.PROJECTION, number=0, angle_deg=float(theta[77]) + 0.3)
            np.testing.assert_array_equal(frame, file["exchange/data"][77])
    finally:
        scan.close()


def test_flats_and_darks_start_again_after_the_last(tmp_path: Path) -> None:
    scan = RecordedScan.open(dxchange(tmp_path / "scan.h5"))
    flats = [scan.frame(ImageKey.FLAT, number=i)[0, 0] for i in range(5)]
    darks = [scan.frame(ImageKey.DARK, number=i)[0, 0] for i in range(5)]
    scan.close()
    assert flats == [5000, 5100, 5000, 5100, 5000]
    assert darks == [10, 110, 210, 10, 110]


@pytest.mark.parametrize(
    ("angle_deg", "index"), [(0, 0), (14, 0), (16, 1), (150, 5), (-1, 0), (359, 0), (390, 1)]
)
def test_the_projection_nearest_in_angle_is_taken(
    tmp_path: Path, angle_deg: float, index: int
) -> None:
    scan = RecordedScan.open(dxchange(tmp_path / "scan.h5"))
    frame = scan.frame(ImageKey.PROJECTION, number=3, angle_deg=angle_deg)
    scan.close()
    assert frame[0, 0] == 1000 + 100 * index


def test_angles_in_radians_are_understood(tmp_path: Path) -> None:
    path = dxchange(tmp_path / "scan.h5", lambda p: p.update(theta=np.arange(N) * np.pi / 6))
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "rad"
    scan = RecordedScan.open(path)
    scan.close()
    assert scan.rotation_stop_deg == pytest.approx(180.0)


def test_nxtomo_frames_are_told_apart_by_their_image_key(tmp_path: Path) -> None:
    scan = RecordedScan.open(nxtomo(tmp_path / "scan.nxs", [2, 1, 1, 0, 3, 0, 0], ">u2"))
    kinds = {
        kind: scan.frame(kind, number=0, angle_deg=52.0)[0, 0]
        for kind in (ImageKey.DARK, ImageKey.FLAT, ImageKey.PROJECTION)
    }
    scan.close()
    assert kinds == {ImageKey.DARK: 0, ImageKey.FLAT: 100, ImageKey.PROJECTION: 500}
    assert (scan.num_projections, scan.num_flats, scan.num_darks) == (3, 2, 1)
    assert scan.dtype == np.dtype("<u2")
    assert scan.pixel_size_um == pytest.approx(0.65)


def _missing(path: Path) -> Path:
    return path


def _truncated(path: Path) -> Path:
    path.write_bytes(TOOTH.read_bytes()[:500_000])
    return path


def _other_format(path: Path) -> Path:
    path.write_text("angle,counts\n0,1\n")
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _other_layout(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["measurement/spectrum"] = np.arange(10)
    return path


def _changed(**changes: object) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        def change(parts: dict[str, np.ndarray]) -> None:
            for name, value in changes.items():
                if value is None:
                    del parts[name]
                else:
                    parts[name] = np.asarray(value)

        return dxchange(path, change)

    return make


def _nan(count: int, base: float) -> np.ndarray:
    values = frames(count, base)
    values[1, 2, 3] = np.nan
    return values


def _nxtomo_without_darks(path: Path) -> Path:
    return nxtomo(path, [1, 0, 0, 0])


def _nxtomo_without_angles(path: Path) -> Path:
    nxtomo(path, [2, 1, 0, 0])
    with h5py.File(path, "r+") as file:
        del file["entry/sample"]
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "there is no file"),
        (_truncated, "damaged or truncated"),
        (_other_format, "not an HDF5 file"),
        (_empty, "not an HDF5 file"),
        (_folder, "is a folder"),
        (_other_layout, "neither a DXchange scan"),
        (_changed(data_white=None), "no flats"),
        (_changed(data_dark=None), "no darks"),
        (_changed(data_white=frames(0, 0)), "no flats"),
        (_changed(theta=None), "no usable angles"),
        (_changed(theta=np.arange(N - 1)), "5 angles .* 6 projections"),
        (_changed(theta=np.full(N, np.nan)), "angles that are not numbers"),
        (_changed(theta=np.zeros(N)), "all angles"),
        (_changed(data=_nan(N, 0)), "pixels that are not numbers"),
        (_changed(data_dark=_nan(3, 0)), "data_dark .*pixels that are not numbers"),
        (_changed(data=frames(1, 0), theta=np.zeros(1)), "1 projections"),
        (_changed(data=frames(N, 0)[0]), "not a stack of frames"),
        (_changed(data_white=frames(2, 0)[:, :2]), "frames of .* differ"),
        (_nxtomo_without_darks, "no darks"),
        (_nxtomo_without_angles, "no usable angles"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_reason(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    path = make(tmp_path / "bad.h5")
    with pytest.raises(DataFileError, match=reason) as caught:
        RecordedScan.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_inside_the_data_is_found_before_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        file["exchange/data_white"] = frames(2, 0)
        file["exchange/data_dark"] = frames(2, 0)
        file["exchange/theta"] = np.arange(N) * 30.0
        data = file.create_dataset(
            "exchange/data", data=frames(N, 0), chunks=(1, ROWS, COLUMNS), fletcher32=True
        )
        offset = data.id.get_chunk_info(4).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 8] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataFileError, match="damaged"):
        RecordedScan.open(path)
