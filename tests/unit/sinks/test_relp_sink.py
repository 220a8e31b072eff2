"""The RELP sink against rsyslog, and against a receiver that does what rsyslog seldom does."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from siemrelay.core.errors import SinkHolds, SinkWaits
from siemrelay.sinks.contract import Refusal
from siemrelay.sinks.stream.relp import RelpOptions, RelpSink
from tests.conftest import MakeDaemon
from tests.support.daemon import QUICK_RETRY, append, event, ids, until
from tests.support.programs.rsyslogd import Rsyslogd
from tests.support.receivers.relp import RelpReceiver
from tests.support.sessions import deliver, fault
from tests.unit.sinks.test_tls_sink import Files, over_tls, serving

LIBRARIES = ["openssl", "gnutls"]


def rsyslog(directory: Path, settings: str = "", library: str = "openssl") -> Rsyslogd:
    return Rsyslogd(
        directory, f'module(load="imrelp" tls.tlslib="{library}")', f'type="imrelp" {settings}'
    )


def within_tls(files: Files, authentication: str = "") -> str:
    settings = (
        f'tls="on" tls.caCert="{files.ca}" tls.myCert="{files.server}" '
        f'tls.myPrivKey="{files.server_key}"'
    )
    return f"{settings} {authentication}"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def sink_to(port: int, timeout: str = "5s", **options: Any) -> RelpSink:
    return RelpSink(
        RelpOptions.model_validate(
            {"server": "127.0.0.1", "port": port, "timeout": timeout, **options}
        )
    )


# -- rsyslog --------------------------------------------------------------


async def test_rsyslog_takes_every_message_whole_and_says_so(tmp_path: Path) -> None:
    messages = [b"<13>1 - - - - - - number %d \xc3\xa9 %s" % (n, b"x" * (n * 37 % 9000))
                for n in range(1000)]  # fmt: skip
    with rsyslog(tmp_path) as server:
        steps = await deliver(sink_to(server.port), *messages)
        assert server.messages == messages  # it had them before it answered
    assert list(steps) == ["resolve", "connect", "open", "send", "answer"]
    assert "librelp" in steps["open"]
    assert steps["answer"] == "200 OK"
    assert "error sending" not in server.errors  # the session was ended in order


@pytest.mark.parametrize("library", LIBRARIES)
async def test_rsyslog_takes_messages_within_tls(
    tmp_path: Path, files: Files, library: str
) -> None:
    with rsyslog(tmp_path, within_tls(files, 'tls.authMode="certvalid"'), library) as server:
        mine = {"certificate": str(files.client), "key": str(files.client_key)}
        sink = sink_to(server.port, tls={"ca": str(files.ca), **mine})
        steps = await deliver(sink, *[b"<13>1 - - - - - - x"] * 300)
        assert len(server.messages) == 300
        assert "peer server, certificate valid until" in steps["tls"]
        assert sink.certificate_expires_at is not None


@pytest.mark.parametrize("library", LIBRARIES)
async def test_rsyslog_takes_messages_of_the_client_whose_name_it_knows_only(
    tmp_path: Path, files: Files, library: str
) -> None:
    allowed = within_tls(
        files, 'tls.authMode="name" tls.permittedPeer=["client", "client.example.com"]'
    )
    mine = {"ca": str(files.ca), "certificate": str(files.client), "key": str(files.client_key)}
    other = {**mine, "certificate": str(files.server), "key": str(files.server_key)}
    with rsyslog(tmp_path, allowed, library) as server:
        await deliver(sink_to(server.port, tls=mine), b"<13>1 - - - - - - mine")
        await fault(sink_to(server.port, timeout="1s", tls=other))
        await fault(sink_to(server.port, timeout="1s", tls={"ca": str(files.ca)}))
        assert server.messages == [b"<13>1 - - - - - - mine"]


async def test_a_session_without_tls_to_rsyslog_with_it_says_what_to_look_at(
    tmp_path: Path, files: Files
) -> None:
    with rsyslog(tmp_path, within_tls(files)) as server:
        assert "TLS" in str(await fault(sink_to(server.port, timeout="1s")))


async def test_a_session_with_tls_to_rsyslog_without_it_says_what_to_look_at(
    tmp_path: Path, files: Files
) -> None:
    with rsyslog(tmp_path) as server:
        found = await fault(sink_to(server.port, timeout="1s", tls={"ca": str(files.ca)}))
    assert "speak TLS on this port" in str(found)


def test_nothing_is_lost_and_a_window_repeated_at_the_most_when_rsyslog_is_killed(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    count, kills, window = 30_000, 4, 128
    server = rsyslog(tmp_path)
    with server:
        daemon = make_daemon({"siem": {
            "protocol": "relp", "server": "127.0.0.1", "port": server.port, "format": "json",
            "window": window, "retry": QUICK_RETRY, "timeout": "3s",
        }})  # fmt: skip
        append(daemon.audit, map(event, range(1, count + 1)))
        daemon.start()
        for kill in range(1, kills + 1):
            enough = kill * count // (kills + 2)
            until(partial(lambda enough: len(server.messages) > enough, enough))
            server.kill()
            server.start()
        until(lambda: daemon.metric("sink_backlog_records", sink="siem") == 0, within_s=60)
        got = [json.loads(message)["id"] for message in server.messages if b'"id"' in message]
        assert daemon.metric("sink_delivered_total", sink="siem") == count
    seen = Counter(got)
    assert set(seen) == set(ids(range(1, count + 1)))
    assert len(got) - count <= kills * window
    assert list(dict.fromkeys(got)) == ids(range(1, count + 1))


def test_the_daemon_s_test_command_shows_the_peer_s_own_words(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with rsyslog(tmp_path) as server:
        sink = {"protocol": "relp", "server": "127.0.0.1", "port": server.port, "timeout": "3s"}
        tested = make_daemon({"siem": sink}).command("test", "siem")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "200 OK" in tested.stdout
    assert b"SIEM Integration Test" in server.messages[0]


# -- a receiver that the test decides for ---------------------------------


async def test_a_message_that_the_peer_refuses_is_named_with_its_words() -> None:
    receiver = RelpReceiver(answers={b"two": b"500 no such tenant", b"four": b"501"})
    async with receiver.listening() as port, sink_to(port).session() as session:
        ticket = await session.send([b"one", b"two", b"three", b"four"])
        assert await session.confirm(ticket) == [
            Refusal(1, "500", "no such tenant"), Refusal(3, "501", ""),
        ]  # fmt: skip
        assert await session.confirm(await session.send([b"five"])) == []


async def test_no_more_than_the_window_is_ever_unanswered_and_any_order_of_answers_will_do() -> (
    None
):
    receiver = RelpReceiver(holding=True)
    messages = [b"%d" % n for n in range(50)]
    async with receiver.listening() as port, sink_to(port, window=8).session() as session:
        async with trio.open_nursery() as nursery:
            tickets = []

            async def send() -> None:
                for start in range(0, 50, 5):
                    tickets.append(await session.send(messages[start : start + 5]))

            nursery.start_soon(send)
            while len(receiver.messages) < 50:
                await wait_all_tasks_blocked(0.01)
                await receiver.release()
        await wait_all_tasks_blocked(0.01)
        await receiver.release()
        for ticket in tickets:
            assert await session.confirm(ticket) == []
    assert receiver.messages == messages
    assert receiver.most_unanswered <= 8


async def test_a_run_larger_than_the_window_goes_in_pieces() -> None:
    receiver = RelpReceiver(answers={b"17": b"500 no"})
    async with receiver.listening() as port, sink_to(port, window=4).session() as session:
        ticket = await session.send([b"%d" % n for n in range(22)])
        assert await session.confirm(ticket) == [Refusal(17, "500", "no")]


@pytest.mark.parametrize("says_so", [False, True])
async def test_what_was_answered_before_the_peer_left_is_confirmed_and_the_rest_is_not(
    says_so: bool,
) -> None:
    receiver = RelpReceiver(leaves_after=3, says_so=says_so)
    async with receiver.listening() as port:
        said = "serverclose" if says_so else "closed"
        with pytest.raises(SinkWaits, match=said):  # noqa: PT012  (it ends where it is awaited)
            async with sink_to(port).session() as session:
                first = await session.send([b"1", b"2", b"3"])
                await wait_all_tasks_blocked(0.01)
                assert await session.confirm(first) == []
                await session.confirm(await session.send([b"4"]))
    assert receiver.messages == [b"1", b"2", b"3"]


async def test_a_peer_that_leaves_while_idle_is_noticed_at_once() -> None:
    receiver = RelpReceiver(leaves_after=1)
    async with receiver.listening() as port:
        with trio.fail_after(3), pytest.raises(SinkWaits):  # noqa: PT012  (as above)
            async with sink_to(port).session() as session:
                await session.confirm(await session.send([b"1"]))
                await trio.sleep_forever()


async def test_a_peer_that_never_answers_is_given_up_after_the_timeout() -> None:
    receiver = RelpReceiver(answers={b"1": None})
    async with receiver.listening() as port:
        with pytest.raises(SinkWaits, match="answered nothing for 300ms"):
            async with sink_to(port, timeout="300ms").session() as session:
                await session.confirm(await session.send([b"1"]))


async def test_the_session_is_closed_in_order() -> None:
    receiver = RelpReceiver()
    async with receiver.listening() as port:
        await deliver(sink_to(port), b"1")
        assert receiver.commands == ["open", "syslog", "close"]


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (b"500 go away", "refused the RELP session: 500 go away"),
        (b"200 OK\nrelp_version=0\ncommands=starttls", "takes no syslog"),
    ],
)
async def test_a_session_that_the_peer_does_not_want_holds(offer: bytes, expected: str) -> None:
    async with RelpReceiver(offer=offer).listening() as port:
        found = await fault(sink_to(port))
    assert isinstance(found, SinkHolds)
    assert expected in found.reason


async def test_an_answer_to_nothing_holds() -> None:
    receiver = RelpReceiver()
    async with receiver.listening() as port:
        with pytest.raises(SinkHolds, match="no answer due"):  # noqa: PT012  (as above)
            async with sink_to(port).session() as session:
                await session.confirm(await session.send([b"1"]))
                assert receiver.stream is not None
                await receiver.stream.send_all(b"2 rsp 6 200 OK\n")
                await trio.sleep_forever()


async def test_a_peer_that_does_not_speak_relp_holds() -> None:
    async def handle(connection: trio.SocketStream) -> None:
        await connection.send_all(b"220 mail.example.com ESMTP\r\n")
        await connection.receive_some()

    async with serving(handle) as port:
        found = await fault(sink_to(port))
    assert isinstance(found, SinkHolds)
    assert "does not speak RELP on this port" in found.reason


async def test_a_peer_that_says_nothing_is_given_up_after_the_timeout(files: Files) -> None:
    async def handle(connection: trio.SocketStream) -> None:
        while await connection.receive_some():
            pass

    async with serving(handle) as port:
        found = await fault(sink_to(port, timeout="200ms"))
    assert isinstance(found, SinkWaits)
    assert "does it speak RELP on this port?" in found.reason


async def test_a_plain_session_to_a_tls_port_says_so(files: Files) -> None:
    async with serving(over_tls(files)) as port:
        assert "TLS" in str(await fault(sink_to(port, timeout="1s")))
