"""Values of a simulated EIGER's records: what they are at first, and what follows from what."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from apsber_bluesky.simulation._areadetector import DATA_TYPES
from apsber_bluesky.simulation._diffraction import HC_KEV_A
from apsber_bluesky.simulation._eiger_ioc_records import Generation
from apsber_bluesky.simulation._eiger_ioc_sensor import EigerSensor

#: Time between two images in which nothing is counted [s], by generation.
DEAD_TIME_S: Final[dict[Generation, float]] = {1: 3e-6, 2: 1e-7}
# Roughly what a detector with a silicon sensor takes [eV].
_LOWEST_EV, _HIGHEST_EV = 4_000.0, 40_000.0
# An EIGER2 500K counts with so many bits (ADEiger's documentation, DataType_RBV).
_LONG_EXPOSURE_S, _SHORT_PERIOD_S = 0.0066, 0.00045


class Records(Protocol):
    """The channels of the driver."""

    def at(self, name: str) -> Any:
        """The channel of one record."""
        ...

    async def post(self, values: dict[str, Any]) -> None:
        """Publish several records."""
        ...


def first_values(sensor: EigerSensor, generation: Generation) -> dict[str, Any]:
    """What the records say at first, of a detector that is initialised."""
    geometry = sensor.geometry
    row, column = geometry.centre
    energy_eV = geometry.energy_keV * 1000
    both: dict[str, Any] = {
        "AcquireTime": 0.1,
        "AcquirePeriod": 0.1 + DEAD_TIME_S[generation],
        "NumImages": 1,
        "NumTriggers": 1,
        "PhotonEnergy": energy_eV,
        "ThresholdEnergy": energy_eV / 2,
        "Wavelength": geometry.wavelength_A,
        "DetDist": geometry.distance_mm / 1000,
        "BeamX": column,
        "BeamY": row,
        "DataSource": "FileWriter",
        "FWEnable": "Enable",
        "FWNamePattern": "series_$id",
        "CompressionAlgo": "BS LZ4",
        "SizeX": geometry.columns,
        "SizeY": geometry.rows,
        "BinX": 1,
        "BinY": 1,
        "ImageMode": "Multiple",
    }
    if generation == 2:
        both |= {"Threshold1Enable": "Enable", "Threshold2Energy": energy_eV * 1.5}
    name = f"Eiger{'' if generation == 1 else '2'} simulated"
    return {
        **{f"{record}{end}": value for record, value in both.items() for end in ("", "_RBV")},
        "Description_RBV": f"Dectris {name}",
        "Manufacturer_RBV": "Dectris",
        "Model_RBV": name,
        "SerialNumber_RBV": "E-00-0000",
        "SDKVersion_RBV": "1.6.0" if generation == 1 else "1.8.0",
        "DriverVersion_RBV": "3.6.0",
        "ADCoreVersion_RBV": "3.14.0",
        "SensorMaterial_RBV": "Si",
        "SensorThickness_RBV": 4.5e-4,
        "XPixelSize_RBV": geometry.pixel_size_um * 1e-6,
        "YPixelSize_RBV": geometry.pixel_size_um * 1e-6,
        "DeadTime_RBV": DEAD_TIME_S[generation],
        "State_RBV": "idle",
        "StreamState_RBV": "ready",
        "MaxSizeX_RBV": geometry.columns,
        "MaxSizeY_RBV": geometry.rows,
        "ArraySizeX_RBV": geometry.columns,
        "ArraySizeY_RBV": geometry.rows,
        **_data_type(0.1, 0.1),
    }


def keep_consistent(records: Records) -> None:
    """Have the records follow each other as the detector's settings do."""
    dead_s = float(records.at("DeadTime_RBV").value)

    async def set_time(value: float) -> None:
        await _set(records, "AcquireTime", value)
        await _set(records, "AcquirePeriod", max(records.at("AcquirePeriod").value, value + dead_s))
        await _follow(records)

    async def set_period(value: float) -> None:
        await _set(records, "AcquirePeriod", value)
        await _set(records, "AcquireTime", min(records.at("AcquireTime").value, value - dead_s))
        await _follow(records)

    async def set_energy(value: float) -> None:
        energy_eV = min(max(value, _LOWEST_EV), _HIGHEST_EV)
        await _set(records, "PhotonEnergy", energy_eV)
        await _set(records, "ThresholdEnergy", energy_eV / 2)
        await _set(records, "Wavelength", HC_KEV_A / (energy_eV / 1000))

    async def set_wavelength(value: float) -> None:
        await set_energy(HC_KEV_A / value * 1000)

    for name, put in (
        ("AcquireTime", set_time),
        ("AcquirePeriod", set_period),
        ("PhotonEnergy", set_energy),
        ("Wavelength", set_wavelength),
    ):
        records.at(name).on_put = _positive(records, name, put)
    for name in ("NumImages", "NumTriggers"):
        records.at(name).on_put = _positive(records, name, _setter(records, name))


def _setter(records: Records, name: str) -> Callable[[Any], Awaitable[None]]:
    async def put(value: Any) -> None:
        await _set(records, name, value)

    return put


def _positive(
    records: Records, name: str, put: Callable[[Any], Awaitable[None]]
) -> Callable[[Any], Awaitable[None]]:
    """Refuse what is not a positive number."""

    async def checked(value: Any) -> None:
        if math.isfinite(value) and value > 0:
            await put(value)
        else:
            await records.at(name).post(records.at(f"{name}_RBV").value)

    return checked


async def _set(records: Records, name: str, value: Any) -> None:
    await records.post({name: value, f"{name}_RBV": value})


async def _follow(records: Records) -> None:
    time_s, period_s = (records.at(name).value for name in ("AcquireTime", "AcquirePeriod"))
    await records.post(_data_type(time_s, period_s))


def _data_type(time_s: float, period_s: float) -> dict[str, Any]:
    bits = 32 if time_s > _LONG_EXPOSURE_S else 8 if period_s < _SHORT_PERIOD_S else 16
    return {"BitDepthImage_RBV": bits, "DataType_RBV": DATA_TYPES[f"u{bits // 8}"]}
