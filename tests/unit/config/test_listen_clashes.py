"""Two listeners at one address: a fault with both places, before the kernel says so."""

from __future__ import annotations

import pytest

from siemrelay.config.load import load_text
from siemrelay.core.errors import ConfigurationRefused

TEXT = """\
state_dir: /var/lib/siemrelay
endpoint: {{listen: {endpoint}}}
sources:
  first: {{type: syslog, listen: {first}{tls}}}
  second: {{type: {kind}, listen: {second}}}
sinks: {{siem: {{server: siem.example.com}}}}
"""
TLS = ", tls: {certificate: /etc/hostname}"


def faults(first: str, second: str, *, kind: str = "syslog", endpoint: str = "'off'") -> list[str]:
    text = TEXT.format(
        first=first, second=second, kind=kind, endpoint=endpoint, tls=TLS if "tls:" in first else ""
    )
    try:
        load_text(text, "f.yaml")
    except ConfigurationRefused as refused:
        return [f.located("f.yaml") for f in refused.faults if "already" in f.message]
    return []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tcp://0.0.0.0:514", "tcp://0.0.0.0:514"),
        ("tcp://0.0.0.0:514", "tcp://127.0.0.1:514"),
        ("tcp://127.0.0.1:514", "tcp://0.0.0.0"),
        ("tls://0.0.0.0:514", "tcp://0.0.0.0:514"),
        ("'relp://[::]:2514'", "tcp://10.0.0.1:2514"),
        ("'udp://[::]:514'", "'udp://[::1]:514'"),
        ("tcp://localhost:514", "tcp://127.0.0.1:514"),
        ("tcp://collector:514", "tcp://COLLECTOR:514"),
        ("unix:///run/x.sock", "unixgram:///run/x.sock"),
        ("[udp://0.0.0.0:514, tcp://0.0.0.0:514]", "tcp://0.0.0.0:514"),
    ],
)
def test_two_sources_at_one_address_are_a_fault_with_both_places(first: str, second: str) -> None:
    (fault,) = faults(first, second)
    assert fault.startswith("f.yaml:5:")
    assert "source `first` (line 4) listens on " in fault


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("tcp://0.0.0.0:514", "udp://0.0.0.0:514"),
        ("tcp://0.0.0.0:514", "tcp://0.0.0.0:515"),
        ("tcp://10.0.0.1:514", "tcp://10.0.0.2:514"),
        ("tcp://0.0.0.0:514", "'tcp://[::1]:514'"),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
        ("unix:///run/x.sock", "unix:///run/y.sock"),
    ],
)
def test_addresses_that_the_kernel_allows_side_by_side_are_no_fault(
    first: str, second: str
) -> None:
    assert faults(first, second) == []


def test_one_source_that_names_a_port_twice_is_a_fault_at_the_second() -> None:
    (fault,) = faults("[tcp://0.0.0.0:514, relp://127.0.0.1:514]", "udp://0.0.0.0:9")
    assert "sources.first.listen[1]: source `first` (line 4)" in fault


def test_a_webhook_at_the_endpoints_port_is_a_fault_with_both_places() -> None:
    (fault,) = faults(
        "udp://0.0.0.0:514", "http://0.0.0.0:9614/", kind="http", endpoint="127.0.0.1:9614"
    )
    assert "sources.second.listen: the endpoint (line 2) listens on port 9614" in fault


def test_a_source_at_the_endpoints_default_port_learns_that_it_is_the_default() -> None:
    text = TEXT.format(
        first="tcp://127.0.0.1:9614", second="udp://0.0.0.0:9", kind="syslog", endpoint="", tls=""
    ).replace("endpoint: {listen: }\n", "")
    with pytest.raises(ConfigurationRefused, match=r"the endpoint \(by default\) listens"):
        load_text(text, "f.yaml")


def test_sources_of_different_pools_may_share_an_address() -> None:
    assert faults("tcp://0.0.0.0:514, pool: a", "tcp://0.0.0.0:514, pool: b") == []
    assert len(faults("tcp://0.0.0.0:514, pool: [a, b]", "tcp://0.0.0.0:514, pool: b")) == 1


SENDING = """\
state_dir: /var/lib/siemrelay
sources: {{in: {{type: {kind}, listen: {listen}}}, other: {{type: journal}}}}
sinks: {{out: {sink}}}
"""


def returns(listen: str, sink: str, kind: str = "syslog") -> list[str]:
    """The faults of a sink that sends to its own relay."""
    try:
        load_text(SENDING.format(listen=listen, sink=sink, kind=kind), "f.yaml")
    except ConfigurationRefused as refused:
        return [f.located("f.yaml") for f in refused.faults if "without end" in f.message]
    return []


@pytest.mark.parametrize(
    ("listen", "sink"),
    [
        ("udp://0.0.0.0:5514", "{server: 127.0.0.1, port: 5514}"),
        ("tcp://127.0.0.1:5514", "{server: 'localhost:5514', protocol: tcp}"),
        ("tcp://10.0.0.1:5514", "{server: [siem, '10.0.0.1:5514'], protocol: tcp}"),
        ("'relp://[::]:2514'", "{server: '::1', port: 2514, protocol: relp}"),
        ("unix:///run/x.sock", "{protocol: unix, path: /run/x.sock}"),
    ],
)
def test_a_sink_that_sends_to_a_source_of_its_relay_is_a_fault(listen: str, sink: str) -> None:
    (fault,) = returns(listen, sink)
    assert fault.startswith("f.yaml:3:")
    assert "source `in` listens there" in fault


def test_a_sink_that_posts_to_a_webhook_of_its_relay_is_a_fault() -> None:
    assert returns("'http://0.0.0.0:8080/'", "{url: 'http://localhost:8080/x'}", "http")


@pytest.mark.parametrize(
    ("listen", "sink"),
    [
        ("udp://0.0.0.0:5514", "{server: 127.0.0.1, port: 5514, protocol: tcp}"),
        ("udp://0.0.0.0:5514", "{server: 127.0.0.1, port: 5515}"),
        ("udp://0.0.0.0:5514", "{server: 10.0.0.1, port: 5514}"),  # maybe another machine's
        ("udp://0.0.0.0:5514", "{server: 127.0.0.1, port: 5514, sources: other}"),
        ("udp://0.0.0.0:5514", "{server: 127.0.0.1, port: 5514, enabled: no}"),
    ],
)
def test_a_sink_that_sends_elsewhere_or_something_else_is_no_fault(listen: str, sink: str) -> None:
    assert returns(listen, sink) == []
