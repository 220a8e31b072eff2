"""Bad peers, a stop under load, and want of descriptors: each hurts itself, and nothing is lost."""

from __future__ import annotations

import random
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from tests.conftest import MakeDaemon
from tests.support.bystanders import with_bystanders
from tests.support.daemon import Daemon, until
from tests.support.http_sender import request
from tests.support.listening import forwarded, port_of, relay

ANY = "tcp://127.0.0.1:0"
LINE = b"<13>1 2026-01-01T00:00:00Z host app - - - "


def connected(daemon: Daemon) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(daemon)), timeout=20)


def serves(daemon: Daemon, sender: socket.socket, message: bytes) -> None:
    """A well-behaved peer's message goes through."""
    sender.sendall(message + b"\n")
    until(lambda: message in forwarded(daemon))


def pauses(daemon: Daemon) -> int:
    """How often the daemon's own thread has waited for something."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@contextmanager
def few_descriptors(daemon: Daemon, spare: int) -> Iterator[None]:
    """The daemon may open so many more."""
    assert daemon.process is not None
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_lack_of_descriptors_is_logged_once_and_passes(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon).start()
    with connected(daemon) as good, ExitStack() as crowd:
        serves(daemon, good, b"<13>before")
        with few_descriptors(daemon, 5):
            for _ in range(20):
                crowd.enter_context(connected(daemon))
            (warning,) = until(lambda: daemon.said("cannot accept connections now, trying again"))
            assert "LimitNOFILE" in warning["advice"]
            serves(daemon, good, b"<13>during")
        with connected(daemon) as late:
            serves(daemon, late, b"<13>after")
    assert len(daemon.log_text.splitlines()) < 20
    assert daemon.terminate() == 0


def test_the_limit_of_a_shell_is_raised(make_daemon: MakeDaemon) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        daemon = relay(make_daemon).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert daemon.process is not None
    soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, 65_536) or hard == resource.RLIM_INFINITY
    assert daemon.terminate() == 0


def test_one_peer_cannot_take_all_connections(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, f"unix://{make_daemon({}).directory}/s", max_connections=8)
    daemon.config["sources"]["net"] = {"type": "syslog", "listen": ANY, "max_connections": 8}
    daemon.start()
    port = int(
        until(lambda: [line for line in daemon.said("listening") if line["port"]])[0]["port"]
    )
    with ExitStack() as hoard:
        held = [
            hoard.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(12)
        ]
        until(lambda: daemon.refused("net") == 8)
        assert held[-1].recv(1) == b""
        # From another address there is room.
        with socket.create_connection(
            ("127.0.0.1", port), source_address=("127.0.0.2", 0)
        ) as other:
            serves(daemon, other, b"<13>from elsewhere")
    assert daemon.terminate() == 0


def addresses(count: int) -> list[str]:
    """Addresses of this machine, one for each attacker."""
    return [f"127.0.0.{n}" for n in range(2, count + 2)]


@pytest.mark.parametrize("source", ["syslog", "relp", "http"])
def test_a_hoard_of_idle_connections_gives_way_to_a_newcomer(
    make_daemon: MakeDaemon, source: str
) -> None:
    """Two addresses fill every slot and send nothing; a device with one connection keeps it."""
    daemon = relay(make_daemon, "relp://127.0.0.1:0" if source == "relp" else ANY,
                   max_connections=8)  # fmt: skip
    if source == "http":
        daemon.config["sources"]["logs"] = {
            "type": "http", "listen": "http://127.0.0.1:0/", "max_connections": 8,
        }  # fmt: skip
    daemon.start()
    port = port_of(daemon)
    first = {
        "syslog": b"<13>device\n",
        "relp": b"1 open 0\n2 syslog 10 <13>device\n",
        "http": request(b'{"n":1}', "/"),
    }[source]
    with ExitStack() as hoard, socket.create_connection(("127.0.0.1", port), timeout=20) as device:
        device.sendall(first)
        until(lambda: len(forwarded(daemon)) == 1)
        for address in addresses(2) * 4:
            hoard.enter_context(
                socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            )
        with socket.create_connection(
            ("127.0.0.1", port), source_address=("127.0.0.9", 0), timeout=20
        ) as newcomer:
            newcomer.sendall(first)
            until(lambda: len(forwarded(daemon)) == 2)
        device.sendall(b"3 syslog 10 <13>device\n" if source == "relp" else first)
        until(lambda: len(forwarded(daemon)) == 3)
    assert daemon.said("connection closed")[0]["reason"].startswith("it was the idlest")
    assert daemon.terminate() == 0


def test_connections_that_dribble_give_way_without_delay(make_daemon: MakeDaemon) -> None:
    """Three hundred for 64 slots: each was read to its end before the next one was closed."""
    daemon = relay(make_daemon, max_connections=64).start()
    port, over = port_of(daemon), threading.Event()
    with ExitStack() as stack:
        crowd = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            )
            for address in addresses(4) * 75
        ]

        def dribble() -> None:
            while not over.wait(0.1):
                for sock in crowd:
                    with suppress(OSError):
                        sock.send(b"x")

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            with connected(daemon) as device:
                serves(daemon, device, b"<13>device")
        finally:
            over.set()
            thread.join()
    assert daemon.terminate() == 0


def speaking(daemon: Daemon, first: bytes, sockets: ExitStack) -> socket.socket:
    """A connection whose first message was in time: on a busy machine the first one may not be."""
    while True:
        sock, closed = sockets.enter_context(connected(daemon)), daemon.refused("logs")
        with suppress(OSError):
            sock.sendall(first)
        until(lambda before=closed: forwarded(daemon) or daemon.refused("logs") > before)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        if forwarded(daemon):
            return sock


@pytest.mark.parametrize("listen", [ANY, "relp://127.0.0.1:0"])
def test_a_connection_that_never_sends_a_message_is_closed(
    make_daemon: MakeDaemon, listen: str
) -> None:
    daemon = relay(make_daemon, listen, first_message_timeout="1s").start()
    quick = b"1 open 0\n2 syslog 5 <13>a\n" if listen.startswith("relp") else b"<13>a\n"
    with ExitStack() as others:
        quiet = speaking(daemon, quick, others)
        silent, dribbling = (others.enter_context(connected(daemon)) for _ in range(2))
        dribbling.sendall(b"1")
        for sock in (silent, dribbling):
            assert sock.recv(1) == b""
        until(lambda: daemon.metric("source_connections", source="logs") == 1)
        quiet.sendall(b"3 syslog 5 <13>b\n" if listen.startswith("relp") else b"<13>b\n")
        until(lambda: b"<13>b" in forwarded(daemon))
    assert daemon.terminate() == 0
    # What a stream holds at its end is a record; what RELP has begun is sent again.
    torn = [] if listen.startswith("relp") else [b"1"]
    assert sorted(forwarded(daemon)) == sorted([b"<13>a", *torn, b"<13>b"])


def test_silent_clients_of_the_endpoint_do_not_keep_status_from_working(
    make_daemon: MakeDaemon,
) -> None:
    daemon = relay(make_daemon).start()
    port = daemon.said("endpoint listening")[0]["port"]
    with ExitStack() as crowd:
        for _ in range(40):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert daemon.command("status", "--at", f"127.0.0.1:{port}").returncode == 0
    assert daemon.terminate() == 0


def blast(sock: socket.socket, sent: list[int], enough: threading.Event) -> None:
    """Numbered messages as fast as they are taken; `sent` is how many the kernel took whole."""
    number = 0
    with suppress(OSError):
        while not enough.is_set():
            sock.sendall(b"".join(LINE + b"%d\n" % n for n in range(number, number + 100)))
            number += 100
            sent[0] = number


@pytest.mark.parametrize("flood", [b"x\n" * 100_000, b"1 x1 x" * 30_000], ids=["lines", "counted"])
@pytest.mark.parametrize("connections", [1, 16])
def test_a_flood_of_the_shortest_lines_keeps_nobody_waiting(
    make_daemon: MakeDaemon, connections: int, flood: bytes
) -> None:
    """1.4 MB a second of it made /healthz answer after 6 seconds."""
    daemon = relay(make_daemon)
    daemon.config["sinks"]["out"]["format"] = "cef"
    # What is left of a flood at its end, a million messages, may take a busy machine long: neither
    # its senders wait until it is read, nor the stop until it is delivered.
    daemon.config["shutdown_timeout"] = "1s"
    others = with_bystanders(daemon)

    def send(sock: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock.sendall(flood)

    with ExitStack() as stack, ThreadPoolExecutor(connections) as senders:
        sockets = [stack.enter_context(connected(daemon)) for _ in range(connections)]
        try:
            with others.watched():
                flooding = senders.map(send, sockets)
                threading.Event().wait(8)
        finally:
            for sock in sockets:
                with suppress(OSError):  # the relay may have closed it
                    sock.shutdown(socket.SHUT_RDWR)
        list(flooding)
    others.are_served()
    assert daemon.terminate() == 0


@pytest.mark.parametrize("tls", [False, True])
def test_a_stop_takes_what_had_arrived(make_daemon: MakeDaemon, tls: bool) -> None:
    daemon = relay(make_daemon)
    authority, file = trustme.CA(), daemon.directory / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    if tls:
        source = daemon.config["sources"]["logs"]
        source |= {"listen": "tls://127.0.0.1:0", "tls": {"certificate": str(file)}}
    daemon.start()
    total = 5_000  # a fraction of what is read in the second that a stop has, on a busy machine too
    with connected(daemon) as plain, ExitStack() as stack:
        sock = plain
        if tls:
            client = ssl.create_default_context()
            authority.configure_trust(client)
            sock = stack.enter_context(client.wrap_socket(plain, server_hostname="localhost"))
        sock.sendall(b"<13>first\n")
        until(lambda: forwarded(daemon))
        # The process stands still: what is sent now waits in the kernel, confirmed to its sender.
        daemon.send(signal.SIGSTOP)
        sock.sendall(b"".join(LINE + b"%d\n" % number for number in range(total)))
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGCONT)
        assert daemon.wait() == 0
    assert len(forwarded(daemon)) == total + 1


def test_a_stop_takes_the_datagrams_that_had_arrived(make_daemon: MakeDaemon) -> None:
    daemon, total = relay(make_daemon, "udp://127.0.0.1:0").start(), 10_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port_of(daemon)))
        sock.send(b"<13>first")  # by then the receive buffer has its size
        until(lambda: forwarded(daemon))
        daemon.send(signal.SIGSTOP)
        for number in range(total):
            sock.send(LINE + b"%d" % number)
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGCONT)
        assert daemon.wait() == 0
    assert len(forwarded(daemon)) == total + 1


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_stop_is_not_held_up_by_a_full_buffer(make_daemon: MakeDaemon, scheme: str) -> None:
    daemon = relay(make_daemon, f"{scheme}://127.0.0.1:0")
    daemon.config["sinks"]["out"] = {"protocol": "tcp", "server": "127.0.0.1", "port": 9}
    daemon.config["buffer"] = {"max_size": "16MiB"}
    daemon.config["shutdown_timeout"] = "1s"
    daemon.start()
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    ended = threading.Event()
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.connect(("127.0.0.1", port_of(daemon)))
        noise = random.Random(1).randbytes(20_000).hex().encode() + b"\n"

        def fill() -> None:
            with suppress(OSError):
                while not ended.is_set():
                    sock.sendall(LINE + noise)

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            until(lambda: daemon.said("buffer is full"), 60)
            assert daemon.terminate() == 0
        finally:
            ended.set()
            sock.close()
            thread.join()
    if scheme == "udp":
        (warning,) = daemon.said("stopped before datagrams could be stored")
        assert warning["upstream_dropped"] > 0


def garbage_and_close(sock: socket.socket) -> None:
    sock.sendall(bytes(range(256)) * 50)


def absurd_length(sock: socket.socket) -> None:
    sock.sendall(b"999999999 <13>x")


def half_a_message(sock: socket.socket) -> None:
    sock.sendall(b"500 <13>x")


def reset(sock: socket.socket) -> None:
    sock.sendall(b"<13>cut o")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def byte_by_byte(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"23 <13>slow but complete.\n7 <13>end":
        sock.sendall(bytes([byte]))


def half_closed(sock: socket.socket) -> None:
    sock.sendall(b"<13>half closed\n")
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""


def a_web_browser(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


BAD: list[Callable[[socket.socket], None]] = [
    garbage_and_close, absurd_length, half_a_message, reset, byte_by_byte, half_closed,
    a_web_browser,
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["tcp", "relp", "tls", "relp+tls"])
def test_no_bad_peer_disturbs_another(make_daemon: MakeDaemon, scheme: str) -> None:
    """`Daemon.close` looks for tracebacks in the log."""
    daemon = relay(make_daemon, [f"{scheme}://127.0.0.1:0", ANY])
    if scheme.endswith("tls"):
        file = daemon.directory / "server.pem"
        made = trustme.CA().issue_cert("localhost")
        made.private_key_and_cert_chain_pem.write_to_path(str(file))
        daemon.config["sources"]["logs"]["tls"] = {"certificate": str(file)}
    daemon.start()
    until(lambda: len(daemon.said("listening")) == 2)
    bad_port, good_port = (line["port"] for line in daemon.said("listening"))
    with socket.create_connection(("127.0.0.1", good_port)) as good:
        for ill in BAD:
            with socket.create_connection(("127.0.0.1", bad_port), timeout=20) as sock:
                with suppress(ConnectionError):
                    ill(sock)
            serves(daemon, good, b"<13>beside " + ill.__name__.encode())
    assert not daemon.said("part failed, restarting it")
    until(lambda: daemon.metric("source_connections", source="logs") == 0)
    assert daemon.terminate() == 0


def test_relp_clients_with_huge_frames_cannot_fill_the_memory(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, "relp://127.0.0.1:0").start()
    part = b"x" * (1 << 20)
    with ExitStack() as crowd:
        for _ in range(12):
            sock = crowd.enter_context(connected(daemon))
            with suppress(ConnectionError):
                sock.sendall(b"1 open 0\n2 syslog 16000000 ")
                for _ in range(15):
                    sock.sendall(part)
        until(lambda: daemon.refused("logs") >= 4)
        with connected(daemon) as good:
            fit = b"<13>" + b"fit" * 333_332
            good.sendall(b"1 open 0\n2 syslog 1000000 %b\n" % fit)
            until(lambda: forwarded(daemon) == [fit])
        assert daemon.process is not None
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 300_000
    assert daemon.terminate() == 0


def test_a_relp_client_that_reads_no_answers_holds_up_only_itself(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, "relp://127.0.0.1:0").start()
    frames = b"".join(b"%d syslog 5 <13>x\n" % (n % 999_999_999) for n in range(2, 2000))
    ended = threading.Event()
    with connected(daemon) as deaf, connected(daemon) as good:
        deaf.sendall(b"1 open 0\n")

        def shout() -> None:
            with suppress(OSError):
                while not ended.is_set():
                    deaf.sendall(frames)

        deaf.settimeout(1)
        thread = threading.Thread(target=shout)
        thread.start()
        good.sendall(b"1 open 0\n2 syslog 8 <13>good\n")
        until(lambda: b"<13>good" in forwarded(daemon))
        thread.join(60)
        ended.set()
        assert not thread.is_alive(), "it was read though nobody reads the answers"
    assert daemon.terminate() == 0


def test_each_tls_record_may_be_one_message(make_daemon: MakeDaemon) -> None:
    daemon, total = relay(make_daemon, "tls://127.0.0.1:0"), 3000
    authority, file = trustme.CA(), daemon.directory / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    daemon.config["sources"]["logs"]["tls"] = {"certificate": str(file)}
    daemon.start()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with connected(daemon) as plain:
        with client.wrap_socket(plain, server_hostname="localhost") as sock:
            sock.sendall(LINE + b"first\n")
            until(lambda: len(forwarded(daemon)) == 1)
            daemon.send(signal.SIGSTOP)
            for number in range(total):
                sock.sendall(LINE + b"%d\n" % number)
            before = pauses(daemon)
            daemon.send(signal.SIGCONT)
            until(lambda: len(forwarded(daemon)) == 1 + total)
    # With a pause after each record there would be one for each.
    assert pauses(daemon) - before < total / 2
    assert daemon.terminate() == 0


def test_a_refused_client_gets_the_reason(make_daemon: MakeDaemon) -> None:
    daemon = relay(make_daemon, "tls://127.0.0.1:0")
    authority, file = trustme.CA(), daemon.directory / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    authority.cert_pem.write_to_path(str(daemon.directory / "ca.pem"))
    daemon.config["sources"]["logs"]["tls"] = {
        "certificate": str(file), "client_ca": str(daemon.directory / "ca.pem"),
    }  # fmt: skip
    daemon.start()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with connected(daemon) as plain, pytest.raises(ssl.SSLError, match="certificate required"):
        with client.wrap_socket(plain, server_hostname="localhost") as sock:
            sock.recv(1)
    assert daemon.refused("logs") == 1
