"""`siemrelay test`, `preview` and `check` beside the real daemon, and secrets anywhere."""

from __future__ import annotations

import json
import os
import pwd

import pytest
import trustme

from tests.conftest import MakeDaemon
from tests.support.certificates import server_context
from tests.support.daemon import append, event, http, tcp, udp, until
from tests.support.http_receiver import Answer, HttpReceiver, Request
from tests.support.receivers import TcpReceiver, UdpReceiver

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


@pytest.mark.parametrize("form", ["syslog", "rfc3164", "cef"])
def test_preview_shows_the_very_bytes_that_the_sink_then_receives(
    make_daemon: MakeDaemon, form: str
) -> None:
    hard = [event(1), event(2, message='a|b=c\\d "e" ]\n€'), event(3, type="User Logged In")]
    with UdpReceiver() as datagrams:
        daemon = make_daemon(
            {"datagrams": udp(datagrams.port, format=form, events={"exclude": ["User Logged In"]})}
        )
        append(daemon.audit, hard)
        found = daemon.command("preview", "--json", str(daemon.audit))
        assert found.returncode == 0, found.stderr
        assert not daemon.state.exists()
        shown = [json.loads(line)["sinks"]["datagrams"] for line in found.stdout.splitlines()]
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0
        datagrams.until(2)
    assert [each["kept"] for each in shown] == [True, True, False]
    assert [each["message"].encode() for each in shown[:2]] == datagrams.arrived.messages


@pytest.mark.parametrize("form", ["inline", "credential", "environment"])
def test_a_secret_is_in_no_log_no_error_no_metric_and_no_output(
    make_daemon: MakeDaemon, form: str
) -> None:
    def answer(request: Request) -> Answer:
        # The most careless receiver: it repeats what it was given.
        return Answer(401, f"not valid: {request.headers.get('authorization')}, {TOKEN}")

    written = {
        "inline": f"Bearer {TOKEN}",
        "credential": "Bearer ${credential:token}",
        "environment": "Bearer ${RELAY_TOKEN}",
    }
    with HttpReceiver(answer) as web:
        daemon = make_daemon(
            {"web": http(web.url, authorization=written[form])}, log={"level": "debug"}
        )
        (daemon.directory / "token").write_text(TOKEN + "\n")
        daemon.environment |= {
            "CREDENTIALS_DIRECTORY": str(daemon.directory), "RELAY_TOKEN": TOKEN,
        }  # fmt: skip
        daemon.start()
        append(daemon.audit, [event(1)])
        until(lambda: daemon.said("sink holding"))
        assert web.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        outputs = [daemon.get(path)[1] for path in ("/metrics", "/healthz", "/readyz", "/")]
        commands = [["test", "web"], ["check"]]
        if form == "inline":
            commands += [["test", "web", "--json"], ["check", "--json"]]
            commands += [["preview", str(daemon.audit)]]
        for command in commands:
            found = daemon.command(*command)
            outputs += [found.stdout, found.stderr]
        daemon.config["sinks"]["web"]["surprise"] = 1
        found = daemon.command("check")
        assert found.returncode == os.EX_CONFIG
        outputs += [found.stdout, found.stderr]
        assert daemon.terminate() == 0
        outputs.append(daemon.log_text)
        assert not [text for text in outputs if TOKEN in text]
        assert daemon.rows("SELECT count(*) FROM dead_letters") == [(0,)]
