"""`siemrelay test`: for whatever is wrong, the one sentence names what to change.

All sinks of a kind of trouble are tested by one `test --all`, side by side, as a person would.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.support import launcher
from tests.support.certificates import server_context
from tests.support.receivers.elasticsearch import Elasticsearch
from tests.support.receivers.http import Answer, HttpReceiver
from tests.support.receivers.otlp import OtlpReceiver
from tests.support.receivers.sentinel import (
    CLIENT,
    RULE,
    SECRET,
    STREAM,
    TENANT,
    Entra,
    LogsIngestion,
)
from tests.support.receivers.splunk import TOKEN, SplunkReceiver
from tests.support.receivers.splunk import said as collector_said
from tests.support.servers import free_port

Settings = dict[str, Any]

_DAY = timedelta(days=1)
_OVER_HTTP = ("http", "splunk-hec", "elasticsearch", "sentinel", "otlp")
_OVER_TLS = ("tls", "relp", *_OVER_HTTP)


def said_by(sinks: Mapping[str, Settings], directory: Path, **variables: str) -> dict[str, str]:
    """What `siemrelay test --all` says of each sink: its advice, or `taken`."""
    file = directory / "siemrelay.yaml"
    config = {"state_dir": str(directory), "sources": {"a": {"type": "stdin"}}, "sinks": sinks}
    file.write_text(yaml.safe_dump(config))
    done = launcher.run(
        "test", "--all", "--json", "-c", str(file), environment=os.environ | variables
    )
    assert done.stderr == ""
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert not any(
        TOKEN in json.dumps(result) or SECRET in json.dumps(result) for result in results
    )
    return {one["sink"]: one.get("advice", "taken") for one in results}


def at(port: int, protocol: str, *, tls: Settings | None = None, entra: str = "") -> Settings:
    """A good sink of that protocol, but for what may be at the port."""
    common: Settings = {"protocol": protocol, "timeout": "2s"}
    common |= {"tls": tls} if tls is not None else {}
    url = f"http{'' if tls is None else 's'}://127.0.0.1:{port}"
    match protocol:
        case "sentinel":
            return common | {
                "endpoint": url, "tenant": TENANT, "client_id": CLIENT, "client_secret": SECRET,
                "rule": RULE, "stream": STREAM, "authority": entra,
            }  # fmt: skip
        case "splunk-hec":
            return common | {"url": url, "authorization": f"Splunk {TOKEN}"}
        case "http" | "elasticsearch" | "otlp":
            return common | {"url": url, "authorization": f"Bearer {TOKEN}"}
    return common | {"server": "127.0.0.1", "port": port}


def all_contain(said: Mapping[str, str], words: str) -> None:
    assert {name: text for name, text in said.items() if words not in text} == {}


@pytest.fixture
def entra() -> Iterator[Entra]:
    with Entra() as made:
        yield made


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> Settings:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"ca": str(tmp_path / "ca.pem")}


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("expired", "certificate has expired; renew the receiver's certificate"),
        ("of another name", "call the receiver by a name that is in its certificate"),
        ("foreign", "set `tls: {ca: FILE}` to the authority that signed it"),
    ],
)
def test_each_fault_of_a_certificate_has_its_own_advice(
    trouble: str, words: str, authority: trustme.CA, ca: Settings, entra: Entra, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    certificate = {
        "expired": lambda: authority.issue_cert(
            "127.0.0.1", not_before=now - 2 * _DAY, not_after=now - _DAY
        ),
        "of another name": lambda: authority.issue_cert("other.example.com"),
        "foreign": lambda: trustme.CA().issue_cert("127.0.0.1"),
    }[trouble]()
    with HttpReceiver(tls=server_context(certificate)) as server:
        sinks = {name: at(server.port, name, tls=ca, entra=entra.url) for name in _OVER_TLS}
        all_contain(said_by(sinks, tmp_path), words)


def test_a_receiver_that_wants_a_client_certificate_is_said_to(
    authority: trustme.CA, ca: Settings, entra: Entra, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with HttpReceiver(tls=context) as server:
        sinks = {name: at(server.port, name, tls=ca, entra=entra.url) for name in _OVER_TLS}
        all_contain(said_by(sinks, tmp_path), "`tls: {certificate: FILE, key: FILE}`")


def test_plain_against_tls_and_the_reverse(
    authority: trustme.CA, ca: Settings, entra: Entra, tmp_path: Path
) -> None:
    context = server_context(authority.issue_cert("127.0.0.1"))
    with HttpReceiver(tls=context) as secured, HttpReceiver() as plain:
        names = ("tcp", "relp", *_OVER_HTTP)
        said = said_by({n: at(secured.port, n, entra=entra.url) for n in names}, tmp_path)
        all_contain(said, "TLS")
        assert "does it expect TLS" in said.pop("tcp")
        assert "(`tls: {}`)" in said.pop("relp")
        all_contain(said, "is it TLS (https://)?")
        sinks = {n: at(plain.port, n, tls=ca, entra=entra.url) for n in _OVER_TLS}
        said = said_by(sinks, tmp_path)
        all_contain(said, "the peer does not speak TLS on this port")
        for name in ("tls", "relp"):
            assert said.pop(name).endswith("or choose a protocol without TLS")
        all_contain(said, "or write http:// for plain HTTP")


def test_a_port_where_nobody_listens_and_a_name_that_nobody_has(
    closed_port: int, entra: Entra, tmp_path: Path
) -> None:
    names = ("udp", "tcp", "tls", "relp", "kafka", *_OVER_HTTP)
    sinks = {name: at(closed_port, name, entra=entra.url) for name in names}
    del sinks["udp"]["timeout"]
    sinks["kafka"] = {
        "protocol": "kafka", "brokers": f"127.0.0.1:{closed_port}", "topic": "t", "timeout": "2s",
    }  # fmt: skip
    said = said_by(sinks, tmp_path)
    assert "Connection refused" in said["kafka"]
    assert "check `brokers`" in said.pop("kafka")
    assert "nobody listens there" in said.pop("udp")
    all_contain(said, f"{closed_port}: Connection refused; is the receiver running there?")
    nowhere = {"http": at(1, "http") | {"url": "https://nowhere.invalid/"},
               "tcp": at(1, "tcp") | {"server": "nowhere.invalid"}}  # fmt: skip
    said = said_by(nowhere, tmp_path)
    assert "cannot resolve nowhere.invalid" in said["http"]
    assert "check `server`" in said["tcp"]


def test_a_port_where_something_else_answers(entra: Entra, tmp_path: Path) -> None:
    with (
        HttpReceiver(lambda request: Answer(404, "<html>no such page</html>")) as missing,
        HttpReceiver(lambda request: Answer(200, "<html>log in</html>")) as page,
    ):
        names = ("tcp", "relp", *_OVER_HTTP)
        said = said_by({n: at(missing.port, n, entra=entra.url) for n in names}, tmp_path)
        assert "or another protocol on this port" in said.pop("tcp")
        assert "check the port and whether `protocol` is right" in said.pop("relp")
        assert "check `rule`" in said.pop("sentinel")
        all_contain(said, "check `url`")
        judging = ("splunk-hec", "elasticsearch", "sentinel", "otlp")
        said = said_by({n: at(page.port, n, entra=entra.url) for n in judging}, tmp_path)
        all_contain(said, "log in")
        assert "is not the HTTP Event Collector" in said["splunk-hec"]
        assert "is `url` the address of Elasticsearch" in said["elasticsearch"]
        assert "check `endpoint`" in said["sentinel"]
        assert "is `url` the address of an OTLP receiver" in said["otlp"]


def test_a_port_that_takes_requests_and_never_answers(entra: Entra, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        names = ("relp", *_OVER_HTTP)
        said = said_by({n: at(port, n, entra=entra.url) for n in names}, tmp_path)
        assert "does it speak RELP on this port?" in said.pop("relp")
        all_contain(said, f"no answer from 127.0.0.1:{port} within 2s (`timeout`); is that the")


def test_wrong_credentials_and_places_that_the_receiver_does_not_know(tmp_path: Path) -> None:
    with ExitStack() as stack:
        splunk = stack.enter_context(SplunkReceiver())
        elastic = stack.enter_context(Elasticsearch(authorization="ApiKey good"))
        entra = stack.enter_context(Entra())
        azure = stack.enter_context(LogsIngestion(entra))
        otlp = stack.enter_context(OtlpReceiver(authorization="Bearer good"))
        web = stack.enter_context(HttpReceiver(lambda request: Answer(401, "who are you")))
        hec, es = at(splunk.port, "splunk-hec"), at(elastic.port, "elasticsearch")
        sentinel = at(azure.port, "sentinel", entra=entra.url)
        cases: dict[str, tuple[Settings, str]] = {
            "hec-token": (hec | {"authorization": "Splunk 11111111-2222-3333-4444-555555555555"},
                          "Splunk does not know this token: check `authorization`"),
            "hec-prefix": (hec | {"authorization": "Bearer x"}, "with the word Splunk before"),
            "hec-index": (hec | {"index": "nope"}, "set `index` to one that exists in Splunk"),
            "hec-ack": (hec | {"indexer_acknowledgement": True},
                        "or set `indexer_acknowledgement: no`"),
            "es-token": (es, 'set `authorization: "ApiKey …"`'),
            "es-index": (es | {"authorization": "ApiKey good", "index": "nope"},
                         "create the data stream or index `nope`"),
            "sentinel-secret": (sentinel | {"client_secret": "wrong"}, "and `client_secret`"),
            "sentinel-rule": (sentinel | {"rule": "dcr-1"}, "check `rule`"),
            "sentinel-stream": (sentinel | {"stream": "Custom-X"}, "check `stream`"),
            "otlp-token": (at(otlp.port, "otlp"), "set `authorization` or `headers`"),
            "http-token": (at(web.port, "http"), "check the token and its prefix"),
        }  # fmt: skip
        said = said_by({name: sink for name, (sink, _) in cases.items()}, tmp_path)
    assert {n: said[n] for n, (_, words) in cases.items() if words not in said[n]} == {}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "if this goes on, raise its limit or quota, or choose fewer `events`"),
        (500, "the receiver has a fault of its own: its log says which"),
        (502, "does not reach it: is the receiver running?"),
        (503, "if this goes on, see its load and its log"),
        (413, "raise the receiver's size limit, or lower `max_message_size`"),
        (415, "check `compression`, `format`"),
    ],
)
def test_what_passes_by_itself_and_what_is_too_large_say_where_to_look(
    status: int, words: str, entra: Entra, tmp_path: Path
) -> None:
    with HttpReceiver(lambda request: Answer(status, "no")) as server:
        names = set(_OVER_HTTP) - ({"splunk-hec"} if status == 415 else set())
        said = said_by({n: at(server.port, n, entra=entra.url) for n in names}, tmp_path)
    all_contain(said, words)
    all_contain(said, str(status))


def test_a_busy_splunk_and_a_busy_shard_say_where_to_look(tmp_path: Path) -> None:
    item = {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}
    with (
        HttpReceiver(lambda request: collector_said(9)) as splunk,
        HttpReceiver(lambda r: Answer(200, json.dumps({"items": [{"create": item}]}))) as elastic,
    ):
        sinks = {n: at(s.port, n) for n, s in (("splunk-hec", splunk), ("elasticsearch", elastic))}
        said = said_by(sinks, tmp_path)
    assert "Server is busy (code 9); Splunk's queues are full" in said["splunk-hec"]
    assert "raise its limit or quota" in said["elasticsearch"]


# -- a proxy in the way -------------------------------------------------------


class RefusingProxy(ThreadingHTTPServer):
    """A proxy that answers everything, tunnels too, with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(("127.0.0.1", 0), _Refusing)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def server_close(self) -> None:
        self.shutdown()
        self._thread.join()
        super().server_close()


