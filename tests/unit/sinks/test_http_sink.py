"""The HTTP sink against a real server: each answer's verdict, bodies, TLS, and what never leaks."""

from __future__ import annotations

import errno
import gzip
import json
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.net.tls_client import TlsContexts, TlsOptions
from siemrelay.sinks.contract import Certified
from siemrelay.sinks.http.compression import gzipped
from siemrelay.sinks.http.sink import HttpSink, HttpSinkOptions
from siemrelay.sinks.http.trace import RequestTrace
from siemrelay.wire.rate_limits import retry_after_s
from tests.support.certificates import server_context
from tests.support.receivers.http import TAKEN, Answer, HttpReceiver, Request
from tests.support.servers import free_port
from tests.support.sessions import fault

TOKEN = "Splunk 5f6a7b-very-secret"
NOW_S = 1_700_000_000.0


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as made:
        yield made


def options(url: str, **more: object) -> HttpSinkOptions:
    return HttpSinkOptions.model_validate({"url": url, **more})


def always(status: int, words: str = "") -> Callable[[Request], Answer]:
    """A receiver's mind that is made up."""
    return lambda request: Answer(status, words)


async def post(url: str, *messages: bytes, **more: object) -> None:
    async with HttpSink(options(url, **more)).session() as session:
        assert await session.confirm(await session.send(messages or (b'{"a":1}',))) == ()


async def steps_of(url: str, **more: object) -> list[tuple[str, str]]:
    """The steps of one delivery."""
    steps: list[tuple[str, str]] = []
    sink = HttpSink(options(url, **more))
    async with sink.session(lambda step, detail: steps.append((step, detail))) as session:
        await session.confirm(await session.send([b"{}"]))
    return steps


async def fails(url: str, **more: object) -> DeliveryError:
    return await fault(HttpSink(options(url, **more)), b'{"a":1}')


# -- verdicts -------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_confirms(receiver: HttpReceiver, status: int) -> None:
    receiver.answer = always(status)
    await post(receiver.url)


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ((408, 425, 429, 500, 502, 503, 504, 599), SinkWaits),
        ((401, 403, 404, 405, 407, 410, 501, 301, 302, 307, 308), SinkHolds),
        ((400, 413, 415, 422), BatchRefused),
    ],
)
async def test_each_other_answer_says_what_to_do_next(
    receiver: HttpReceiver, statuses: tuple[int, ...], error: type[DeliveryError]
) -> None:
    for status in statuses:
        receiver.answer = always(status, "the peer's own words")
        found = await fails(receiver.url)
        assert type(found) is error, status
        assert "the peer's own words" in str(found)
        assert str(status) in str(found)


async def test_the_session_is_usable_after_a_refused_run(receiver: HttpReceiver) -> None:
    answers = iter([Answer(400, "bad"), TAKEN])
    receiver.answer = lambda request: next(answers)
    async with HttpSink(options(receiver.url)).session() as session:
        with pytest.raises(BatchRefused):
            await session.confirm(await session.send([b"1", b"2"]))
        await session.confirm(await session.send([b"1"]))
    assert receiver.arrived.messages == [b"1"]


async def test_a_redirect_names_the_place_that_it_points_to(receiver: HttpReceiver) -> None:
    receiver.answer = lambda request: Answer(308, Location="https://elsewhere.example/x")
    found = await fails(receiver.url)
    assert "https://elsewhere.example/x" in str(found)
    assert len(receiver.requests) == 1


async def test_the_pause_that_the_peer_asks_for_is_passed_on(receiver: HttpReceiver) -> None:
    receiver.answer = lambda request: Answer(429, Retry_After="17")
    found = await fails(receiver.url)
    assert isinstance(found, SinkWaits)
    assert found.after_s == 17


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), ("", None), ("0", 0), (" 120 ", 120), ("-5", None), ("1.5", None),
        ("soon", None), ("٣", None), (formatdate(NOW_S + 90, usegmt=True), 90),
        (formatdate(NOW_S - 90, usegmt=True), 0), (formatdate(NOW_S + 90, localtime=True), 90),
        ("Tue, 14 Nov 2023 22:14:50", 90), ("Tue, 99 Nov 2023 99:99:99 GMT", None),
        ("Tue, 14 Nov 99999 22:14:50 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(
    value: str | None, expected: float | None
) -> None:
    assert retry_after_s(value, now_s=NOW_S) == expected


# -- bodies ---------------------------------------------------------------


async def test_ndjson_is_one_message_a_line(receiver: HttpReceiver) -> None:
    await post(receiver.url, b'{"a":1}', b'{"a":2}')
    (request,) = receiver.requests
    assert request.body == b'{"a":1}\n{"a":2}\n'
    assert request.headers["content-type"] == "application/x-ndjson"


