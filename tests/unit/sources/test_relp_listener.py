"""RELP as a server: the protocol by itself, and rsyslog's omrelp sending through kills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.errors import FrameRefused
from siemrelay.wire.relp import Frame, RelpClient, RelpServer, answers
from tests.conftest import MakeDaemon
from tests.support.daemon import until
from tests.support.listening import forwarded
from tests.support.programs.rsyslogd import sending
from tests.support.servers import free_port, missing

MIB = 1 << 20


@given(st.lists(st.binary(max_size=20), max_size=8), st.data())
def test_frames_come_out_whole_however_they_are_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    client, server = RelpClient(), RelpServer(MIB)
    stream = client.open()[1] + client.syslog(messages)[1] + client.close()[1]
    found, at = list[Frame](), 0
    while at < len(stream):
        size = data.draw(st.integers(1, 30))
        found += server.receive(stream[at : at + size])
        at += size
    assert [frame.data for frame in found if frame.command == b"syslog"] == messages
    assert [found[0].command, found[-1].command] == [b"open", b"close"]
    # What the server answers, the client understands, in order.
    told = RelpClient().receive(answers(found[:-1]))
    assert [answer.txnr for answer in told] == [frame.txnr for frame in found[:-1]]  # type: ignore[union-attr]  # all are answers
    assert all(answer.code == 200 for answer in told)  # type: ignore[union-attr]  # all are answers


# Pieces that mean something to the protocol are much more likely than in bytes drawn blindly.
TELLING = st.lists(
    st.sampled_from([
        b"1 open 0\n", b"2 syslog 3 abc\n", b"3 syslog 0\n", b"4 close 0\n", b"0 ", b"999999999 ",
        b"syslog ", b"open ", b"5", b" ", b"\n", b"rsp", b"16777217 ", b"x" * 20,
    ]),
    max_size=12,
).map(b"".join)  # fmt: skip


@given(TELLING, st.lists(st.integers(1, 9), max_size=40))
def test_however_it_is_cut_the_frames_and_the_refusal_are_the_same(
    stream: bytes, cuts: list[int]
) -> None:
    def served(pieces: list[bytes]) -> tuple[list[Frame], bool]:
        server, found = RelpServer(MIB), list[Frame]()
        for piece in pieces:
            try:
                found += server.receive(piece)
            except FrameRefused:
                return found, True
            assert server.held <= MIB + 100
        return found, False

    pieces, rest = list[bytes](), stream
    for cut in cuts:
        pieces, rest = [*pieces, rest[:cut]], rest[cut:]
    frames, refused = served([*pieces, rest])
    whole, refused_whole = served([stream])
    assert refused is refused_whole
    # What came before the fault in the same read is not answered: the client sends it again.
    assert frames[: len(whole)] == whole
    if not refused:
        assert frames == whole


@given(st.binary(max_size=60))
def test_anything_else_is_refused_or_waits_for_more(garbage: bytes) -> None:
    with suppress(FrameRefused):
        RelpServer(MIB).receive(garbage)


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"1 syslog 3 abc\n", "opened once, before"),
        (b"1 open 0\n2 open 0\n", "opened once"),
        (b"1 open 0\n2 rsp 6 200 OK\n", "not offered"),
        (b"1 open 999999999 ", "bytes"),
        (b"1 open 3\n", "ends before its data"),
        (b"1 open 3 abcd", "does not end where it says"),
        (b"GET / HTTP/1.1\r\n", "not a RELP"),
    ],
)
def test_what_breaks_the_protocol_is_reported(stream: bytes, why: str) -> None:
    with pytest.raises(FrameRefused, match=why):
        RelpServer(MIB).receive(stream)


@contextmanager
def omrelp(directory: Path, port: int, settings: str = "") -> Iterator[Path]:
    """rsyslogd that sends over RELP what is appended to the file it follows."""
    if next(Path("/usr/lib").glob("*/rsyslog/omrelp.so"), None) is None:
        missing("rsyslog's omrelp.so is not installed (Debian package rsyslog-relp)")
    log = directory / "app.log"
    log.touch()
    configuration = (
        f'global(workDirectory="{directory}")\nmodule(load="omrelp")\nmodule(load="imfile")\n'
        f'input(type="imfile" File="{log}" Tag="app:" reopenOnTruncate="on")\n'
        'template(name="raw" type="string" string="%msg%")\n'
        f'action(type="omrelp" target="127.0.0.1" port="{port}" template="raw" '
        f'action.resumeInterval="1" action.resumeRetryCount="-1" timeout="5" {settings})\n'
    )
    with sending(directory, configuration):
        yield log


def test_rsyslog_sends_everything_though_the_relay_is_killed(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    port, total = free_port(), 3000
    daemon = make_daemon({})
    out = {"protocol": "file", "path": str(daemon.directory / "out"), "format": "raw"}
    daemon.config["sinks"] = {"out": out}
    listen = f"relp://127.0.0.1:{port}"
    daemon.config["sources"] = {"logs": {"type": "syslog", "listen": listen}}
    daemon.start()
    until(lambda: daemon.said("listening"))
    with omrelp(tmp_path, port) as log:
        for part in range(3):
            with log.open("ab") as file:
                for number in range(part * total // 3, (part + 1) * total // 3):
                    file.write(b"number %d\n" % number)
            until(lambda: len(set(forwarded(daemon))) > part * total // 3 + 100, 60)  # noqa: B023  (asked at once)
            if part < 2:
                daemon.kill()
                daemon.start()
        until(lambda: len(set(forwarded(daemon))) == total, 60)
    assert set(forwarded(daemon)) == {b"number %d" % number for number in range(total)}
    assert daemon.terminate() == 0


def test_rsyslog_sends_over_relp_within_tls_and_shows_its_certificate(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost", common_name="localhost")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "ca")}
    made.cert_chain_pems[0].write_to_path(str(files["certificate"]))
    made.private_key_pem.write_to_path(str(files["key"]))
    authority.cert_pem.write_to_path(str(files["ca"]))
    daemon = make_daemon({})
    out = {"protocol": "file", "path": str(daemon.directory / "out"), "format": "raw"}
    daemon.config["sinks"] = {"out": out}
    daemon.config["sources"] = {"logs": {
        "type": "syslog", "listen": "relp+tls://127.0.0.1:0",
        "tls": {"certificate": str(files["certificate"]), "key": str(files["key"]),
                "client_ca": str(files["ca"])},
    }}  # fmt: skip
    daemon.start()
    port = int(until(lambda: daemon.said("listening"))[0]["port"])
    settings = (
        f'tls="on" tls.caCert="{files["ca"]}" tls.myCert="{files["certificate"]}" '
        f'tls.myPrivKey="{files["key"]}" tls.authMode="name" tls.permittedPeer=["localhost"]'
    )
    with omrelp(tmp_path, port, settings) as log:
        with log.open("ab") as file:
            for number in range(500):
                file.write(b"number %d\n" % number)
        until(lambda: len(forwarded(daemon)) == 500, 40)
    assert daemon.terminate() == 0