class _Refusing(BaseHTTPRequestHandler):
    server: RefusingProxy

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_CONNECT()

    def do_CONNECT(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The test says what happened."""


@pytest.mark.parametrize(
    ("status", "plain", "tunnel"),
    [
        (407, "write HTTP_PROXY=http://USER:PASSWORD@PROXY:PORT where the relay is started",
         "write HTTPS_PROXY=http://USER:PASSWORD@PROXY:PORT where the relay is started"),
        (403, "let the proxy of HTTP_PROXY allow the receiver, or name the receiver in NO_PROXY",
         "let the proxy of HTTPS_PROXY allow the receiver, or name the receiver in NO_PROXY"),
        (502, "502", "can the proxy of HTTPS_PROXY reach the receiver"),
    ],
)  # fmt: skip
def test_a_proxy_in_the_way_is_named_by_its_variable(
    status: int, plain: str, tunnel: str, closed_port: int, tmp_path: Path
) -> None:
    names = ("http", "splunk-hec", "elasticsearch", "otlp")
    with RefusingProxy(status) as proxy:
        variables = {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": ""}
        sinks = {name: at(closed_port, name) for name in names}
        all_contain(said_by(sinks, tmp_path, **variables), plain)
        sinks = {name: at(closed_port, name, tls={}) for name in names}
        all_contain(said_by(sinks, tmp_path, **variables), tunnel)


def test_a_proxy_that_is_not_there_or_has_no_address_is_named_without_its_password(
    closed_port: int, tmp_path: Path
) -> None:
    sinks = {"plain": at(1, "http"), "secured": at(1, "http", tls={})}
    for address, words in (
        (f"127.0.0.1:{closed_port}", "cannot connect to the proxy of {} ({}): Connection refused"),
        ("nowhere.invalid:3128", "cannot resolve the proxy of {} ({}): "),
    ):
        proxy = f"http://user:hunter2@{address}"
        said = said_by(sinks, tmp_path, HTTP_PROXY=proxy, https_proxy=proxy, NO_PROXY="")
        assert "hunter2" not in str(said)
        assert "receiver running" not in str(said)
        for name, variable in (("plain", "HTTP_PROXY"), ("secured", "https_proxy")):
            assert said[name].startswith(words.format(variable, address))
            assert f"is the proxy running there? Correct {variable}, or name" in said[name]


def test_a_proxy_that_never_answers_is_named_by_its_variable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        sinks = {name: at(1, "http", tls=tls) for name, tls in (("plain", None), ("secured", {}))}
        said = said_by(sinks, tmp_path, HTTP_PROXY=f"http://{address}", HTTPS_PROXY=address)
    for name, variable in (("plain", "HTTP_PROXY"), ("secured", "HTTPS_PROXY")):
        assert f"through the proxy of {variable} ({address}) within 2s" in said[name]
        assert "is the proxy alive" in said[name]


@pytest.mark.parametrize(
    ("proxy", "trouble"),
    [
        ("http://user:hunter2@127.0.0.1:abc", "is not a proxy's address"),
        ("http://127.0.0.1:99999", "is not a proxy's address"),
        ("http://:3128", "is not a proxy's address"),
        ("ftp://127.0.0.1:3128", "is not a proxy's address"),
        ("http://[::1", "is not a proxy's address"),
        (
            "socks5://127.0.0.1:1080",
            "names a SOCKS proxy; this relay supports HTTP proxies",
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_says_what_to_set(
    proxy: str, trouble: str, closed_port: int, entra: Entra, tmp_path: Path
) -> None:
    sinks = {name: at(closed_port, name, entra=entra.url) for name in _OVER_HTTP}
    said = said_by(sinks, tmp_path, HTTP_PROXY=proxy)
    all_contain(said, f"HTTP_PROXY {trouble}")
    all_contain(said, "set HTTP_PROXY=http://PROXY:PORT where the relay is started, or unset it")
    assert "hunter2" not in str(said)
