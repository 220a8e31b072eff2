"""What `siemrelay check` finds on this machine before a part fails over it: files, packages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import trustme
from click.testing import CliRunner

from siemrelay.cli.check import check
from siemrelay.config.checks.host import resource_warnings
from siemrelay.config.checks.missing import missing_resources
from siemrelay.config.load import load_text
from siemrelay.core import extras
from siemrelay.core.errors import ConfigurationRefused, Fault
from tests.support.servers import other_users_run_it, program

START = "sources:\n  a: {type: file, path: /var/log/a.json}\nsinks:\n  s: "
SINK = "{server: h, protocol: tls, tls: {%s}}\n"


def found(text: str) -> tuple[list[Fault], list[Fault]]:
    return missing_resources(load_text(text, "f.yaml", {}))


def faults(text: str) -> list[str]:
    certain, doubts = found(text)
    assert doubts == []
    return [fault.located("f") for fault in certain]


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """A folder of good and bad files."""
    authority = trustme.CA()
    one, other = authority.issue_cert("one"), authority.issue_cert("other")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    one.private_key_pem.write_to_path(tmp_path / "one.key")
    one.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    (tmp_path / "one.pem").write_bytes(b"".join(blob.bytes() for blob in one.cert_chain_pems))
    openssl = program("openssl", "openssl")
    for command in (
        ["x509", "-in", "ca.pem", "-outform", "der", "-out", "ca.der"],
        ["pkey", "-in", "one.key", "-aes128", "-passout", "pass:x", "-out", "locked.key"],
    ):
        subprocess.run([openssl, *command], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "torn.pem").write_bytes((tmp_path / "ca.pem").read_bytes()[:300])
    (tmp_path / "torn.key").write_bytes((tmp_path / "one.key").read_bytes()[:90])
    (tmp_path / "text").write_text("not really\n")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(
    "tls",
    ["ca: P/ca.pem", "certificate: P/one.pem, key: P/one.key", "certificate: P/both.pem", ""],
)
def test_files_that_can_be_used_are_no_fault(tls: str, pki: Path) -> None:
    assert faults(START + SINK % tls.replace("P", str(pki))) == []


@pytest.mark.parametrize(
    ("tls", "place", "fault"),
    [
        ("ca: P/none.pem", "4:43: sinks.s.tls.ca", "there is no file P/none.pem"),
        ("ca: P", "4:43: sinks.s.tls.ca", "P is not a file"),
        ("ca: P/fifo", "4:43: sinks.s.tls.ca", "P/fifo is not a file"),
        ("ca: P/text", "4:43: sinks.s.tls.ca",
         "P/text holds no `-----BEGIN CERTIFICATE-----`; expected PEM"),
        ("ca: P/ca.der", "4:43: sinks.s.tls.ca", "P/ca.der holds no `-----BEGIN CERTIFICATE-----`; "
         "it looks like DER; make it PEM: openssl x509 -inform der -in P/ca.der"),
        ("ca: P/torn.pem", "4:43: sinks.s.tls.ca",
         "P/torn.pem holds a certificate that cannot be read (bad PEM); is it "
         "whole?"),
        ("certificate: P/one.pem", "4:52: sinks.s.tls.certificate",
         "P/one.pem holds no private key; name its file by `key`"),
        ("key: P/other.key, certificate: P/one.pem", "4:44: sinks.s.tls.key",
         "the key in P/other.key does not belong to P/one.pem"),
        ("key: P/locked.key, certificate: P/one.pem", "4:44: sinks.s.tls.key",
         "the key in P/locked.key has a password, which a service cannot type; remove it: "
         "openssl pkey -in P/locked.key -out KEY.pem"),
        ("key: P/torn.key, certificate: P/one.pem", "4:44: sinks.s.tls.key",
         "the key in P/torn.key cannot be read (bad PEM); is it whole?"),
        ("key: P/one.pem, certificate: P/one.pem", "4:44: sinks.s.tls.key",
         "P/one.pem holds no `-----BEGIN PRIVATE KEY-----`; expected PEM"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_a_fault_at_its_place(
    tls: str, place: str, fault: str, pki: Path
) -> None:
    found = faults(START + SINK % tls.replace("P", str(pki)))
    assert found == [f"f:{place}: {fault}".replace("P/", f"{pki}/").replace("P is", f"{pki} is")]


def test_files_of_listeners_and_queues_are_looked_at_too_and_those_of_disabled_sinks_are_not(
    tmp_path: Path,
) -> None:
    text = """
