"""A queue server as users meet it: a real Redis, a real manager, a real environment."""

from __future__ import annotations

import json
import runpy
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from apsber_bluesky.core import ServiceError
from apsber_bluesky.session import QueueClient, QueueFolder

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

TABLE = runpy.run_path(str(Path(__file__).with_name("plan_arguments.py")))
ARGUMENTS = TABLE["ARGUMENTS"]
MOVE = {"item_type": "plan", "name": "mv"}
USER = {"user": "test", "user_group": "primary"}


class Queue:
    """A queue server that runs, and the command line to talk to it."""

    def __init__(self, apsber, repository, root, profile):
        TABLE["write_profile"](repository, profile)
        self._apsber = apsber
        self.root = root
        self.where = ["--profile", profile, "--data-root", root, "--json"]
        self.process = apsber.start("queue", "start", "--port", 0, *self.where)
        line = self.process.stdout.readline()
        self.ready = json.loads(line)
        assert self.ready.get("ready"), (self.ready, self.process.communicate())
        self.client = QueueClient.at(QueueFolder(root.resolve()).running())

    def __call__(self, *words):
        return self._apsber("queue", *words, *self.where)

    def wait_idle(self, timeout_s=120):
        return self.client.wait(lambda now: now["manager_state"] == "idle", timeout_s)

    def tree(self):
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


@pytest.fixture(scope="module")
def queue(apsber, repository, tmp_path_factory):
    """The one queue server of this module; at the end it must end when it is told to."""
    folder = tmp_path_factory.mktemp("queue")
    server = Queue(apsber, repository, folder / "data", folder / "small.yaml")
    yield server
    server.client.close()
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGINT)
        outcome = apsber.finish(server.process)
        assert outcome.status == 0, outcome.stderr


@pytest.fixture(scope="module")
def ran(queue):
    """Every public plan, once, through the queue: what the history says, by plan."""
    plans = queue.client.plans()
    home = [value for name_and_position in TABLE["HOME"].items() for value in name_and_position]
    for plan, arguments in ARGUMENTS.items():
        devices = [p["name"] for p in plans[plan]["parameters"] if "default" not in p]
        queue.client.request("queue_item_add", item={**MOVE, "args": home}, **USER)
        queue.client.add(plan, {**{name: name for name in devices}, **arguments})
        queue.client.start()
        queue.wait_idle()
        # A plan that failed is put back into the queue.
        queue.client.request("queue_clear")
    return {item["name"]: item["result"] for item in queue.client.history()}


def test_every_public_plan_is_offered_with_all_its_descriptions(queue):
    plans = queue.client.plans()
    for plan in ARGUMENTS:
        described = plans[plan]
        assert described["description"]
        for parameter in described["parameters"]:
            assert parameter["description"], (plan, parameter["name"])
            assert parameter["annotation"]["type"], (plan, parameter["name"])


def test_devices_are_offered_by_the_names_of_those_of_the_right_class(queue):
    described = {p["name"]: p for p in queue.client.plans()["fly_tomography"]["parameters"]}
    assert list(described["rotation"]["annotation"]["devices"].values()) == [["rotation"]]
    (cameras,) = described["camera"]["annotation"]["devices"].values()
    assert "camera" in cameras
    assert "shutter" not in cameras


@pytest.mark.parametrize("plan", ARGUMENTS)
def test_the_plan_runs_through_the_queue(plan, ran):
    assert ran[plan]["exit_status"] == "completed", ran[plan]["msg"] + ran[plan]["traceback"]
    assert ran[plan]["run_uids"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly_tomography", "num_projections=many"], "Number of projections, 1 or more"),
        (["fly_tomography", "dark_mode=never"], "When darks are taken"),
        (["fly_tomography", "projections=9"], "has no argument 'projections'"),
        (["fly_tomography", "camera=rotation"], "Input should be 'camera'"),
        (["fly_tomograph"], "no plan 'fly_tomograph'"),
        (["count", "num=3"], "plan count needs detectors"),
    ],
)
def test_bad_arguments_are_refused_before_they_are_queued(words, said, queue):
    outcome = queue("add", *words)
    assert outcome.status == 1
    assert said in outcome.json["error"]
    assert queue.client.queue() == ([], None)


