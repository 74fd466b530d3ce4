"""Drive what stands around the sample through the suite's own devices; see test_surroundings.py."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import traceback
from typing import Any

from ioc_tools import CAM, FRAMES, WAIT_S, P, acquire, get, put, wait_for
from ophyd import EpicsSignal

from apsber_bluesky.core import ApsberError
from apsber_bluesky.devices import (
    AerotechPso,
    Filters,
    LeaningSampleStage,
    Monochromator,
    PulseGenerator,
    StorageRing,
    beam_suspenders,
)

stage = LeaningSampleStage(P, name="stage", x="m2", y="m3", z="m4", roll="m5")
energy = Monochromator(f"{P}mono:energy", name="energy")
filters = Filters(f"{P}filters:", name="filters")
ring = StorageRing(f"{P}ring:", name="ring")
generator = PulseGenerator(f"{P}rot:pso:", name="generator")
aerotech = AerotechPso(f"{P}rot:", name="aerotech", counts_per_turn=11_840_000)
dump = EpicsSignal(f"{P}ring:SimulateDump", name="dump")
DEVICES = (stage, energy, filters, ring, generator, aerotech, dump)


def frame(counter: int = 100) -> Any:
    acquire(1, 0, counter=counter)
    return FRAMES.series()["frames"][0][1].astype(float)


def refused(work: Any) -> str:
    try:
        work()
    except ApsberError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def connects() -> dict[str, Any]:
    for device in DEVICES:
        device.wait_for_connection(timeout=WAIT_S)
    return {"names": sorted(stage.read()), "filters": filters.numbers}


def column_of(image: Any, flat: Any) -> float:
    """Column of the centre of mass of what is missing from the beam."""
    shadow = (flat - image).sum(axis=0)
    return float((shadow * range(len(shadow))).sum() / shadow.sum())


def moves_the_sample() -> dict[str, Any]:
    put(f"{P}shutter:Command", "Open")
    put(f"{P}cam:ZMQ1:EnableCallbacks", "Enable")
    put(f"{CAM}AcquireTime", 0.005)
    stage.x.set(8.0).wait(WAIT_S)
    flat = frame()
    stage.x.set(0.0).wait(WAIT_S)
    before = frame()
    stage.x.set(0.02).wait(WAIT_S)
    moved = frame()
    stage.x.set(0.0).wait(WAIT_S)
    again = frame()
    stage.y.set(0.02).wait(WAIT_S)
    risen = frame()
    stage.y.set(0.0).wait(WAIT_S)
    stage.roll.set(3.0).wait(WAIT_S)
    leaning = frame()
    stage.roll.set(0.0).wait(WAIT_S)
    return {
        "moved_columns": column_of(moved, flat) - column_of(before, flat),
        "same_again": bool((again == before).all()),
        "y_changes": bool((risen != before).any()),
        "roll_changes": bool((leaning != before).any()),
    }


def filters_and_energy() -> dict[str, Any]:
    stage.x.set(8.0).wait(WAIT_S)
    flat = frame().mean()
    filters.set([2, 3]).wait(WAIT_S)
    wait_for(lambda: filters.transmission.get() < 1.0)
    told = filters.transmission.get()
    seen = frame().mean()
    states = [getattr(filters, f"filter{n}").state.get() for n in filters.numbers]
    filters.set([]).wait(WAIT_S)
    stage.x.set(0.0).wait(WAIT_S)
    soft = frame().min()
    energy.set(26.0).wait(WAIT_S)
    hard = frame().min()
    energy.set(20.0).wait(WAIT_S)
    return {
        "told": told,
        "seen": seen / flat,
        "states": states,
        "minima": [soft, hard],
        "too_soft": refused(lambda: energy.check([10.0, 2.0])),
        "no_such": refused(lambda: filters.set([4])),
        "no_word": refused(lambda: filters.filter1.set("half")),
    }


def loses_the_beam() -> dict[str, Any]:
    light = frame().mean()
    put(f"{P}ring:SimulateDump", 1)
    wait_for(lambda: ring.current.get() == 0.0)
    dark = frame().mean()
    put(f"{P}ring:SimulateDump", 0)
    wait_for(lambda: ring.current.get() > 100.0)
    put(f"{P}ring:SimulatePermit", 0)
    wait_for(lambda: ring.permit.get() == 0)
    shut = frame().mean()
    put(f"{P}ring:SimulatePermit", 1)
    return {"light": light, "dark": dark, "shut": shut, "again": frame().mean()}


def suspends() -> dict[str, Any]:
    from bluesky import RunEngine, plan_stubs

    engine = RunEngine({}, context_managers=[])
    suspenders = beam_suspenders(ring, ring_current_mA=50.0, resume_mA=60.0, permit=True)
    for suspender in suspenders:
        engine.install_suspender(suspender)
    order: list[str] = []

    def plan() -> Any:
        yield from plan_stubs.checkpoint()
        order.append("began")
        yield from plan_stubs.mv(stage.z, 1.0)
        order.append("moved")

    put(f"{P}ring:SimulateDump", 1)
    wait_for(lambda: all(s.tripped for s in suspenders[:1]))

    def later() -> None:
        time.sleep(0.5)
        order.append("beam")
        dump.put(0)

    thread = threading.Thread(target=later)
    thread.start()
    engine(plan())
    thread.join()
    for suspender in suspenders:
        engine.remove_suspender(suspender)
    return {"order": order, "left": len(engine.suspenders), "words": str(suspenders[0])}


def pulses(source: Any, start: float, step: float, number: int) -> list[float]:
    """Angles of the frames of a fly scan that a source of pulses triggers."""
    put(f"{CAM}AcquireTime", 0.001)
    put(f"{P}rot:m1.VELO", 60.0)
    put(f"{P}rot:m1.VAL", start)
    source.check(step, number)
    source.arm_pulses(start, step, number)
    put(f"{P}rot:m1.VAL", start - 5 * step)
    acquire(number, 0, "External")
    put(f"{P}rot:m1.VELO", 20.0)
    put(f"{P}rot:m1.VAL", start + (number + 3) * step)
    frames = FRAMES.series()["frames"]
    source.disarm()
    return [header["angle_deg"] for header, _ in frames]


def gives_pulses() -> dict[str, Any]:
    return {
        "generator": pulses(generator, 10.0, 1.5, 4),
        "aerotech": pulses(aerotech, 10.0, 1.5, 4),
        "backwards": pulses(aerotech, -3.0, -0.75, 5),
        "no_step": refused(lambda: generator.arm_pulses(0.0, 0.0, 3)),
        "coarse": refused(lambda: aerotech.check(0.0123456, 100_000)),
        "none": refused(lambda: aerotech.check(1.0, 0)),
        "nonsense": [get_answer("PSOFIRE X NOW"), get_answer("PSOWINDOW X 1 RANGE 5,-5")],
    }


def get_answer(words: str) -> str:
    aerotech.command.put(words, wait=True)
    return str(aerotech.reply.get(use_monitor=False))


def main() -> None:
    results: dict[str, Any] = {}
    for section in (
        connects,
        moves_the_sample,
        filters_and_energy,
        loses_the_beam,
        suspends,
        gives_pulses,
    ):
        try:
            # The RunEngine prints what it waits for.
            with contextlib.redirect_stdout(sys.stderr):
                results[section.__name__] = section()
        except Exception:  # noqa: BLE001 - the tests report it, section by section
            results[section.__name__] = {"failed": traceback.format_exc()}
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    assert get(f"{P}shutter:Status_RBV") is not None
    main()
