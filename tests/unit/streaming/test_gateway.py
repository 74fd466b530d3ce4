"""The gateway's files, made from a profile and checked before anything is served."""

from __future__ import annotations

import json
import re
import socket

import psutil
import pytest

from apsber_bluesky.core import ConfigurationError, GatewaySettings, StorageError
from apsber_bluesky.streaming import (
    check_gateway_files,
    check_gateway_network,
    write_gateway_files,
)
from apsber_bluesky.streaming._gateway import (
    access_rules,
    gateway_configuration,
    pv_expression,
    pv_list,
)

PREVIEW = "APSBER:Preview:Image"
SESSION = "127.0.0.1:9"


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def settings():
    def settings(**changes):
        ports = {"server_port": free_port(), "broadcast_port": free_port(socket.SOCK_DGRAM)}
        return GatewaySettings(**{**ports, **changes})

    return settings


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("2bm:m1.RBV", ["2bm:m1.RBV"], ["2bm:m1xRBV", "2bm:m1.RBV2", "x2bm:m1.RBV"]),
        ("2bm:*", ["2bm:", "2bm:m1", "2bm:a:b"], ["2bmx", "12bm:m1"]),
        ("*:Image", ["a:Image"], ["a:Image2", "Image"]),
        ("a[1]{x}<y>;z/w", ["a[1]{x}<y>;z/w"], ["a1x", "a1{x}<y>;z/w"]),
        ("a|b", ["a|b"], ["a", "b"]),
        ("a*b*c", ["abc", "axbyc"], ["ab", "xabc"]),
    ],
)
def test_a_star_stands_for_anything_and_all_else_for_itself(pattern, fits, does_not):
    expression = re.compile(pv_expression(pattern))
    assert all(expression.fullmatch(name) for name in fits)
    assert not any(expression.fullmatch(name) for name in does_not)


def test_only_the_preview_and_what_is_listed_is_shown_to_p4p(settings):
    from p4p.asLib.pvlist import PVList

    listed = PVList(
        pv_list(settings(pvs=["2bm:*"], writable={"2bm:shutter": ["op"], "v*": ["op"]}), PREVIEW)
    )

    def group(name):
        return listed.compute(name.encode(), "127.0.0.1")[1]

    assert [group(name) for name in (PREVIEW, "2bm:m1")] == ["DEFAULT", "DEFAULT"]
    # What may be written is shown, and its own line decides.
    assert [group(name) for name in ("2bm:shutter", "valve")] == ["WRITE0", "WRITE1"]
    hidden = (f"{PREVIEW}2", "APSBERxPreview:Image", "2bm", "x2bm:m1", "2bm:m1\nx", "")
    assert [group(name) for name in hidden] == [None] * len(hidden)


class Channel:
    """What p4p's engine tells of a channel's rights."""

    name = "test"

    def access(self, **rights):
        self.rights = {name for name, granted in rights.items() if granted}


def test_accounts_may_put_to_what_they_are_named_for_and_to_nothing_else(settings):
    from p4p.asLib import Engine

    engine = Engine(access_rules(settings(writable={"a": ["ann", "bob"], "b": ["role.x@y"]})))

    def rights(group, user):
        channel = Channel()
        engine.create(channel, group, user, "127.0.0.1", 1)
        return channel.rights

    assert rights("WRITE0", "ann") == rights("WRITE0", "bob") == {"put"}
    assert rights("WRITE1", "role.x@y") == {"put"}
    for group, user in (("WRITE0", "eve"), ("WRITE1", "ann"), ("DEFAULT", "ann"), ("none", "ann")):
        assert rights(group, user) == set()


def test_it_is_read_only_unless_somebody_may_write(settings):
    assert gateway_configuration(settings(), SESSION)["readOnly"] is True
    writable = settings(writable={"a": ["ann"]})
    assert gateway_configuration(writable, SESSION)["readOnly"] is False


def test_it_searches_the_session_and_the_listed_iocs_and_nobody_else(settings):
    configuration = gateway_configuration(
        settings(upstream=["10.0.0.5", "10.0.0.6:5099"], upstream_broadcast_port=5077), SESSION
    )
    session, beamline = configuration["clients"]
    assert (session["addrlist"], session["EPICS_PVA_NAME_SERVERS"]) == ("", SESSION)
    assert (beamline["addrlist"], beamline["bcastport"]) == ("10.0.0.5 10.0.0.6:5099", 5077)
    assert [c["autoaddrlist"] for c in configuration["clients"]] == [False, False]
    assert len(gateway_configuration(settings(), SESSION)["clients"]) == 1


def write(folder, settings):
    return write_gateway_files(settings, folder, name_server=SESSION, preview=PREVIEW)