sources:
  web: {type: http, listen: "https://127.0.0.1:0/", tls: {certificate: /no/1.pem, key: /no/2.key}}
  queue: {type: redis, url: "rediss://h", stream: s, tls: {ca: /no/3.pem}}
sinks:
  off: {enabled: no, server: h, protocol: tls, tls: {ca: /no/4.pem}}
"""
    assert [fault.split(": ", 1)[1] for fault in faults(text)] == [
        "sources.web.tls.certificate: there is no file /no/1.pem",
        "sources.web.tls.key: there is no file /no/2.key",
        "sources.queue.tls.ca: there is no file /no/3.pem",
    ]


def test_a_file_that_only_this_user_may_not_read_is_a_doubt_that_names_the_user(
    pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As any user but root meets it; tests may run as root, whom no permission stops.
    opened = Path.open

    def refusing(self: Path, mode: str) -> object:
        if self.name == "one.key":
            raise PermissionError(13, "Permission denied")
        return opened(self, mode)

    monkeypatch.setattr(Path, "open", refusing)
    monkeypatch.setenv("LOGNAME", "ada")
    certain, (doubt,) = found(START + SINK % f"certificate: {pki}/one.pem, key: {pki}/one.key")
    assert certain == []
    assert doubt.message == (
        f"user ada, who runs this, may not read {pki}/one.key; the user that the relay runs as "
        "must be able to"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sources: {q: {type: redis, url: 'redis://h', stream: s}}\nsinks: {s: {server: h}}\n",
         "f:1:21: sources.q.type: the Redis client is not installed; install it beside the relay: "
         "pip install 'siemrelay[redis]'"),
        ("sources: {q: {type: amqp, url: 'amqp://h', queue: s}}\nsinks: {s: {server: h}}\n",
         "f:1:21: sources.q.type: the AMQP client is not installed; install it beside the relay: "
         "pip install 'siemrelay[amqp]'"),
        (START + "{protocol: kafka, brokers: h, topic: t}\n",
         "f:4:17: sinks.s.protocol: Kafka's client is not installed; install it beside the relay: "
         "pip install 'siemrelay[kafka]'"),
        (START + "{server: h, seal: {timestamp: 'https://tsa.example.com'}}\n",
         "f:4:36: sinks.s.seal.timestamp: the reader of time stamps (RFC 3161) is not installed; "
         "install it beside the relay: pip install 'siemrelay[timestamps]'"),
    ],
)  # fmt: skip
def test_a_part_without_its_package_says_what_to_install(
    text: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert faults(text) == []
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert faults(text) == [fault]


def test_check_ends_with_78_over_a_missing_file_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(START + SINK % "ca: /no/ca.pem")
    done = CliRunner().invoke(check, ["-c", str(file)])
    assert done.exit_code == 78
    assert f"{file}:4:43: sinks.s.tls.ca: there is no file /no/ca.pem\n" in done.stderr


def test_a_proxy_that_no_request_can_go_through_is_a_doubt_at_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hunter2@proxy:port")
    sinks = "{a: {url: 'https://siem.example.com/'}, b: {server: a}}"
    wrong, (doubt,) = found(f"sources: {{s: {{type: stdin}}}}\nsinks: {sinks}\n")
    assert wrong == []
    assert (doubt.key, doubt.line, doubt.column) == ("sinks.a.url", 2, 18)
    assert "https_proxy is not a proxy's address; set https_proxy=http://" in doubt.message
    assert "hunter2" not in doubt.message


def test_a_missing_file_is_a_fault_beside_others() -> None:
    text = (
        START + "{server: h, protocol: tls, tls: {ca: /none.pem}}\n"
        "  t: {server: h, prot: x}\n  u: {server: h, protocol: tls, enabled: no, tls: {ca: /no}}\n"
    )
    with pytest.raises(ConfigurationRefused) as refused:
        load_text(text, "f", {})
    assert [fault.located("f") for fault in refused.value.faults] == [
        "f:4:43: sinks.s.tls.ca: there is no file /none.pem",
        "f:5:18: sinks.t.prot: unknown key `prot`; did you mean `protocol`?",
    ]


# -- what may keep parts from working: warnings -----------------------------


def warned(text: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "relay.yaml"
    file.write_text(f"state_dir: {tmp_path}\n{text}")
    result = CliRunner().invoke(check, ["-c", str(file)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    return [line.removeprefix(f"warning: {file}:") for line in lines]


QUIET = "endpoint: {listen: off}\nsources:\n  a: {type: stdin}\nsinks:\n  s: {protocol: stdout}\n"


def test_an_archive_without_its_directory_is_a_warning(tmp_path: Path) -> None:
    sink = f"{{protocol: file, format: json, path: {tmp_path}/none/a.json}}"
    (line,) = warned(QUIET.replace("{protocol: stdout}", sink), tmp_path)
    assert line.startswith("6:43: sinks.s.path: there is no directory ")
    assert f"{tmp_path}/none; make it" in line


def test_a_port_of_another_program_is_a_warning(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        source = f"{{type: syslog, listen: 'tcp://127.0.0.1:{port}'}}"
        (line,) = warned(QUIET.replace("{type: stdin}", source), tmp_path)
    assert line.startswith(f"4:29: sources.a.listen: cannot listen on port {port} of ")
    assert line.endswith("another program has it (ss -ltnup shows which)")


def test_a_buffer_that_no_disk_here_holds_is_a_warning(tmp_path: Path) -> None:
    (line,) = warned(f"buffer: {{max_size: 1000000TiB}}\n{QUIET}", tmp_path)
    assert line.startswith("2:20: buffer.max_size: 1000000TiB is more than the whole file system")


def test_a_state_directory_that_every_user_may_change_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (line,) = warned(QUIET, tmp_path)
    assert line.startswith("1:12: state_dir: every user of this machine can remove and replace ")


def test_a_read_only_file_system_is_named_and_not_the_directorys_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(
        f_flag=os.ST_RDONLY, f_blocks=1 << 40, f_frsize=4096))  # fmt: skip
    (line,) = warned(QUIET, tmp_path)
    assert f"cannot write {tmp_path}: the file system of {tmp_path} is mounted read-only" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@other_users_run_it
def test_what_this_user_may_not_read_write_or_listen_at_are_warnings() -> None:
    with TemporaryDirectory(prefix="siemrelay-place-") as made:
        place = Path(made)
        place.chmod(0o755)
        (place / "audit.json").touch(mode=0o600)
        (place / "closed").mkdir(mode=0o700)
        file = place / "relay.yaml"
        file.write_text(
            f"state_dir: {place}/closed\nendpoint: {{listen: off}}\nsources:\n"
            f"  a: {{type: file, path: [{place}/*.json, {place}/closed/in/*.json]}}\n"
            "sinks:\n  s: {protocol: stdout}\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "siemrelay", "check", "-c", str(file)],
            user="nobody", group="nogroup", extra_groups=[], capture_output=True, text=True,
            check=False, cwd="/",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no file matches" not in done.stderr
    state, closed, shut = [line for line in done.stderr.splitlines() if "nobody" in line]
    assert f"relay.yaml:1:12: state_dir: user nobody cannot write {place}/closed: " in state
    assert f":4:25: sources.a.path: user nobody cannot read {place}/closed: directory" in closed
    assert "has root:root 0700; let the relay's user read it" in closed
    assert f"cannot read {place}/audit.json: file" in shut


def test_a_file_that_two_sources_read_is_a_warning_at_the_second(tmp_path: Path) -> None:
    (tmp_path / "audit.json").touch()
    text = (
        f"state_dir: {tmp_path}\nsources:\n  a: {{type: file, path: {tmp_path}/*.json}}\n"
        f"  b: {{type: file, path: {tmp_path}/audit.json%s}}\nsinks: {{s: {{server: h}}}}\n"
    )

    def warned(text: str) -> list[str]:
        found = resource_warnings(
            load_text(text, "f", {}), as_this_user=False, ports=False, running=None
        )
        return [fault.located("f") for fault in found]

    (warning,) = warned(text % "")
    assert warning.startswith(f"f:4:25: sources.b.path: source `a` reads {tmp_path}/audit.json too")
    assert warned(text % ".1") == []


def test_an_archive_at_a_directory_is_a_warning(tmp_path: Path) -> None:
    text = f"state_dir: {tmp_path}\n{START}{{protocol: file, path: {tmp_path}}}\n"
    found = resource_warnings(
        load_text(text, "f", {}), as_this_user=False, ports=False, running=None
    )
    assert [fault.located("f") for fault in found] == [
        f"f:5:29: sinks.s.path: {tmp_path} is a directory; name a file in it"
    ]
