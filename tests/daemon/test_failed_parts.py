"""A part that cannot start is named, tried again, and harms nobody; it starts when it can."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import trustme

from tests.conftest import MakeDaemon
from tests.support.daemon import append, event, ids, tcp, until
from tests.support.receivers.sockets import TcpReceiver
from tests.support.servers import free_port

LZ4 = b"\x04\x22\x4d\x18" + b"x" * 100
"""The beginning of a file of lz4."""


def test_a_port_that_another_program_has_fails_one_source_until_it_is_free(
    make_daemon: MakeDaemon,
) -> None:
    port = free_port()
    with TcpReceiver() as receiver, socket.create_server(("127.0.0.1", port)) as taken:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        daemon.config["sources"]["devices"] = {
            "type": "syslog", "listen": f"tcp://127.0.0.1:{port}",
        }  # fmt: skip
        daemon.start()
        until(lambda: daemon.metric("source_failed", source="devices") == 1)
        (line, *_) = daemon.said("part failed, restarting it")
        assert line["part"] == "source devices"
        assert line["error"].startswith(f"cannot listen on port {port} of 127.0.0.1")
        assert "Address already in use" in line["error"]
        assert "another program has it (ss -ltnup shows which)" in line["error"]
        # The others work, and so does the watchdog.
        append(daemon.audit, [event(1)])
        receiver.until(1)
        assert daemon.metric("source_failed", source="audit") == 0
        assert daemon.get("/healthz")[0] == 200
        assert daemon.get("/readyz/audit") == (200, "ok\n")
        status, text = daemon.get("/readyz")
        assert status == 503
        assert text.startswith(f"source devices failed: cannot listen on port {port}")
        assert daemon.get("/readyz/devices") == (status, text)
        page = daemon.get("/")[1]
        assert page.splitlines()[0].endswith(", source devices failed")
        assert re.search(r"\n  trying again, failed \d+ times?: cannot listen", page)
        taken.close()
        until(lambda: daemon.metric("source_failed", source="devices") == 0)
        assert daemon.get("/readyz") == (200, "ok\n")
        with socket.create_connection(("127.0.0.1", port)) as sender:
            sender.sendall(b"<13>1 2026-03-04T05:06:07Z h a - - - hello\n")
        receiver.until(2)


def test_a_key_that_cannot_be_read_fails_one_source_until_it_can(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    certificate = tmp_path / "cert.pem"
    issued = trustme.CA().issue_cert("localhost")
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        daemon.config["sources"]["devices"] = {
            "type": "syslog", "listen": "tls://127.0.0.1:0",
            "tls": {"certificate": str(certificate)},
        }  # fmt: skip
        daemon.start()
        until(lambda: daemon.metric("source_failed", source="devices") == 1)
        append(daemon.audit, [event(1)])
        receiver.until(1)
        assert receiver.arrived.ids == ids([1])
        certificate.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        until(lambda: daemon.metric("source_failed", source="devices") == 0)
        assert [line for line in daemon.said("listening") if line.get("source") == "devices"]


def test_a_directory_that_is_missing_holds_one_sink_until_it_is_there(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    archive: dict[str, Any] = {
        "protocol": "file", "path": str(tmp_path / "archive" / "a.json"), "format": "json",
        "retry": {"initial": "50ms", "max": "200ms"},
    }  # fmt: skip
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port), "archive": archive}).start()
        append(daemon.audit, [event(1)])
        receiver.until(1)
        until(lambda: daemon.state_of("archive") in ("waiting", "holding"))
        assert daemon.get("/readyz")[0] == 200
        (tmp_path / "archive").mkdir()
        # It is tried again every minute, and at once by a reload.
        assert "try sink archive again now" in daemon.command("reload").stdout
        until(lambda: daemon.metric("sink_delivered_total", sink="archive") == 1)


def test_a_file_that_cannot_be_read_is_an_error_that_readyz_names(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    # root may read every file, so this one is of a kind that cannot be read.
    other = tmp_path / "other.json"
    other.write_bytes(LZ4)
    with TcpReceiver() as receiver:
        daemon = make_daemon({"siem": tcp(receiver.port)})
        daemon.config["sources"]["other"] = {"type": "file", "path": str(other), "poll": "100ms"}
        daemon.start()
        until(lambda: daemon.metric("source_unreadable_files", source="other") == 1)
        (line,) = daemon.said("cannot read, trying again")
        assert (line["level"], line["path"]) == ("error", str(other))
        assert f"source other cannot read {other}" in daemon.get("/readyz")[1]
        append(daemon.audit, [event(1)])
        receiver.until(1)
        other.unlink()
        until(lambda: daemon.get("/readyz") == (200, "ok\n"))
