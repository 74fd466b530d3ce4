from __future__ import annotations

import logging

import pytest
from bluesky import RunEngine
from ophyd import Signal

from apsber_bluesky.core import ConfigurationError, SuspenderSettings
from apsber_bluesky.devices import StorageRing, beam_suspenders, waits_for_beam, with_beam
from apsber_bluesky.session._suspenders import install_suspenders


class Ring(StorageRing):
    """A ring in memory."""

    current = None
    permit = None

    def __init__(self, *, connected: bool = True) -> None:
        super().__init__("", name="storage_ring")
        self.current = Signal(name="current", value=100.0)
        self.permit = Signal(name="permit", value=1)
        self._is_there = connected

    @property
    def connected(self) -> bool:
        return self._is_there


@pytest.fixture
def engine():
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


def test_suspenders_of_the_profile_are_installed_in_the_run_engine(engine):
    ring = Ring()
    installed = install_suspenders(engine, {"storage_ring": ring}, SuspenderSettings())
    assert set(installed) == set(engine.suspenders)
    assert [s.tripped for s in installed] == [False, False]
    ring.current.put(40.0)
    assert [s.tripped for s in installed] == [True, False]
    # Between the two limits nothing changes.
    ring.current.put(55.0)
    assert installed[0].tripped
    ring.current.put(61.0)
    ring.permit.put(0)
    assert [s.tripped for s in installed] == [False, True]


def test_without_settings_nothing_is_installed(engine):
    assert install_suspenders(engine, {"storage_ring": Ring()}, None) == []
    assert engine.suspenders == ()


@pytest.mark.parametrize("devices", [{}, {"storage_ring": Ring(connected=False)}])
def test_a_missing_ring_is_noted_and_does_not_hold_plans(engine, devices, caplog):
    with caplog.at_level(logging.WARNING):
        assert install_suspenders(engine, devices, SuspenderSettings()) == []
    assert "plans do not wait for beam" in caplog.text


def test_a_device_that_is_no_ring_is_named(engine):
    with pytest.raises(ConfigurationError, match=r"'shutter', a Signal"):
        install_suspenders(
            engine,
            {"shutter": Signal(name="shutter")},
            SuspenderSettings(storage_ring="shutter"),
        )


def test_each_limit_can_be_left_out():
    assert beam_suspenders(Ring(), ring_current_mA=None, permit=False) == []
    assert len(beam_suspenders(Ring(), ring_current_mA=None)) == 1


def test_plans_that_would_go_on_below_the_limit_are_refused():
    with pytest.raises(ValueError, match="resume_mA is 10"):
        beam_suspenders(Ring(), resume_mA=10.0)
    with pytest.raises(ValueError, match="resume_mA is below"):
        SuspenderSettings(resume_mA=10.0)


def test_a_decorated_plan_installs_and_removes_its_suspenders():
    def plan(steps: int):
        yield from range(steps)

    decorated = waits_for_beam(Ring())(plan)
    assert decorated.__name__ == "plan"
    messages = [getattr(m, "command", m) for m in decorated(2)]
    assert messages == ["install_suspender"] * 2 + [0, 1] + ["remove_suspender"] * 2
    assert list(with_beam(plan(2), None)) == [0, 1]