def test_p4p_accepts_the_files(settings, tmp_path):
    path = write(
        tmp_path / "new" / "gateway",
        settings(pvs=["*", "a[1]{x}<y>;z/w-b"], writable={"v*": ["ann", "b-c.d@e"]}),
    )
    assert json.loads(path.read_text())["version"] == 2
    assert sorted(file.name for file in path.parent.iterdir()) == ["gw.acf", "gw.json", "gw.pvlist"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gw.acf", "ASG(DEFAULT) { RULE(0, READ) UAG }", "Syntax error on line 1 at or before"),
        ("gw.acf", "ASG(DEFAULT) { ? }", "Illegal char"),
        ("gw.acf", "ASG(DEFAULT) { RULE(0, READ)", "Error"),
        ("gw.pvlist", "[ ALLOW", "unterminated character set"),
        ("gw.pvlist", "a PERHAPS", "Unknown command"),
        ("gw.json", "{", "Syntax Error"),
        ("gw.json", '{"version": 2, "clients": []}', "KeyError: 'servers'"),
    ],
)
def test_files_that_p4p_refuses_are_refused_on_one_line(settings, tmp_path, name, content, words):
    path = write(tmp_path, settings())
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError, match="p4p refuses the gateway's files") as refusal:
        check_gateway_files(path)
    assert words in str(refusal.value)
    assert "__main__" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_refused(settings, tmp_path):
    path = write(tmp_path, settings())
    (tmp_path / "gw.acf").unlink()
    with pytest.raises(ConfigurationError, match=r"gw\.acf"):
        check_gateway_files(path)


def test_files_that_cannot_be_written_are_named(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the files of the gateway"):
        write(tmp_path / "file", settings())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_is_taken_is_refused_by_name(settings, kind):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        name = "server_port" if kind == socket.SOCK_STREAM else "broadcast_port"
        with pytest.raises(ConfigurationError, match=rf"gateway\.{name} {port} on 127.* is taken"):
            check_gateway_network(settings(**{name: port}), SESSION, "APSBER:")
    check_gateway_network(settings(**{name: port}), SESSION, "APSBER:")


def test_an_interface_of_another_computer_is_refused(settings):
    with pytest.raises(ConfigurationError, match=r"gateway.interface 192.0.2.1 is not of this"):
        check_gateway_network(settings(interface="192.0.2.1"), SESSION, "APSBER:")


@pytest.mark.parametrize("interface", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("upstream", ["127.0.0.1", "localhost", "255.255.255.255"])
def test_an_upstream_that_is_the_gateway_itself_is_refused(settings, interface, upstream):
    wanted = settings(interface=interface, upstream=[upstream])
    check_gateway_network(wanted, SESSION, "APSBER:")
    port = wanted.broadcast_port
    with pytest.raises(ConfigurationError, match=f"{upstream}' is where the gateway itself serves"):
        check_gateway_network(
            wanted.model_copy(update={"upstream_broadcast_port": port}), SESSION, "APSBER:"
        )
    with pytest.raises(ConfigurationError, match=f"{upstream}:{port}' is where the gateway itself"):
        check_gateway_network(
            wanted.model_copy(update={"upstream": [f"{upstream}:{port}"]}), SESSION, "APSBER:"
        )


def test_the_broadcast_address_of_the_gateways_own_interface_is_the_gateway_itself(settings):
    own = [
        each
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family == socket.AF_INET and each.broadcast
    ]
    if not own:
        pytest.skip("this computer has no network with broadcasts")
    wanted = settings(interface=own[0].address, upstream=[own[0].broadcast])
    with pytest.raises(ConfigurationError, match="where the gateway itself serves"):
        check_gateway_network(
            wanted.model_copy(update={"upstream_broadcast_port": wanted.broadcast_port}),
            SESSION,
            "APSBER:",
        )


def test_a_gateway_at_the_port_of_the_session_is_refused(settings):
    wanted = settings()
    with pytest.raises(ConfigurationError, match="the gateway would serve itself"):
        check_gateway_network(wanted, f"127.0.0.1:{wanted.server_port}", "APSBER:")


@pytest.mark.parametrize("upstream", ["no-such-host.invalid", "10.0.0.1:port"])
def test_an_upstream_that_is_no_address_is_refused(settings, upstream):
    with pytest.raises(ConfigurationError, match=f"gateway.upstream '{upstream}' is no address"):
        check_gateway_network(settings(upstream=[upstream]), SESSION, "APSBER:")


@pytest.mark.parametrize("changes", [{"pvs": ["2bm:m1"]}, {"writable": {"2bm:m1": ["ann"]}}])
def test_pvs_that_nobody_has_are_refused(settings, changes):
    with pytest.raises(ConfigurationError, match=r"gateway.upstream is empty.*'2bm:m1'"):
        check_gateway_network(settings(**changes), SESSION, "APSBER:")
    check_gateway_network(settings(pvs=["APSBER:Health:*"]), SESSION, "APSBER:")
