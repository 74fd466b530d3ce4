"""What the stages after the last frame may do to a run, and what they may not."""

from __future__ import annotations

import pytest

from apsber_bluesky.core import InputError, RunCancelled, RunLedger, StorageError


class Broken:
    """A stage that goes wrong in some way."""

    name = "broken"

    def __init__(self, error: Exception, *, essential: bool) -> None:
        self.essential = essential
        self._error = error

    def run(self, context) -> None:
        raise self._error


class Last:
    """A stage that notes that it was reached."""

    name = "last"
    essential = True

    def __init__(self) -> None:
        self.reached = False

    def run(self, context) -> None:
        self.reached = True


ERRORS = [
    (StorageError("the archive is full"), "the archive is full"),
    (ConnectionResetError("peer"), "ConnectionResetError: peer"),
]


@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_a_stage_that_matters_fails_the_run_and_what_is_there_is_kept(
    make_run, make_pipeline, log, error, told
):
    last = Last()
    run = make_run()
    pipeline = make_pipeline(more_stages=[Broken(error, essential=True), last])
    run.send_through(pipeline)
    assert (log.summary(run.uid)["state"], log.summary(run.uid)["reason"]) == ("failed", told)
    assert not last.reached
    assert run.folder.volume.is_dir()
    with RunLedger(run.folder.ledger) as ledger:
        assert ledger.stages[-1].state == "failed"


@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_a_stage_that_does_not_matter_only_warns(make_run, make_pipeline, log, error, told):
    last = Last()
    run = make_run()
    pipeline = make_pipeline(more_stages=[Broken(error, essential=False), last])
    run.send_through(pipeline)
    assert log.summary(run.uid)["state"] == "complete"
    assert last.reached
    warnings = [details for _, event, details in log.messages if event == "warning"]
    assert warnings == [{"stage": "broken", "message": told}]


def test_a_cancel_in_a_stage_that_does_not_matter_still_cancels(make_run, make_pipeline, log):
    class Cancels:
        name = "publish"
        essential = False

        def run(self, context):
            pipeline.cancel()
            context.check_cancelled(self.name)

    run = make_run()
    pipeline = make_pipeline(only=[Cancels()])
    run.send_through(pipeline)
    assert log.summary(run.uid)["reason"] == "cancelled during publish"
    assert log.summary(run.uid)["state"] == "aborted"


def test_a_stage_is_not_started_after_a_cancel(make_run, make_pipeline, log):
    class Never:
        name = "never"
        essential = True

        def run(self, context):
            raise AssertionError

    class CancelsAtItsEnd:
        name = "first"
        essential = True

        def run(self, context):
            pipeline.cancel()

    run = make_run()
    pipeline = make_pipeline(only=[CancelsAtItsEnd(), Never()])
    run.send_through(pipeline)
    assert log.summary(run.uid)["reason"] == "cancelled during never"
    with RunLedger(run.folder.ledger) as ledger:
        assert [stage.name for stage in ledger.stages] == ["accumulate", "first"]


@pytest.mark.parametrize("error", [InputError("no"), RunCancelled("stop")])
def test_stages_enter_how_they_ended(make_run, make_pipeline, log, error):
    run = make_run()
    pipeline = make_pipeline(only=[Broken(error, essential=True)])
    run.send_through(pipeline)
    with RunLedger(run.folder.ledger) as ledger:
        state = "cancelled" if isinstance(error, RunCancelled) else "failed"
        assert [stage.state for stage in ledger.stages] == ["done", state]
