"""The live page as people see it: a session scans, and a browser looks on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apsber_bluesky.core import RunFolder

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCREENSHOTS = os.environ.get("APSBER_SCREENSHOTS")

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(200),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this computer"),
]

# Each line that it reads is a scan of so many projections; SIGUSR1 aborts it.
SESSION = """
import signal, sys, threading
from bluesky.utils import RunEngineInterrupted
from apsber_bluesky.session import start

small = {
    "simulation": {"rows": 32, "columns": 48},
    "processing": {"chunk_projections": 8, "live_slices": {"hz": 20}},
}
with start("simulated", small) as s:
    d = s.devices
    def pause(*_):
        threading.Thread(target=s.RE.request_pause).start()
    signal.signal(signal.SIGUSR1, pause)
    print("told ready", flush=True)
    for line in sys.stdin:
        count, sample = line.split()
        try:
            (uid,) = s.RE(s.plans.fly_tomography(
                d.camera, d.rotation, d.shutter, d.sample_x,
                num_projections=int(count), exposure_s=0.04, sample=sample,
            ))
        except RunEngineInterrupted:
            (uid,) = s.RE.abort("somebody wanted to")
        print("told", s.wait(uid, 60)["uid"], flush=True)
"""

PHONE = {"width": 390, "height": 844}
SCREEN = {"width": 1440, "height": 900}


class Beamline:
    """A session in a process of its own."""

    def __init__(self, root, environment):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SESSION],
            env={**environment, "APSBER_DATA_ROOT": str(root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.root = root

    def wait(self):
        """What it says next; the RunEngine says things of its own."""
        for line in self.process.stdout:
            if line.startswith("told "):
                return line.split()[1]
        return ""

    def begin(self, count, sample):
        self.process.stdin.write(f"{count} {sample}\n")
        self.process.stdin.flush()

    def abort(self):
        self.process.send_signal(signal.SIGUSR1)

    def close(self):
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("watched")


def start_dashboard(apsber, root, port=0):
    process = apsber.start("dashboard", "--port", port, "--data-root", root, "--json")
    return process, json.loads(process.stdout.readline())["url"]


@pytest.fixture(scope="module")
def page_link(apsber, root):
    process, link = start_dashboard(apsber, root)
    yield process, link
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        assert apsber.finish(process).status == 0


@pytest.fixture(scope="module")
def chromium():
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += [f"--disable-{name}" for name in ("background-networking", "component-update", "sync")]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


class Watcher:
    """Somebody who looks at the page."""

    def __init__(self, chromium, link, size=SCREEN, scheme="dark"):
        self.context = chromium.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.troubles = []
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(link)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def text(self, selector):
        return self.page.text_content(selector) or ""

    def until(self, condition, seconds=60):
        waited = 0.0
        while not (value := condition()):
            waited += 0.02
            assert waited < seconds, self.page.inner_text("main")
            self.page.wait_for_timeout(20)
        return value

    @property
    def progress(self):
        return float(self.page.eval_on_selector("#progress", "bar => bar.value"))

    def picture(self, image="live-xy"):
        return self.page.get_attribute(f"#{image}", "src") or ""

    def shoot(self, name):
        if SCREENSHOTS:
            folder = Path(SCREENSHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=folder / f"{name}.png")

    def close(self):
        self.context.close()
        assert self.troubles == []


def test_the_page_follows_sessions_and_scans(apsber, root, page_link, chromium):
    _, link = page_link
    desk = Watcher(chromium, link)
    phone = Watcher(chromium, link, PHONE, "light")
    desk.until(lambda: desk.text("#link") == "Connected")
    assert desk.text("#session") == "No session"
    desk.until(lambda: desk.text("#sample") == "No runs yet")
    # The key is not left where a camera sees it.
    assert "key" not in desk.page.url
    desk.shoot("empty-desk")
    phone.shoot("empty-phone")

    beamline = Beamline(root, apsber.environment)
    assert beamline.wait() == "ready"
    desk.until(lambda: desk.text("#session") == "Session: simulated")
    beamline.begin(90, "leaf")
    desk.until(lambda: desk.text("#sample") == "leaf")
    shown, parts, is_shot = set(), [], False
    while "Complete" not in desk.text("#state"):
        if picture := desk.picture():
            shown.add(picture)
        parts.append(desk.progress)
        if not is_shot and shown and parts[-1] > 0.4:
            is_shot = True
            desk.shoot("running-desk")
            phone.shoot("running-phone")
        desk.page.wait_for_timeout(30)
        assert len(parts) < 2000
    # Progress grew in steps, and the slices changed.
    assert parts[0] < 0.5 < max(parts)
    assert len(set(parts)) > 5
    assert len(shown) > 2
    first = beamline.wait()
    desk.until(lambda: "Finished volume" in desk.text("#slices-line"))
    for watcher in (desk, phone):
        watcher.until(lambda watcher=watcher: "verified" in watcher.text("#hero-facts"))
        assert watcher.text("#percent").split()[-1] in ("Pass", "Warning", "Fail")
        assert "90 / 90" in watcher.text("#hero-facts")
    assert "Signal to noise" in desk.text("#now-side-quality-body")
    assert "Reconstruct" in desk.text("#now-side-stages-body")
    assert "Copied and verified" in desk.text("#now-side-archive-body")
    desk.shoot("finished-desk")
    phone.shoot("finished-phone")

    beamline.begin(2000, "root")
    desk.until(lambda: desk.text("#sample") == "root" and desk.progress > 0)
    beamline.abort()
    desk.until(lambda: "Aborted" in desk.text("#state"))
    second = beamline.wait()
    desk.until(lambda: desk.page.locator("#runs tr").count() == 2)
    desk.page.fill("#search", "leaf")
    desk.until(lambda: desk.page.locator("#runs tr").count() == 1)
    assert desk.page.get_attribute("#runs a", "href") == f"#/run/{first}"
    beamline.close()
    desk.until(lambda: desk.text("#session") == "No session")
    assert {first, second} == {path.parent.name for path in root.glob("*/*/ledger.sqlite")}
    desk.close()
    phone.close()


def test_a_run_can_be_leafed_through_by_keyboard(root, page_link, chromium):
    _, link = page_link
    (folder,) = (RunFolder(path.parent) for path in root.glob("*/*/volume.zarr"))
    desk = Watcher(chromium, link)
    desk.until(lambda: desk.text("#link") == "Connected")
    desk.page.goto(f"{link.partition('#')[0]}#/run/{folder.uid}")
    before = desk.until(lambda: desk.picture("volume-image"))
    assert desk.text("#position-text") == "z = 16 of 32"
    desk.page.focus("#position")
    desk.page.keyboard.press("ArrowRight")
    assert desk.text("#position-text") == "z = 17 of 32"
    after = desk.until(
        lambda: desk.picture("volume-image") not in ("", before) and desk.picture("volume-image")
    )
    desk.page.focus("input[name=axis]:checked")
    desk.page.keyboard.press("ArrowRight")
    assert desk.text("#position-text") == "y = 24 of 48"
    desk.until(lambda: desk.picture("volume-image") not in ("", after))
    desk.until(lambda: desk.page.locator("#figures img").count() >= 1)
    desk.shoot("run-desk")
    desk.page.go_back()
    desk.until(lambda: desk.page.is_visible("#overview"))
    desk.close()


def test_a_page_finds_the_server_again_and_shows_what_came_meanwhile(
    apsber, root, page_link, chromium
):
    process, link = page_link
    watcher = Watcher(chromium, link, PHONE)
    watcher.until(lambda: watcher.text("#link") == "Connected")
    process.kill()
    apsber.finish(process)
    watcher.until(lambda: watcher.text("#link") == "Reconnecting")
    watcher.shoot("lost-phone")
    # Names come from people: this one would be a script, were it not text alone.
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    (folder,) = (RunFolder(path.parent) for path in root.glob("*/*/volume.zarr"))
    made = root / "commissioning" / "made-meanwhile"
    shutil.copytree(folder.path, made)
    from apsber_bluesky.core import RunLedger

    with RunLedger(made / "ledger.sqlite") as ledger:
        ledger.describe({**ledger.description, "start_time_s": 4e9, "sample": name})
    port = link.partition("#")[0].rstrip("/").rpartition(":")[2]
    again, same = start_dashboard(apsber, root, port)
    try:
        assert same == link
        watcher.until(lambda: watcher.text("#link") == "Connected")
        watcher.until(lambda: watcher.text("#sample") == name)
        assert watcher.page.locator("main script, main img[src=x]").count() == 0
        # What the browser says of a server that is away is no fault of the page.
        watcher.troubles = [t for t in watcher.troubles if "Failed to load resource" not in t]
        watcher.close()
        stranger = Watcher(chromium, link.partition("#")[0])
        stranger.until(lambda: stranger.page.is_visible("#gate"))
        assert not stranger.page.is_visible("#overview")
        stranger.page.fill("#gate-key", link)
        stranger.page.keyboard.press("Enter")
        stranger.until(lambda: stranger.text("#sample") == name)
        stranger.close()
    finally:
        again.send_signal(signal.SIGTERM)
        assert apsber.finish(again).status == 0
