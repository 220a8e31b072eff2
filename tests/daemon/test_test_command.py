"""`siemrelay test` sends one event on a sink's way, and says what to do when it is not taken."""

from __future__ import annotations

import json
import os
import pwd

import trustme

from tests.conftest import MakeDaemon
from tests.support.certificates import server_context
from tests.support.daemon import append, event, http, tcp, udp
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver, UdpReceiver

TOKEN = "s3cr3t-T0ken-0815"


def test_test_sends_one_event_of_the_person_behind_sudo_and_prints_each_step(
    make_daemon: MakeDaemon,
) -> None:
    person = "grace" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with TcpReceiver() as stream, UdpReceiver() as datagrams, HttpReceiver() as web:
        daemon = make_daemon(
            {
                # The test event passes by the filter.
                "stream": tcp(stream.port, events=["User Logged In"]),
                "datagrams": udp(datagrams.port),
                "web": http(web.url),
            }
        )
        for name, receiver in (("stream", stream), ("datagrams", datagrams), ("web", web)):
            found = daemon.command("test", name, environment={"SUDO_USER": "grace"})
            assert found.returncode == 0, found.stderr
            steps = [line.split()[0] for line in found.stdout.splitlines()[:-2]]
            assert {"message", "connect", "send", "answer"} <= set(steps)
            receiver.until(1)
            (message,) = map(json.loads, receiver.arrived.messages)
            assert message["type"] == "SIEM Integration Test"
            assert message["actor"]["name"] == person
            assert message["id"] in found.stdout
            mark = message["message"].split(":")[0]
            assert found.stdout.splitlines()[-1] == f"Find it there: search for {mark}"
    assert not daemon.state.exists(), "a test touches nothing of the relay"


def test_test_as_names_another_actor_and_json_is_for_programs(make_daemon: MakeDaemon) -> None:
    with TcpReceiver() as stream:
        daemon = make_daemon({"stream": tcp(stream.port)})
        found = daemon.command("test", "stream", "--as", "Ada Adams", "--json")
        stream.until(1)
    said = json.loads(found.stdout)
    assert said["taken"] is True
    assert [step["step"] for step in said["steps"]][-1] == "answer"
    assert json.loads(stream.arrived.messages[0])["actor"]["name"] == "Ada Adams"


def test_test_keeps_to_the_sinks_limit_as_the_daemon_does(make_daemon: MakeDaemon) -> None:
    with UdpReceiver() as receiver:
        sink = udp(receiver.port) | {"max_message_size": "480B", "format": "json"}
        daemon = make_daemon({"sink": sink})
        assert daemon.command("test", "sink", "--as", "Ada " * 200).returncode == 0
        receiver.until(1)
        (message,) = receiver.arrived.messages
    assert len(message) <= 480
    assert b"...[cut]" in message


def test_test_of_an_unknown_sink_names_the_known_ones(make_daemon: MakeDaemon) -> None:
    found = make_daemon({"stream": tcp(514)}).command("test", "streem")
    assert found.returncode == 2
    assert "unknown sink `streem`; the sinks are stream" in found.stderr


def advice(make_daemon: MakeDaemon, sink: dict[str, object]) -> str:
    """The one sentence on standard error of a test that fails."""
    found = make_daemon({"sink": sink}).command("test", "sink")
    assert found.returncode == 1, found.stdout + found.stderr
    (line,) = found.stderr.splitlines()
    assert line.startswith("sink did not accept the test event: ")
    return line


def test_test_says_what_to_do_when_nobody_listens(make_daemon: MakeDaemon) -> None:
    with TcpReceiver(up=False) as down:
        assert "is the receiver running" in advice(make_daemon, tcp(down.port))
        url = f"http://127.0.0.1:{down.port}/"
        assert "is the receiver running" in advice(make_daemon, http(url))


def test_test_says_what_to_do_about_an_unknown_host(make_daemon: MakeDaemon) -> None:
    sink = tcp(514) | {"server": "nowhere.invalid"}
    assert "check `server`" in advice(make_daemon, sink)
    sink = udp(514) | {"server": "nowhere.invalid"}
    assert "check `server`" in advice(make_daemon, sink)
    assert "cannot resolve nowhere.invalid" in advice(make_daemon, http("http://nowhere.invalid/"))


def test_test_says_what_to_do_about_a_wrong_token(make_daemon: MakeDaemon) -> None:
    with HttpReceiver(lambda request: Answer(401, "unknown token")) as web:
        text = advice(make_daemon, http(web.url, authorization=f"Bearer {TOKEN}"))
    assert "HTTP 401 unknown token" in text
    assert "check the token" in text
    assert TOKEN not in text


def test_test_says_what_to_do_about_http_against_tls_and_the_reverse(
    make_daemon: MakeDaemon, authority: trustme.CA
) -> None:
    with (
        HttpReceiver(tls=server_context(authority.issue_cert("127.0.0.1"))) as secured,
        HttpReceiver() as plain,
    ):
        spoken = advice(make_daemon, http(secured.url.replace("https:", "http:")))
        assert "https://" in spoken
        assert "http://" in advice(make_daemon, http(plain.url.replace("http:", "https:")))


def test_test_says_what_to_do_about_an_untrusted_certificate_and_takes_its_authority(
    make_daemon: MakeDaemon, authority: trustme.CA
) -> None:
    with HttpReceiver(tls=server_context(authority.issue_cert("127.0.0.1"))) as web:
        assert "set `tls: {ca: FILE}`" in advice(make_daemon, http(web.url))
        daemon = make_daemon({"web": http(web.url)})
        authority.cert_pem.write_to_path(str(daemon.directory / "ca.pem"))
        daemon.config["sinks"]["web"]["tls"] = {"ca": str(daemon.directory / "ca.pem")}
        found = daemon.command("test", "web")
        assert found.returncode == 0, found.stderr
        assert "TLSv1.3" in found.stdout
        daemon.start()
        append(daemon.audit, [event(1)])
        web.until(2)