async def test_an_array_is_one_json_text(receiver: HttpReceiver) -> None:
    await post(receiver.url, b'{"a":1}', b'{"a":2}', batch={"encoding": "array"})
    (request,) = receiver.requests
    assert json.loads(request.body) == [{"a": 1}, {"a": 2}]
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("count", [1, 20_000])
async def test_compressed_bodies_unfold_to_the_same(receiver: HttpReceiver, count: int) -> None:
    await post(receiver.url, *[b'{"a":1}'] * count, compression="gzip")
    (request,) = receiver.requests
    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == b'{"a":1}\n' * count


async def test_a_content_type_of_the_file_replaces_that_of_the_protocol(
    receiver: HttpReceiver,
) -> None:
    """Some receivers read NDJSON under the name of JSON only."""
    await post(receiver.url, headers={"content-type": "application/json; charset=utf-8"})
    assert receiver.requests[0].headers["content-type"] == "application/json; charset=utf-8"


async def test_a_user_agent_of_the_file_is_the_only_one(receiver: HttpReceiver) -> None:
    await post(receiver.url, headers={"user-agent": "audit/1"})
    assert receiver.requests[0].headers["user-agent"] == "audit/1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"headers": {"Content-Encoding": "gzip"}}, "compression: gzip"),
        ({"headers": {"Accept-Encoding": "gzip"}}, "sets this header itself"),
        ({"headers": {"X-Key": "a", "x-key": "b"}}, "x-key is given twice"),
        ({"headers": {"authorization": "a"}, "authorization": "b"}, "authorization is given twice"),
        ({"headers": {"AUTHORIZATION": "a"}, "basic": {"username": "u", "password": "p"}},
         "AUTHORIZATION is given twice"),
        ({"headers": {"DD-Api-Key": "a"}, "authorization": "b",
          "authorization_header": "DD-API-KEY"}, "DD-Api-Key is given twice"),
    ],
)  # fmt: skip
def test_a_header_that_could_not_go_out_as_written_is_a_fault(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        options("https://siem", **settings)


async def test_authorization_and_headers_go_out_word_for_word(receiver: HttpReceiver) -> None:
    await post(receiver.url, authorization=TOKEN, headers={"X-Team": "blue; green"})
    headers = receiver.requests[0].headers
    assert headers["authorization"] == TOKEN
    assert headers["x-team"] == "blue; green"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers


async def test_one_connection_serves_many_runs(receiver: HttpReceiver) -> None:
    steps: list[str] = []
    async with HttpSink(options(receiver.url)).session(lambda s, _: steps.append(s)) as session:
        for _ in range(3):
            await session.confirm(await session.send([b"{}"]))
    assert steps.count("connect") == 1
    assert steps.count("answer") == 3


async def test_each_step_is_reported_in_the_order_in_which_it_happens(
    receiver: HttpReceiver, authority: trustme.CA, ca_file: Path
) -> None:
    receiver.answer = always(202, "the peer's own words")
    address = receiver.url.replace("127.0.0.1", "localhost")
    steps = await steps_of(address)
    assert [step for step, _ in steps] == ["resolve", "connect", "send", "answer"]
    details = dict(steps)
    assert "127.0.0.1" in details["resolve"].split(", ")
    assert details["connect"] == f"127.0.0.1 port {receiver.port}"
    assert details["send"] == f"3 bytes to {address}"
    assert details["answer"] == "HTTP 202 the peer's own words"
    with HttpReceiver(tls=server(authority)) as secured:
        steps = await steps_of(secured.url, tls={"ca": ca_file})
    assert [step for step, _ in steps] == ["resolve", "connect", "tls", "send", "answer"]


async def test_the_steps_to_a_token_come_before_those_to_the_receiver(
    receiver: HttpReceiver,
) -> None:
    with HttpReceiver(lambda request: Answer(200, '{"access_token": "secret"}')) as tokens:
        oauth = {"token_url": tokens.url, "client_id": "a", "client_secret": "b"}
        steps = await steps_of(receiver.url, oauth=oauth)
    way = ["resolve", "connect", "send"]
    assert [step for step, _ in steps] == [*way, "token", *way, "answer"]
    assert "secret" not in str(steps)


# -- faults ---------------------------------------------------------------


async def test_an_answer_larger_than_the_limit_is_not_kept(receiver: HttpReceiver) -> None:
    receiver.answer = lambda request: Answer(400, "x" * 10_000_000)
    found = await fails(receiver.url)
    assert len(str(found)) < 1000
    receiver.answer = lambda request: Answer(200, "x" * 10_000_000)
    await post(receiver.url)


async def test_a_peer_that_does_not_answer_in_time_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        found = await fails(url, timeout="100ms")
    assert isinstance(found, SinkWaits)
    assert "100ms" in str(found) or "imeout" in str(found)


async def test_an_answer_that_drips_is_given_up_after_the_timeout() -> None:
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stop.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert isinstance(await fails(url, timeout="200ms"), SinkWaits)
        finally:
            stop.set()
            thread.join()


async def test_a_port_where_nobody_listens_is_waited_for() -> None:
    assert isinstance(await fails(f"http://127.0.0.1:{free_port()}/"), SinkWaits)


@pytest.mark.parametrize("said", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
async def test_a_peer_that_breaks_off_or_talks_nonsense_is_waited_for(said: bytes) -> None:
    def speak(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak, args=(listener,))
        thread.start()
        found = await fails(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert isinstance(found, SinkWaits)


async def test_the_token_is_in_no_exception(receiver: HttpReceiver) -> None:
    for status in (400, 401, 503):
        receiver.answer = always(status)
        found = await fails(receiver.url, authorization=TOKEN)
        assert "secret" not in "".join(traceback.format_exception(found))
    assert "secret" not in repr(options(receiver.url, authorization=TOKEN))


async def test_headers_for_the_receiver_do_not_go_to_the_token_endpoint(
    receiver: HttpReceiver,
) -> None:
    with HttpReceiver(always(200, '{"access_token": "t"}')) as tokens:
        oauth = {"token_url": tokens.url, "client_id": "a", "client_secret": "b"}
        await post(receiver.url, oauth=oauth, headers={"X-Api-Key": "for-the-receiver"})
        assert receiver.requests[0].headers["x-api-key"] == "for-the-receiver"
        assert receiver.requests[0].headers["authorization"] == "Bearer t"
        assert "x-api-key" not in tokens.requests[0].headers


async def test_a_token_that_no_header_can_carry_holds_and_is_not_shown(
    receiver: HttpReceiver,
) -> None:
    receiver.answer = lambda request: Answer(200, json.dumps({"access_token": "secret\u00e9"}))
    oauth = {"token_url": receiver.url, "client_id": "a", "client_secret": "b"}
    found = await fails(receiver.url, oauth=oauth)
    assert isinstance(found, SinkHolds)
    assert "a token that no header can carry" in str(found)
    assert "secret" not in "".join(traceback.format_exception(found))


# -- TLS ------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    return server_context(authority.issue_cert(name))


async def test_a_certificate_of_a_trusted_authority_is_taken(
    authority: trustme.CA, ca_file: Path
) -> None:
    details: dict[str, str] = {}
    with HttpReceiver(tls=server(authority)) as receiver:
        sink = HttpSink(options(receiver.url, tls={"ca": ca_file}))
        async with sink.session(details.__setitem__) as session:
            await session.confirm(await session.send([b"{}"]))
    assert len(receiver.arrived) == 1
    assert details["tls"].startswith("TLSv1.3, peer ")
    assert "certificate valid until" in details["tls"]


async def test_the_expiry_of_the_shown_certificate_is_known(
    authority: trustme.CA, ca_file: Path
) -> None:
    with HttpReceiver(tls=server(authority)) as receiver:
        sink = HttpSink(options(receiver.url, tls={"ca": ca_file}))
        assert isinstance(sink, Certified)
        assert sink.certificate_expires_at is None
        async with sink.session() as session:
            await session.confirm(await session.send([b"{}"]))
        assert sink.certificate_expires_at is not None
        assert sink.certificate_expires_at > time.time()


async def test_tls_files_are_read_again_and_the_last_good_ones_kept(
    authority: trustme.CA, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    with HttpReceiver(tls=server(authority)) as receiver:
        sink = HttpSink(options(receiver.url, tls={"ca": ca}))

        async def sent() -> None:
            async with sink.session() as session:
                await session.confirm(await session.send([b"{}"]))

        with pytest.raises(BaseExceptionGroup) as refused:
            await sent()
        assert refused.value.subgroup(SinkHolds)
        authority.cert_pem.write_to_path(str(ca))
        await sent()
        ca.write_text("half a file")
        await sent()
    assert len(receiver.arrived) == 2


async def test_an_untrusted_certificate_holds_with_advice(authority: trustme.CA) -> None:
    with HttpReceiver(tls=server(authority)) as receiver:
        found = await fails(receiver.url)
        assert isinstance(found, SinkHolds)
        assert "tls: {ca: FILE}" in found.advice
        assert not receiver.requests
        await post(receiver.url, tls={"verify": False})


async def test_a_certificate_of_another_name_holds_unless_that_name_is_asked_for(
    authority: trustme.CA, ca_file: Path
) -> None:
    with HttpReceiver(tls=server(authority, "siem.example.com")) as receiver:
        found = await fails(receiver.url, tls={"ca": ca_file})
        assert isinstance(found, SinkHolds)
        await post(receiver.url, tls={"ca": ca_file, "server_name": "siem.example.com"})


async def test_a_client_certificate_is_shown_where_it_is_wanted(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "client.pem"
    authority.issue_cert("relay.example.com").private_key_and_cert_chain_pem.write_to_path(
        str(mine)
    )
    with HttpReceiver(
        tls=server_context(authority.issue_cert("127.0.0.1"), clients_of=authority)
    ) as receiver:
        await post(receiver.url, tls={"ca": ca_file, "certificate": mine})
    # Since TLS 1.3 the server says so after the handshake, and its reset may overtake the words.
    context = server_context(authority.issue_cert("127.0.0.1"), clients_of=authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with HttpReceiver(tls=context) as receiver:
        found = await fails(receiver.url, tls={"ca": ca_file})
        assert isinstance(found, SinkHolds)
        assert "client certificate" in str(found)


async def test_tls_files_that_cannot_be_used_hold(receiver: HttpReceiver, tmp_path: Path) -> None:
    found = await fails(receiver.url, tls={"ca": tmp_path / "missing.pem"})
    assert isinstance(found, SinkHolds)
    assert "missing.pem" in str(found)


async def test_a_peer_without_tls_on_an_https_address_holds(receiver: HttpReceiver) -> None:
    found = await fails(receiver.url.replace("http:", "https:"))
    assert isinstance(found, SinkHolds)
    assert "write http:// for plain HTTP" in found.advice


async def test_a_connection_cut_within_tls_is_waited_for(ca_file: Path) -> None:
    def cut(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(1 << 16)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=cut, args=(listener,))
        thread.start()
        found = await fails(f"https://127.0.0.1:{listener.getsockname()[1]}/", tls={"ca": ca_file})
        thread.join()
    assert isinstance(found, SinkWaits)


# -- proxies --------------------------------------------------------------


class Proxy:
    """Answers one request with fixed words and remembers it."""

    def __init__(self, said: bytes) -> None:
        self._said, self.heard = said, b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.heard = connection.recv(1 << 16)
            connection.sendall(self._said)


async def test_a_proxy_from_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        await post("http://siem.example.com/events")
    assert proxy.heard.startswith(b"POST http://siem.example.com/events HTTP/1.1\r\n")


class Tunnel(Proxy):
    """Leads one connection to where it is asked to."""

    def __init__(self) -> None:
        super().__init__(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def _serve(self) -> None:
        near, _ = self._listener.accept()
        self.heard = near.recv(1 << 16)
        host, _, port = self.heard.split()[1].decode().rpartition(":")
        with near, socket.create_connection((host, int(port))) as far:
            near.sendall(self._said)
            back = threading.Thread(target=self._pump, args=(far, near))
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


async def test_the_steps_through_a_tunnel_name_the_proxy_and_the_receivers_certificate(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpReceiver(tls=server(authority)) as receiver, Tunnel() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        steps = await steps_of(receiver.url, tls={"ca": ca_file})
    assert [step for step, _ in steps] == ["resolve", "connect", "tls", "send", "answer"]
    port = proxy.url.rpartition(":")[2]
    assert dict(steps)["connect"] == f"127.0.0.1 port {port}, the proxy of HTTPS_PROXY"
    assert "certificate valid until" in dict(steps)["tls"]
    assert dict(steps)["send"] == f"3 bytes to {receiver.url}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", SinkHolds),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", SinkWaits),
    ],
)
async def test_what_a_proxy_refuses_is_sorted_as_well(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, error: type[DeliveryError]
) -> None:
    with Proxy(answer) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        found = await fails("https://siem.example.com/events")
    assert type(found) is error
    assert proxy.heard.startswith(b"CONNECT siem.example.com:443 HTTP/1.1\r\n")


async def test_a_connection_that_is_reset_at_once_is_no_error_of_our_own() -> None:
    """Asking such a socket for its peer fails; the request then fails by itself."""

    class Reset:
        def get_extra_info(self, name: str) -> object:
            if name == "server_addr":
                raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            return None

    steps: list[str] = []
    trace = RequestTrace(
        "http://127.0.0.1/", 0, lambda step, _: steps.append(step), TlsContexts(TlsOptions())
    )
    await trace.step("connection.connect_tcp.complete", {"return_value": Reset()})
    assert steps == []


@pytest.mark.parametrize("zlib_only", [False, True])
def test_a_compressed_body_is_the_same_gzip_each_time(
    zlib_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if zlib_only:
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    for body in (b"", b"{}" * 100_000, bytes(range(256)) * 300):
        assert gzip.decompress(gzipped(body)) == body
        assert gzipped(body) == gzipped(body)
    assert len(gzipped(b"{}" * 100_000)) < 1_000
