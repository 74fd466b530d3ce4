"""What the server refuses, asked over a real socket."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from apsber_bluesky.core import ConfigurationError, DashboardSettings
from apsber_bluesky.dashboard import Dashboard


class Browser:
    """Asks what a browser never would."""

    def __init__(self, dashboard):
        self.place = urlsplit(dashboard.address)
        self.key = dashboard.link.partition("#key=")[2]

    def ask(self, path, method="GET", *, key="", headers=None, body=None):
        connection = http.client.HTTPConnection(self.place.hostname, self.place.port, timeout=20)
        sent = {"Authorization": f"Bearer {key or self.key}", **(headers or {})}
        connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer, content

    def wait_for(self, uid):
        """Wait until a run was seen."""
        deadline = time.monotonic() + 20
        while self.ask(f"/api/runs/{uid}")[0].status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def raw(self, request: bytes) -> bytes:
        """What comes back for any bytes; empty when the connection is just closed."""
        with socket.create_connection((self.place.hostname, self.place.port), timeout=20) as one:
            one.sendall(request)
            one.shutdown(socket.SHUT_WR)
            answer = b""
            while block := one.recv(65536):
                answer += block
            return answer


@pytest.fixture
def browser(dashboard):
    return Browser(dashboard)


def test_the_key_has_256_bits_and_is_kept_for_the_owner_alone(dashboard, profile):
    path = profile.session.data_root / ".apsber" / "dashboard" / "key"
    key = dashboard.link.partition("#key=")[2]
    assert path.read_text().strip() == key
    assert len(key) == 43
    assert path.stat().st_mode & 0o077 == 0
    again = Dashboard(profile)
    assert again.link.partition("#key=")[2] == key
    again.close()


def test_with_the_key_there_is_an_answer(browser):
    answer, content = browser.ask("/api/runs")
    assert answer.status == 200
    assert json.loads(content) == {"total": 0, "runs": []}


def test_without_the_key_nothing_is_told(browser):
    wrong = [None, "", "Bearer", "Bearer ", "Bearer none", "Basic {key}", "Bearer {key}x", "{key}",
             "bearer {key}", "Bearer \u00e9\u00e8"]  # fmt: skip
    for path in ("/api/events", "/api/runs", "/api/runs/x/slice", "/api/none"):
        for shown in wrong:
            header = None if shown is None else shown.format(key=browser.key)
            answer, content = browser.ask(path, headers={"Authorization": header})
            assert (shown, answer.status) == (shown, 401)
            assert json.loads(content) == {"error": "the key is missing or wrong"}


def test_a_key_in_a_cookie_or_in_the_address_opens_nothing(browser):
    for path, headers in (
        (f"/api/runs?key={browser.key}", {}),
        ("/api/runs", {"Cookie": f"key={browser.key}"}),
    ):
        assert browser.ask(path, headers={"Authorization": None, **headers})[0].status == 401


def test_it_answers_to_the_names_of_this_computer_alone(browser):
    for host in ("localhost:80", "127.0.0.1", "[::1]:8087", "LOCALHOST"):
        assert browser.ask("/api/runs", headers={"Host": host})[0].status == 200
    # A page elsewhere that has pointed its name here.
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "",
                 "[::2]", "evil]x", "127.0.0.1@evil.example", "2130706433"):  # fmt: skip
        for path in ("/", "/api/runs"):
            status = browser.ask(path, headers={"Host": host})[0].status
            assert (host, status) in ((host, 400), (host, 421))


def test_two_hosts_in_one_request_are_refused(browser):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert browser.raw(request).split(b" ")[1] in (b"400", b"421")


def test_nothing_can_be_changed(browser):
    for path in ("/", "/api/runs", "/api/runs/run-1"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer, _ = browser.ask(path, method)
            assert (method, answer.status) == (method, 405)
            assert answer.headers["Allow"] == "GET, HEAD"


def test_requests_have_no_body_and_short_heads(browser):
    assert browser.ask("/api/runs", body=b"x" * 10)[0].status == 413
    chunked = b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert browser.raw(chunked).split(b" ")[1] == b"413"
    long = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"
    assert browser.raw(long).split(b" ")[1:2] in ([b"400"], [b"431"], [])
    assert browser.ask("/" + "a" * 20_000)[0].status in (400, 431)
    assert browser.ask("/api/runs?q=" + "a" * 300)[0].status == 400


def test_every_answer_is_dressed(browser):
    for path in ("/", "/main.js", "/style.css", "/icon.svg", "/api/runs", "/none", "/api/none"):
        answer, _ = browser.ask(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] in ("no-store", "no-cache")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Set-Cookie" not in answer.headers
        assert "Server" not in answer.headers


def test_the_page_has_no_script_or_style_of_its_own(browser):
    text = browser.ask("/")[1].decode()
    assert "<script>" not in text
    assert "<style" not in text
    assert " style=" not in text
    assert " on" not in "".join(part.split(">")[0] for part in text.split("<")[1:]).replace(
        " one", ""
    )
    assert "http://" not in text
    assert "https://" not in text


OUTSIDE = [
    "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/_server.py", "/__init__.py", "//etc/passwd",
    "/api/runs/..", "/api/runs/%2e%2e%2f%2e%2e", "/api/runs/run-1%00", "/api/runs/.apsber",
    "/api/runs/run-1/figures/..%2fquality.json", "/api/runs/run-1/figures/../ledger.sqlite",
    "/api/runs/run-1/slice?of=../../x", "/api/runs/run-1/slice?of=path",
    "/api/runs/run-1/slice?axis=w", "/api/runs/run-1/slice?position=-1",
    "/api/runs/run-1/slice?position=99999999999999999999", "/api/runs/run-1/slice?position=1e3",
    "/api/runs/run-1/slice?position=16", "/api/live/xy", "/api/live/..", "/api/runs?first=x",
    "/api/runs/run-1/slice?of=denoised", "/api/runs/run-1/slice?position=%d9%a3",
]  # fmt: skip


def test_no_request_leads_out_of_the_runs(browser, run_with_volumes):
    browser.wait_for("run-1")
    assert browser.ask("/api/runs/run-1/slice?of=labels&axis=x&position=3")[0].status == 200
    assert browser.ask("/api/runs/run-1/figures/ortho_slices.png")[1] == b"\x89PNG figure"
    for path in OUTSIDE:
        answer, content = browser.ask(path)
        assert (path, answer.status) in ((path, 400), (path, 404))
        assert str(run_with_volumes.path.parents[1]).encode() not in content


def test_links_that_lead_out_of_the_data_root_are_not_followed(browser, make_run, tmp_path_factory):
    folder = make_run("run-1")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.png").write_bytes(b"secret")
    folder.figures.symlink_to(outside)
    other = make_run("run-2")
    other.figures.mkdir()
    (other.figures / "a.png").symlink_to(outside / "secret.png")
    moved = outside / "run-3"
    make_run("run-3").path.rename(moved)
    (folder.path.parent / "run-3").symlink_to(moved)
    make_run("run-4")
    browser.wait_for("run-4")
    runs = json.loads(browser.ask("/api/runs")[1])["runs"]
    assert {run["uid"] for run in runs} == {"run-1", "run-2", "run-4"}
    for path in ("run-1/figures/secret.png", "run-2/figures/a.png", "run-3"):
        assert browser.ask(f"/api/runs/{path}")[0].status == 404


def test_what_is_no_request_does_no_harm(browser):
    for request in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b""):
        browser.raw(request)
    assert browser.ask("/api/runs")[0].status == 200


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"interface": "0.0.0.0"}, "would show its key"),
        ({"interface": "beamline"}, "IP address"),
        ({"certificate": "a.pem"}, "give certificate and private_key"),
        ({"port": 70000}, "less than 65536"),
        ({"host_names": ["a b"]}, "host name"),
    ],
)
def test_settings_that_would_be_unsafe_are_refused(settings, why):
    with pytest.raises(ValidationError, match=why):
        DashboardSettings(**settings)


def test_a_port_that_is_taken_is_named(profile, dashboard):
    port = urlsplit(dashboard.address).port
    taken = profile.model_copy(update={"dashboard": DashboardSettings(port=port)})
    with pytest.raises(ConfigurationError, match=f"port {port}"):
        Dashboard(taken)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_a_certificate_it_speaks_tls(profile, tmp_path):
    names = [tmp_path / "key.pem", tmp_path / "certificate.pem"]
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        ["openssl", *words, "-addext", "subjectAltName=DNS:localhost",
         "-keyout", names[0], "-out", names[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    secure = DashboardSettings(port=0, private_key=names[0], certificate=names[1])
    server = Dashboard(profile.model_copy(update={"dashboard": secure}))
    server.start()
    try:
        port = urlsplit(server.address).port
        context = ssl.create_default_context(cafile=names[1])
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        assert server.address.startswith("https://")
    finally:
        server.close()
