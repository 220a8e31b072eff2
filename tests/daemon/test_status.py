"""How a relay does, as its page, `siemrelay status` and `siemrelay top` tell it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.cli.live import endpoint_client
from siemrelay.cli.live.endpoint_client import RelayUnreachable, fetch_status
from siemrelay.formats.writing.text import sanitize_for_display
from siemrelay.telemetry.log import Redactor
from siemrelay.telemetry.rates import RATE_S, Rates
from siemrelay.telemetry.stats import SinkStats, SourceStats, Stats
from siemrelay.telemetry.status import StatusReporter
from siemrelay.telemetry.status_text import ago, lines, size, span
from tests.conftest import MakeDaemon
from tests.support import launcher
from tests.support.daemon import Daemon, append, event, http, tcp, until
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.sockets import TcpReceiver

TOKEN = "Bearer hunter2-hunter2"

# -- the parts ------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.24, "0.2 s"), (9.94, "9.9 s"), (10, "10 s"), (119, "119 s"),
     (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_799, "48 h"), (172_800, "2 d")],
)  # fmt: skip
def test_a_span_is_written_in_the_largest_unit_that_counts(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (3 << 29, "1.5 GiB"),
     (5 << 40, "5.0 TiB"), (5 << 50, "5120.0 TiB")],
)  # fmt: skip
def test_a_size_is_written_in_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert size(count) == text


def test_what_never_was_is_shown_as_never() -> None:
    assert (ago(None, 100.0), ago(97.0, 100.0)) == ("never", "3.0 s ago")


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 1000)), max_size=60))
def test_a_rate_is_that_of_the_last_seconds(steps: list[tuple[float, int]]) -> None:
    rates, now, count = Rates(), 0.0, 0
    seen = [(now, count)]
    rates.sample(now, {"a": count})
    for pause, more in steps:
        now, count = now + pause, count + more
        seen.append((now, count))
        rates.sample(now, {"a": count})
    began, first = [one for one in seen if one[0] <= max(now - RATE_S, 0)][-1]
    expected = (count - first) / (now - began) if now > began else 0.0
    assert rates.per_s("a") == pytest.approx(expected)
    assert rates.per_s("b") == 0


def overview_of(stats: Stats) -> StatusReporter:
    return StatusReporter(stats, Redactor([TOKEN]))


def shown_lines(stats: Stats) -> list[str]:
    return [line.text for line in lines(overview_of(stats).status(0.0))]


def test_secrets_in_a_peers_words_are_left_out_everywhere() -> None:
    stats = Stats(ready=True)
    said = f"HTTP 403: {TOKEN} is not known"
    stats.sinks["siem"] = SinkStats("siem", "holding", said, last_error=said, last_error_at=1.0)
    stats.sources["hooks"] = SourceStats("hooks", restarts=1, last_error=said)
    assert TOKEN not in overview_of(stats).line()
    assert TOKEN not in "".join(shown_lines(stats))
    assert TOKEN not in str(overview_of(stats).status(0.0))


def test_control_characters_from_outside_do_not_reach_the_terminal() -> None:
    stats = Stats(ready=True)
    stats.sinks["siem"] = SinkStats("siem", "waiting", "\x1b[2Jgone\nsink  up")
    stats.sources["files"] = SourceStats("files", restarts=1, last_error="\x1b[31m")
    assert not re.search(r"[\x00-\x1f]", "".join(shown_lines(stats)))


@pytest.mark.parametrize(
    "words",
    ["a\nMAINPID=1\nWATCHDOG=trigger", "half \ud800 pair", "\x9b2J \u202e\u2028", "x" * 5000,
     "y " * 5000],
)  # fmt: skip
def test_a_peers_words_cannot_end_or_command_anything(words: str) -> None:
    stats = Stats(ready=True)
    stats.sinks["siem"] = SinkStats("siem", "holding", words, last_error=words, last_error_at=1.0)
    stats.sources["files"] = SourceStats("files", last_error=words)
    overview = overview_of(stats)
    line = overview.line()
    assert len(line.encode()) < 400
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", line)
    body = msgspec.json.encode(overview.status(0.0))
    assert len(body) < 6000
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e]", "".join(shown_lines(stats)))


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ('pass"wo\\rd', json.dumps({"error": 'no pass"wo\\rd'})),
        ("s3cr/t+value9", "client_secret=s3cr%2Ft%2Bvalue9&x=1"),
        ("s3cr/t+value9", "https://x/s3cr/t%2Bvalue9"),
        ("two  spaces here", "no two spaces here"),
        ("ünïcode-key", '{"key": "\\u00fcn\\u00efcode-key"}'),
    ],
)
def test_a_secret_is_hidden_in_whatever_form_a_peer_echoes_it(secret: str, said: str) -> None:
    assert Redactor([secret]).text(said) != said
    assert "***" in Redactor([secret]).text(said)


@pytest.mark.parametrize(
    "said",
    ["Authorization: Basic dXNlcjpwYXNzd29yZA== is wrong", "bearer abcdef123456 expired",
     "moved to http://user:hunter2secret@other/"],
)  # fmt: skip
def test_credentials_that_nobody_named_as_a_secret_are_left_out_too(said: str) -> None:
    shown = Redactor([]).text(said)
    assert "***" in shown
    assert not any(word in shown for word in ("dXNl", "abcdef", "hunter2"))


def test_a_truncated_message_shows_no_part_of_a_secret() -> None:
    assert sanitize_for_display("no such token abcdefgh", 18) == "no such token ..."
    assert sanitize_for_display("no such token abcdefgh", 22) == "no such token abcdefgh"
    assert sanitize_for_display("x" * 30, 10) == " ..."


def test_losses_and_rejections_are_shown_below_their_source() -> None:
    stats = Stats()
    stats.sources["udp"] = SourceStats(
        "udp", upstream_dropped=7, refused={"rate": 1200, "address": 3}
    )
    text = "\n".join(shown_lines(stats))
    assert "rejected: address 3, rate 1,200; the log has" in text
    assert "7 dropped before they reached the relay" in text
    assert "starting" in text


def test_a_path_that_no_file_matches_is_shown_below_its_source() -> None:
    stats = Stats()
    stats.sources["files"] = SourceStats("files", files=0)
    assert "  no file matches `path`; one is read as soon as it appears" in shown_lines(stats)


def test_files_that_cannot_be_read_are_not_said_to_be_missing() -> None:
    stats = Stats()
    stats.sources["files"] = SourceStats("files", files=0)
    stats.sources["files"].unreadable(1, "cannot read /var/log/x: Permission denied")
    text = "\n".join(shown_lines(stats))
    assert "cannot read /var/log/x" in text
    assert "no file matches" not in text


def test_the_status_still_shows_an_error_that_is_over() -> None:
    stats = Stats(ready=True)
    stats.sinks["siem"] = SinkStats("siem", "up", "", last_error="timed out", last_error_at=1.0)
    assert any("last error" in line and "timed out" in line for line in shown_lines(stats))


# -- the daemon -----------------------------------------------------------


@contextmanager
def held(make_daemon: MakeDaemon) -> Iterator[Daemon]:
    """A relay with a sink that is up, one that waits and one that holds for a wrong token."""

    def answer(request: object) -> Answer:
        return Answer(401, f"{TOKEN} is not known")

    with TcpReceiver() as up, TcpReceiver(up=False) as dead, HttpReceiver(answer) as web:
        daemon = make_daemon(
            {"up": tcp(up.port), "dead": tcp(dead.port), "web": http(web.url, authorization=TOKEN)}
        ).start()
        append(daemon.audit, map(event, range(1, 41)))
        until(lambda: daemon.metric("sink_state", sink="web", state="holding") == 1)
        until(lambda: daemon.metric("sink_delivered_total", sink="up") == 40)
        until(lambda: daemon.metric("sink_state", sink="dead", state="waiting") == 1)
        yield daemon


def test_a_held_sink_says_what_to_fix_in_log_metric_and_status(make_daemon: MakeDaemon) -> None:
    with held(make_daemon) as daemon:
        (logged,) = daemon.said("sink holding")
        assert "check the token and its prefix" in logged["reason"]
        done = daemon.command("status", "--at", daemon.endpoint)
        assert done.returncode == 0, done.stderr
        assert f"at once by `siemrelay reload -c {daemon.file}`" in logged["next"]
        assert logged["reason"] in done.stdout
        assert logged["next"] in done.stdout
        assert re.search(r"^up +up +40 ", done.stdout, re.MULTILINE)
        assert re.search(r"^web +holding +0 ", done.stdout, re.MULTILINE)
        assert re.search(r"^audit +40 ", done.stdout, re.MULTILINE)
        assert TOKEN not in done.stdout
        assert daemon.get("/")[1].splitlines()[3] == done.stdout.splitlines()[3]
        status = json.loads(daemon.command("status", "--at", daemon.endpoint, "--json").stdout)
        assert {sink["name"]: sink["backlog"] for sink in status["sinks"]} == {
            "up": 0, "dead": 40, "web": 40,
        }  # fmt: skip
        assert all(sink["oldest_undelivered_at"] for sink in status["sinks"][1:])


def test_the_status_needs_the_files_endpoint_and_none_of_its_secrets(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    with held(make_daemon) as daemon:
        other = tmp_path / "other.yaml"
        other.write_text(
            f"endpoint: {{listen: '0.0.0.0:{daemon.endpoint.partition(':')[2]}'}}\n"
            "sinks: {siem: {authorization: '${credential:of_the_service}'}}\n"
        )
        done = run("status", "-c", str(other))
        assert done.returncode == 0, done.stderr
        assert "holding" in done.stdout
        assert f"runs with {daemon.file}, not with {other}" in done.stderr
        daemon.file.unlink()
        daemon.file.symlink_to(other)
        assert run("status", "-c", str(other)).stderr == "", "it is the same file"


@pytest.mark.parametrize(
    ("endpoint", "code", "says"),
    [
        ("{listen: off}", 78, "no endpoint to ask"),
        ("{listen: '127.0.0.1:0'}", 78, "give --at HOST:PORT"),
        ("off", 78, "other.yaml:1:11: endpoint:"),
        ("{listen: 9614}", 78, "other.yaml:1:20: endpoint.listen:"),
        ("{listen: '127.0.0.1:1'}", 69, "no relay answers on 127.0.0.1:1 (Connection refused)"),
    ],
)
def test_a_user_who_cannot_ask_gets_the_reason_and_what_to_do(
    endpoint: str, code: int, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(f"endpoint: {endpoint}\n")
    for command in ("status", "top") if code == 69 else ("status",):
        done = run(command, "-c", str(file), terminal=command == "top")
        assert done.returncode == code
        assert says in done.stdout + done.stderr


def test_somebody_elses_server_is_not_taken_for_a_relay() -> None:
    with HttpReceiver(lambda request: Answer(200, "hello")) as web:
        done = run("status", "--at", web.url.removeprefix("http://").partition("/")[0])
    assert done.returncode == 69
    assert "is not a siemrelay of this version" in done.stderr


@contextmanager
def hostile(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The HOST:PORT of a server that treats one connection so."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def body(data: bytes) -> Callable[[socket.socket], None]:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
    return lambda connection: connection.sendall(head + data)


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    with suppress(OSError):
        while connection.send(b" "):
            time.sleep(0.05)  # the pace of this server


@pytest.mark.parametrize(
    "answer",
    [drip, body(b"\xff\xfe"), body(b"[" * 100_000), body(b'{"version": 1}'),
     lambda connection: connection.sendall(b"\x1b]0;evil\r\n")],
    ids=["drip", "no UTF-8", "deep", "other", "no HTTP"],
)  # fmt: skip
def test_whatever_answers_the_command_ends_with_words(
    answer: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_client, "ANSWER_S", 0.5)
    with hostile(answer) as where:
        host, _, port = where.partition(":")
        with pytest.raises(RelayUnreachable) as raised:
            fetch_status((host, int(port)))
    assert not re.search("[\x00-\x1f]", str(raised.value))


def test_a_status_with_absurd_numbers_is_still_shown() -> None:
    status = overview_of(Stats()).status(0.0)
    absurd = msgspec.structs.replace(status.buffer, size_bytes=10**2000)
    shown = [line.text for line in lines(msgspec.structs.replace(status, buffer=absurd))]
    assert "TiB" in shown[1]


def test_an_address_that_is_none_is_refused_before_anybody_is_asked() -> None:
    for wrong in ("localhost", "off", "127.0.0.1:99999", "127.0.0.1:0"):
        done = run("status", "--at", wrong)
        assert done.returncode == 2
        assert "write HOST:PORT" in done.stderr


@pytest.mark.parametrize("host", ["x..y", "a" * 70 + ".com", "host name", "a\nb", "\udcff"])
def test_a_host_that_can_be_none_is_answered_as_one_that_is_away(host: str) -> None:
    done = run("status", "--at", f"{host}:80")
    assert done.returncode == 69
    assert "no relay answers on" in done.stderr


def test_top_needs_a_terminal() -> None:
    done = run("top", "--at", "127.0.0.1:1")
    assert done.returncode == 64
    assert "`siemrelay status` does not" in done.stderr


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_top_shows_the_status_on_80_columns_until_it_is_ended(
    make_daemon: MakeDaemon, end: str
) -> None:
    with held(make_daemon) as daemon:
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        before = termios.tcgetattr(child)
        process = subprocess.Popen(
            [sys.executable, "-m", "siemrelay", "top", "--at", daemon.endpoint],
            stdin=child, stdout=child, stderr=child,
        )  # fmt: skip
        shown = b""
        try:
            while shown.count(b"check the token and its prefix") < 2:
                shown += os.read(parent, 65536)
            os.write(parent, b"s")
            while b"sort: state" not in shown:
                shown += os.read(parent, 65536)
            if end == "q":
                os.write(parent, b"q")
            else:
                process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert termios.tcgetattr(child) == before
            screens = shown.replace(b"\x1b[H", b"\r\n")
            plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", screens).decode(errors="replace")
            assert max(map(len, plain.split("\r\n"))) <= 80
        finally:
            process.kill()
            process.wait()
            os.close(child)
            os.close(parent)


def run(*arguments: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
    if not terminal:
        return launcher.run(*arguments)
    command = " ".join([sys.executable, "-m", "siemrelay", *arguments])
    return subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
