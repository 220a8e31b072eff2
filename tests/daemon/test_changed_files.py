"""Tokens, certificates and keys that change while the relay runs, whole or broken."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trustme

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, http, until
from tests.support.receivers.http import Answer, HttpReceiver

RIGHT = "Bearer right-token"


def wants(right: str) -> HttpReceiver:
    """A receiver that lets in only what has this Authorization."""

    def answer(request: object) -> Answer:
        found = getattr(request, "headers", {}).get("authorization")
        return Answer(200 if found == right else 401)

    return HttpReceiver(answer)


def holding(daemon: Daemon) -> None:
    """Let the sink `web` hold one event."""
    append(daemon.audit, [event(1)])
    until(lambda: daemon.state_of("web") == "holding")


def delivered(daemon: Daemon) -> None:
    until(lambda: daemon.metric("sink_delivered_total", sink="web") == 1)
    assert "right-token" not in daemon.log_text


def test_a_token_file_that_changes_is_taken_without_a_reload_whatever_another_sinks_holds(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    token, others = tmp_path / "token", tmp_path / "others"
    token.write_text("wrong-token\n")
    others.write_text("wrong-token\n")
    with wants(RIGHT) as receiver:
        daemon = make_daemon(
            {
                "web": http(receiver.url, authorization=f"Bearer ${{file:{token}}}"),
                "other": http(receiver.url, authorization=f"Bearer ${{file:{others}}}"),
            }
        ).start()
        holding(daemon)
        # Half an edit in the configuration is nobody's business yet.
        daemon.config["sinks"]["web"]["prot"] = "udp"
        daemon.write_config()
        token.write_text("")
        others.write_text("right-token\n")
        until(lambda: daemon.metric("sink_credentials_unusable", sink="web") == 1)
        (line,) = daemon.said("changed files cannot be used, the last good ones are")
        assert (line["level"], line["sink"]) == ("error", "web")
        assert "is empty" in line["reason"]
        assert "is empty" in daemon.get("/")[1]
        until(lambda: daemon.metric("sink_delivered_total", sink="other") == 1)
        assert daemon.metric("sink_credentials_unusable", sink="other") == 0
        token.write_text("right-token\n")
        delivered(daemon)
        assert daemon.said("changed secrets are in use")
        assert daemon.metric("sink_credentials_unusable", sink="web") == 0


def test_a_changed_credential_is_taken_by_a_reload(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong-token")
    with wants(RIGHT) as receiver:
        daemon = make_daemon(
            {"web": http(receiver.url, authorization="Bearer ${credential:token}")}
        )
        daemon.environment["CREDENTIALS_DIRECTORY"] = str(tmp_path)
        daemon.start()
        holding(daemon)
        (tmp_path / "token").write_text("right-token")
        assert daemon.command("reload").returncode == 0
        delivered(daemon)


def test_the_reload_of_the_unit_hands_changed_variables_over(make_daemon: MakeDaemon) -> None:
    with wants(RIGHT) as receiver:
        daemon = make_daemon({"web": http(receiver.url, authorization="Bearer ${TOKEN}")})
        daemon.environment["TOKEN"] = "wrong-token"
        daemon.start()
        holding(daemon)
        new = {"TOKEN": "right-token"}
        found = daemon.command("reload", environment=new)
        assert "keep 2 parts unchanged" in found.stdout
        found = daemon.command("reload", "--environment", environment=new)
        assert found.stdout.splitlines()[0] == "restart sink web (authorization changed)"
        delivered(daemon)
        # It stays so at the next reload, though that one knows nothing of it.
        found = daemon.command("reload")
        assert "keep 2 parts unchanged" in found.stdout


def test_a_broken_certificate_is_reported_for_its_part_until_it_is_whole(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    authority, file = trustme.CA(), tmp_path / "server.pem"
    issued = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    issued.write_to_path(str(file))
    with wants("") as receiver:
        daemon = make_daemon({"web": http(receiver.url)})
        daemon.config["sources"]["devices"] = {
            "type": "syslog", "listen": "tls://127.0.0.1:0", "tls": {"certificate": str(file)},
        }  # fmt: skip
        daemon.start()
        until(lambda: daemon.said("listening"))
        file.write_text("half a file")
        until(lambda: daemon.metric("source_credentials_unusable", source="devices") == 1)
        (line,) = daemon.said("changed files cannot be used, the last good ones are")
        assert str(file) in line["reason"]
        assert daemon.metric("source_failed", source="devices") == 0
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
        until(lambda: daemon.metric("source_credentials_unusable", source="devices") == 0)
        (line,) = daemon.said("changed TLS files are used for new connections")
        assert (line["source"], line["restarted"]) == ("devices", False)


def test_a_part_that_reads_its_authorities_once_is_restarted_for_new_ones(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    with wants("") as receiver:
        daemon = make_daemon({"web": http(receiver.url)})
        daemon.config["sources"]["api"] = {
            "type": "http_poll", "url": "https://127.0.0.1:9/", "tls": {"ca": str(ca)},
            "items": "items", "cursor": {"parameter": "after", "from": "next"},
        }  # fmt: skip
        daemon.start()
        trustme.CA().cert_pem.write_to_path(str(ca))
        (line,) = until(lambda: daemon.said("changed TLS files are used for new connections"))
        assert (line["source"], line["restarted"]) == ("api", True)


@pytest.mark.parametrize("good", [True, False])
def test_systemd_learns_when_a_reload_begins_and_ends(
    make_daemon: MakeDaemon, tmp_path: Path, good: bool
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, wants("") as receiver:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        daemon = make_daemon({"web": http(receiver.url)})
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        daemon.start()
        heard = list[bytes]()
        while b"READY=1" not in heard:
            heard.append(systemd.recv(4096))
        daemon.config["sinks"]["web"]["timeout" if good else "tmeout"] = "4s"
        assert daemon.command("reload").returncode == (0 if good else 78)
        heard = []
        while b"READY=1" not in heard:
            heard.append(systemd.recv(4096))
        (begin,) = [text for text in heard if text.startswith(b"RELOADING=1\nMONOTONIC_USEC=")]
        assert heard.index(begin) < heard.index(b"READY=1")