ANOTHER_CLIENT = """
import sys
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.zmq import REManagerAPI

control, info, key = sys.stdin.read().split()
manager = REManagerAPI(zmq_control_addr=control, zmq_info_addr=info, zmq_public_key=key)
devices = {name: name for name in ("camera", "rotation", "shutter", "sample_x")}
try:
    manager.item_add(BPlan("fly_tomography", **devices, exposure_s="long"))
except manager.RequestFailedError as error:
    print("REFUSED", error)
manager.close()
"""


def test_the_manager_refuses_them_from_any_client(queue):
    address = QueueFolder(queue.root.resolve()).running()
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_CLIENT],
        input=f"{address.control_address} {address.info_address} {address.public_key}",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "REFUSED" in done.stdout
    assert "valid number" in done.stdout
    assert queue.client.status()["items_in_queue"] == 0


@pytest.mark.parametrize("key", [None, "another"])
def test_a_stranger_without_the_key_is_not_answered(key, queue):
    import zmq

    public = zmq.curve_keypair()[0].decode() if key else None
    with (
        QueueClient(queue.ready["control_address"], public, timeout_s=0.5) as stranger,
        pytest.raises(ServiceError, match="does not know this key"),
    ):
        stranger.status()


def test_nothing_listens_beyond_the_loopback_interface(queue):
    listening = {
        connection.laddr.ip
        for process in queue.tree()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_keys_passwords_and_settings_are_for_their_owner_alone(queue):
    folder = queue.root / ".apsber" / "queue"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("keys/manager.key", "keys/manager.key_secret", "manager.yaml", "redis.conf"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    words = [word for process in queue.tree() for word in process.cmdline()]
    secret = yaml.safe_load((folder / "manager.yaml").read_text())["network"]["zmq_private_key"]
    assert not any(secret in word for word in words)


def test_a_second_server_of_a_data_root_is_refused(queue):
    outcome = queue("start", "--port", 0)
    assert outcome.status == 1
    assert f"process {queue.process.pid} already runs the queue" in outcome.json["error"]


def test_an_aborted_plan_leaves_the_shutter_closed_and_the_queue_usable(
    queue, ran, apsber, wait_until, tmp_path
):
    added = queue("add", "fly_tomography", "num_projections=400", "exposure_s=0.2", "--start")
    assert added.status == 0, added.stderr
    script = "import pathlib\npathlib.Path({!r}).write_text(shutter.state.get())"

    def shutter(name):
        file = tmp_path / name
        code = script.format(str(file))
        queue.client.request("script_upload", script=code, run_in_background=True)
        return wait_until(lambda: file.exists() and file.read_text())

    numbers = iter(range(1000))
    wait_until(lambda: shutter(f"open-{next(numbers)}") == "Open")
    stopped = queue("stop", "--now", "--keep")
    assert stopped.status == 0, stopped.stderr
    assert stopped.json == {"was_running": True, "server": True, "waiting": 1}
    assert shutter("after") == "Closed"
    (uid,) = queue.client.history()[-1]["result"]["run_uids"]
    assert queue.client.history()[-1]["result"]["exit_status"] == "aborted"
    state = wait_until(lambda: apsber("status", uid, *queue.where).json["state"] != "running")
    assert state
    report = queue("status").json
    assert report["state"] == "idle"
    assert report["history"][-1]["exit_status"] == "aborted"
    queue.client.request("queue_clear")


def test_stopping_it_ends_the_server_after_the_plan(queue, ran, apsber):
    added = queue("add", "count", "detectors=[shutter]", "num=2", "delay=0.5", "--start")
    assert added.status == 0, added.stderr
    stopped = queue("stop")
    assert stopped.status == 0, stopped.stderr
    outcome = apsber.finish(queue.process)
    assert outcome.status == 0, outcome.stderr
    missing = queue("status")
    assert missing.status == 1
    assert "no queue server" in missing.json["error"]


def test_redis_that_is_down_is_named(apsber, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    root = tmp_path / "data"
    outcome = apsber(
        "queue", "start", "--redis", f"127.0.0.1:{port}", "--data-root", root, "--json"
    )
    assert outcome.status == 1
    assert f"Redis at 127.0.0.1:{port} does not answer" in outcome.json["error"]
    assert not (root / ".apsber" / "queue" / "server.json").exists()
