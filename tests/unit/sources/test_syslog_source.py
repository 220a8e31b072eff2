"""The syslog source in a real daemon: framings, TLS, limits, back-pressure, stop and drain."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from siemrelay.sources.syslog.address import parse_address
from siemrelay.sources.syslog.options import SyslogOptions
from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, until
from tests.support.listening import forwarded, port_of, relay
from tests.support.programs.rsyslogd import sending
from tests.support.servers import program

ANY = "tcp://127.0.0.1:0"


def send(daemon: Daemon, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=10) as sock:
        sock.sendall(data)


def is_closed(sock: socket.socket) -> bool:
    sock.settimeout(10)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@contextmanager
def rsyslog_sender(directory: Path, action: str, settings: str = "") -> Iterator[Path]:
    """rsyslogd that sends what is written to the Unix socket it makes."""
    inlet = directory / "inlet"
    configuration = (
        f'global(workDirectory="{directory}" {settings})\n'
        f'module(load="imuxsock" sysSock.use="off")\ninput(type="imuxsock" Socket="{inlet}" '
        'useSpecialParser="off" ParseHostname="on" RateLimit.Interval="0")\n'
        f'action(type="omfwd" target="127.0.0.1" template="RSYSLOG_SyslogProtocol23Format" '
        f"{action})\n"
    )
    with sending(directory, configuration):
        until(inlet.exists, what="rsyslogd listening")
        yield inlet


def log_through(inlet: Path, count: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(str(inlet))
        for number in range(count):
            sock.send(b"<13>Mar  4 05:06:07 host app: number %d" % number)


@pytest.mark.parametrize("framing", ["octet-counted", "traditional"])
def test_rsyslog_sends_in_either_framing(
    make_daemon: MakeDaemon, tmp_path: Path, framing: str
) -> None:
    daemon = relay(make_daemon).start()
    action = f'port="{port_of(daemon)}" protocol="tcp" TCP_Framing="{framing}"'
    with rsyslog_sender(tmp_path, action) as inlet:
        log_through(inlet, 50)
        until(lambda: len(forwarded(daemon)) == 50)
    for number, line in enumerate(forwarded(daemon)):
        assert line.startswith(b"<13>1 ")
        assert line.endswith(b" number %d" % number)


def tls_files(directory: Path, ca: trustme.CA) -> dict[str, str]:
    files = {name: directory / f"{name}.pem" for name in ("certificate", "key", "ca")}
    issued = ca.issue_cert("127.0.0.1", "localhost")
    files["certificate"].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(files["key"]))
    ca.cert_pem.write_to_path(str(files["ca"]))
    return {name: str(path) for name, path in files.items()}


@pytest.mark.parametrize("driver", ["ossl", "gtls"])
def test_rsyslog_sends_over_tls(make_daemon: MakeDaemon, tmp_path: Path, driver: str) -> None:
    files = tls_files(tmp_path, trustme.CA())
    tls = {"certificate": files["certificate"], "key": files["key"]}
    daemon = relay(make_daemon, "tls://127.0.0.1:0", tls=tls).start()
    action = (
        f'port="{port_of(daemon)}" protocol="tcp" TCP_Framing="octet-counted" '
        f'StreamDriver="{driver}" StreamDriverMode="1" StreamDriverAuthMode="x509/certvalid"'
    )
    settings = f'defaultNetstreamDriverCAFile="{files["ca"]}"'
    with rsyslog_sender(tmp_path, action, settings) as inlet:
        log_through(inlet, 20)
        until(lambda: len(forwarded(daemon)) == 20)


@pytest.mark.parametrize("how", ["udp", "tcp", "octets", "unixgram", "unix"])
def test_logger_sends_by_every_way_it_has(
    make_daemon: MakeDaemon, tmp_path: Path, how: str
) -> None:
    local = how.startswith("unix")
    scheme = "tcp" if how == "octets" else how
    daemon = relay(make_daemon, f"{how}://{tmp_path}/log" if local else f"{scheme}://127.0.0.1:0")
    daemon.config["sinks"]["out"]["format"] = "json"
    daemon.start()
    until(lambda: daemon.said("listening"))
    to = {
        "udp": ["--udp", "-n", "127.0.0.1"], "tcp": ["--tcp", "-n", "127.0.0.1"],
        "octets": ["--tcp", "--octet-count", "-n", "127.0.0.1"],
        "unix": ["-u", f"{tmp_path}/log"], "unixgram": ["-u", f"{tmp_path}/log"],
    }[how]  # fmt: skip
    where = to if local else [*to, "-P", str(port_of(daemon))]
    forms = [[]] if local else [["--rfc3164"], ["--rfc5424"], ["--rfc5424=notime,nohost"]]
    for form in forms:
        command = [program("logger", "bsdutils"), *where, *form, "-t", "app", "-p", "auth.err"]
        subprocess.run([*command, "user=ada action=login"], check=True, timeout=10)
    until(lambda: len(forwarded(daemon)) == len(forms))
    for event in map(json.loads, forwarded(daemon)):
        about = event["attributes"]["syslog"]
        assert (about["app"], about["facility"], about["severity"]) == ("app", 4, 3)
        assert (event["type"], event["actor"]["name"], event["severity"]) == ("login", "ada", 7)


@pytest.mark.parametrize("scheme", ["udp", "tcp", "relp", "unix", "unixgram"])
def test_who_sent_a_message_without_a_host_is_put_in(
    make_daemon: MakeDaemon, tmp_path: Path, scheme: str
) -> None:
    local = scheme.startswith("unix")
    listen = f"{scheme}://{tmp_path}/log" if local else f"{scheme}://127.0.0.1:0"
    daemon = relay(make_daemon, listen, add_host=True).start()
    until(lambda: daemon.said("listening"))
    family = socket.AF_UNIX if local else socket.AF_INET
    kind = socket.SOCK_DGRAM if scheme in ("udp", "unixgram") else socket.SOCK_STREAM
    with socket.socket(family, kind) as sock:
        sock.connect(f"{tmp_path}/log" if local else ("127.0.0.1", port_of(daemon)))
        message = b"<13>Oct 11 22:14:15 app: x"
        frame = b"1 open 0\n2 syslog %d %b\n" % (len(message), message)
        sock.sendall(frame if scheme == "relp" else message + b"\n")
        until(lambda: forwarded(daemon))
    host = socket.gethostname() if local else "127.0.0.1"
    assert forwarded(daemon) == [b"<13>Oct 11 22:14:15 %b app: x" % host.encode()]


def test_a_client_certificate_needs_the_authority_and_the_fingerprint(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    ca = trustme.CA()
    files, known, other = tls_files(tmp_path, ca), ca.issue_cert("a"), ca.issue_cert("b")
    der = ssl.PEM_cert_to_DER_cert(known.cert_chain_pems[0].bytes().decode())
    tls = {
        "certificate": files["certificate"], "key": files["key"], "client_ca": files["ca"],
        "client_fingerprints": [f"sha256:{hashlib.sha256(der).hexdigest()}"],
    }  # fmt: skip
    daemon = relay(make_daemon, "tls://127.0.0.1:0", tls=tls).start()
    stranger = trustme.CA().issue_cert("a")
    for shown in (None, stranger, other, known):
        context = ssl.create_default_context(cafile=files["ca"])
        if shown is not None:
            shown.configure_cert(context)
        plain = socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=10)
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                secured.sendall(b"<13>from the known one\n" if shown is known else b"<13>no\n")
                if shown is not known:
                    secured.recv(1)
        except OSError:
            assert shown is not known
    until(lambda: forwarded(daemon))
    assert forwarded(daemon) == [b"<13>from the known one"]
    assert daemon.refused("logs") == 3


@pytest.mark.parametrize("listed", ["self-signed", "issued"])
def test_a_clients_own_certificate_may_stand_in_place_of_its_authority(
    make_daemon: MakeDaemon, tmp_path: Path, listed: str
) -> None:
    files, pem = tls_files(tmp_path, trustme.CA()), tmp_path / "device.pem"
    if listed == "issued":
        made = trustme.CA().issue_cert("device")
        pem.write_bytes(made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes())
    else:
        subprocess.run(
            [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes",
             "-keyout", str(pem), "-out", str(tmp_path / "only.pem"), "-subj", "/CN=device"],
            check=True, capture_output=True,
        )  # fmt: skip
        pem.write_bytes(pem.read_bytes() + (tmp_path / "only.pem").read_bytes())
    tls = {"certificate": files["certificate"], "key": files["key"], "client_ca": str(pem)}
    daemon = relay(make_daemon, "tls://127.0.0.1:0", tls=tls).start()
    client = ssl.create_default_context(cafile=files["ca"])
    client.load_cert_chain(pem)
    with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=10) as plain:
        with client.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.sendall(b"<13>pinned\n")
            until(lambda: forwarded(daemon) == [b"<13>pinned"])


def test_a_bad_peer_is_closed_and_disturbs_nobody(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with (
        socket.create_connection(("127.0.0.1", port_of(daemon))) as good,
        socket.create_connection(("127.0.0.1", port_of(daemon))) as bad,
    ):
        good.sendall(b"<13>one\n")
        bad.sendall(b"7 <13>badnonsense")
        assert is_closed(bad)
        good.sendall(b"<13>two\n")
        until(lambda: len(forwarded(daemon)) == 3)
    assert sorted(forwarded(daemon)) == [b"<13>bad", b"<13>one", b"<13>two"]
    assert len(daemon.said("connection closed")) == 1
    assert daemon.refused("logs") == 1


def test_a_message_cut_off_by_the_disconnect_is_kept(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    send(daemon, b"<13>whole\n<13>cut o")
    until(lambda: forwarded(daemon) == [b"<13>whole", b"<13>cut o"])


def test_only_allowed_networks_may_send(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, allow=["192.0.2.0/24"]).start()
    with socket.create_connection(("127.0.0.1", port_of(daemon))) as sock:
        assert is_closed(sock)
    assert daemon.refused("logs") == 1


def test_a_unix_socket_has_its_mode_and_is_taken_over_after_a_kill(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    daemon = relay(make_daemon, f"unix://{path}", mode="0600").start()
    for number in (1, 2):
        until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"<13>%d\n" % number)
        # A kill may repeat what was delivered just before it.
        until(lambda: len(set(forwarded(daemon))) == number)  # noqa: B023 - called within the round
        daemon.kill()
        if number == 1:
            daemon.start()
            until(lambda: daemon.said("listening"))


def test_what_was_stored_survives_kill_9(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon)
    daemon.config["sinks"]["out"] = {"protocol": "tcp", "server": "127.0.0.1", "port": 9}
    daemon.start()
    send(daemon, b"".join(b"<13>%d\n" % n for n in range(1000)))
    until(lambda: daemon.metric("source_records_total", source="logs") == 1000)
    daemon.kill()
    assert daemon.rows("select sum(count) from batches") == [(1000,)]


def test_a_full_buffer_stops_the_reading(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon)
    daemon.config["sinks"]["out"] = {"protocol": "tcp", "server": "127.0.0.1", "port": 9}
    daemon.config["buffer"] = {"max_size": "16MiB"}
    daemon.start()
    noise = hashlib.shake_256(b"noise").hexdigest(1 << 20).encode() + b"\n"
    with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=2) as sock:
        with pytest.raises(TimeoutError):  # noqa: PT012 - any of them may be the one that waits
            for _ in range(200):
                sock.sendall(noise)
    daemon.send(signal.SIGKILL)
    daemon.wait()


def test_a_rate_slows_the_reading_and_loses_nothing(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, rate=200).start()
    port = port_of(daemon)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        begun = time.monotonic()
        sock.sendall(b"<13>x\n" * 400)
        until(lambda: len(forwarded(daemon)) == 400)
        sock.sendall(b"<13>last\n")
        until(lambda: len(forwarded(daemon)) == 401)
    assert forwarded(daemon)[-1] == b"<13>last"
    # Two seconds' worth at once, of which one is allowed. A busy machine only makes it later.
    assert time.monotonic() - begun > 0.99, "the second that was sent ahead was not waited for"


def test_a_drain_ends_when_all_have_left_and_a_stop_keeps_what_came(
    make_daemon: MakeDaemon,
) -> None:
    daemon = relay(make_daemon).start("--drain")
    send(daemon, b"<13>one\n<13>two\n")
    assert daemon.wait() == 0
    assert forwarded(daemon) == [b"<13>one", b"<13>two"]
    daemon.start()
    with socket.create_connection(("127.0.0.1", port_of(daemon))) as sock:
        sock.sendall(b"<13>three\n<13>fo")
        until(lambda: b"<13>three" in forwarded(daemon))
        assert daemon.terminate() == 0


@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("tcp://0.0.0.0", "tcp://0.0.0.0:514"),
        ("tls://[::]", "tls://[::]:6514"),
        ("udp://127.0.0.1:5514", "udp://127.0.0.1:5514"),
        ("relp+tls://localhost", "relp+tls://localhost:2514"),
        ("unixgram:///run/log", "unixgram:///run/log"),
    ],
)
def test_an_address_has_its_schemes_port(listen: str, shown: str) -> None:
    assert str(parse_address(listen)) == shown


@pytest.mark.parametrize(
    "listen", ["514", "http://a", "tcp://", "tcp://a:b", "tcp://a/b", "unix://a/b", "tls://a"]
)
def test_a_wrong_address_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"listen|tls"):
        SyslogOptions.model_validate({"listen": listen})


def test_a_socket_that_systemd_opened_is_used(make_daemon: MakeDaemon) -> None:
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        port = passed.getsockname()[1]
        daemon = relay(make_daemon, f"tcp://127.0.0.1:{port}")
        daemon.write_config()
        # As systemd does (sd_listen_fds(3)): descriptor 3, and the process it is meant for.
        command = f'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&{passed.fileno()}'
        process = subprocess.Popen(
            ["bash", "-c", command, sys.executable, "-m", "siemrelay", "run", "-c",
             str(daemon.file)],
            pass_fds=(passed.fileno(),), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            # It is the kernel's socket already: nothing is refused while the relay starts.
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                sock.sendall(b"<13>through systemd\n")
            until(lambda: forwarded(daemon) == [b"<13>through systemd"])
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_a_peer_that_is_silent_for_too_long_is_disconnected(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, idle_timeout="500ms").start()
    port = port_of(daemon)
    # The message is there before the connection is accepted: it is never too late for it.
    daemon.send(signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"<13>then silence\n")
        daemon.send(signal.SIGCONT)
        assert is_closed(sock)
    until(lambda: forwarded(daemon) == [b"<13>then silence"])


def test_more_connections_than_allowed_wait_for_their_turn(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, max_connections=1).start()
    with socket.create_connection(("127.0.0.1", port_of(daemon))) as first:
        first.sendall(b"<13>first\n")
        until(lambda: forwarded(daemon) == [b"<13>first"])
        with socket.create_connection(("127.0.0.1", port_of(daemon))) as second:
            second.sendall(b"<13>second\n")
            first.sendall(b"<13>first again\n")
            until(lambda: len(forwarded(daemon)) == 2)
            assert forwarded(daemon) == [b"<13>first", b"<13>first again"]
            first.close()
            until(lambda: len(forwarded(daemon)) == 3)
    assert forwarded(daemon)[-1] == b"<13>second"


def test_a_listeners_renewed_certificate_is_shown_and_a_broken_one_is_not(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    authority, file = trustme.CA(), tmp_path / "server.pem"
    daemon = relay(make_daemon, "tls://127.0.0.1:0", tls={"certificate": str(file)})
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def renew() -> bytes:
        made = authority.issue_cert("localhost")
        made.private_key_and_cert_chain_pem.write_to_path(str(file))
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    def shown() -> bytes | None:
        with socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=10) as plain:
            with client.wrap_socket(plain, server_hostname="localhost") as secured:
                return secured.getpeercert(binary_form=True)

    first = renew()
    daemon.start()
    assert shown() == first
    second = renew()
    assert shown() == second
    file.write_text("half a file")
    assert shown() == second
    until(lambda: daemon.said("changed files cannot be used, the last good ones are"))
