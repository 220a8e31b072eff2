"""A file → the configuration, or every fault at once at its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from siemrelay import registry
from siemrelay.config.describe import field_names
from siemrelay.config.load import Loaded, load, load_text
from siemrelay.config.models import SinkConfig, SourceConfig
from siemrelay.config.option_models import sink_model, source_model
from siemrelay.core.errors import ConfigurationRefused
from siemrelay.formats.cef import CefOptions
from siemrelay.products.product import BUILT_IN
from siemrelay.sinks.stream.tcp import TcpOptions

SOURCE = "sources:\n  a: {type: file, path: /var/log/a.json}\n"
SINK = "sinks:\n  s: {server: siem.example.com}\n"


def loaded(text: str, **environment: str) -> Loaded:
    return load_text(text, "f.yaml", environment)


def faults(text: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigurationRefused) as refused:
        loaded(text, **environment)
    return [fault.located("f") for fault in refused.value.faults]


def sink_faults(text: str, **environment: str) -> list[str]:
    return faults(f"{SOURCE}sinks:\n  s: {text}\n", **environment)


def test_least_file_has_every_default() -> None:
    config = loaded(SOURCE + SINK).config
    sink = config.sinks["s"]
    assert config.state_dir == Path("/var/lib/siemrelay")
    assert (sink.protocol, sink.format, sink.header, sink.enabled) == (
        "udp",
        "syslog",
        "none",
        True,
    )
    assert (config.buffer.max_size, config.buffer.keep) == (10 << 30, 86400.0)
    assert config.endpoint.address == ("127.0.0.1", 9614)
    assert config.when_full(sink) == "block"
    assert config.sources["a"].decoder == "json"


def test_sink_is_an_instance_of_its_protocols_and_formats_options() -> None:
    sink = loaded(f"{SOURCE}sinks:\n  s: {{server: a, protocol: tcp, format: cef}}\n").config.sinks[
        "s"
    ]
    assert isinstance(sink, TcpOptions)
    assert isinstance(sink, CefOptions)
    assert (sink.framing, sink.vendor, sink.header) == ("newline", "siemrelay", "rfc3164")


@pytest.mark.parametrize(
    "sink",
    ["{server: 'a:514', port: 514}", "{server: ['a:515', b], protocol: tcp, port: 514}",
     "{siem: graylog, server: 'a:12202'}", "{server: '::1', port: 514}"],
)  # fmt: skip
def test_a_port_that_says_the_same_or_that_some_server_needs_is_no_fault(sink: str) -> None:
    assert loaded(f"{SOURCE}sinks:\n  s: {sink}\n").config.sinks


@pytest.mark.parametrize("path", ["a.json", "[/var/log/a.json, a.json]"])
def test_a_relative_path_of_a_source_is_a_fault(path: str) -> None:
    (fault,) = faults(f"sources:\n  a: {{type: file, path: {path}}}\n{SINK}")
    assert fault.endswith("write an absolute path, one that begins with /")


def test_url_implies_http_json_and_no_header() -> None:
    sink = loaded(f"{SOURCE}sinks:\n  s: {{url: 'https://a/', format: cef}}\n").config.sinks["s"]
    assert (sink.protocol, sink.format, sink.header) == ("http", "cef", "none")
    sink = loaded(f"{SOURCE}sinks:\n  s: {{url: 'https://a/'}}\n").config.sinks["s"]
    assert sink.format == "json"


def having(kinds: Mapping[str, Any], option: str) -> str:
    return ", ".join(name for name, kind in kinds.items() if option in kind.options.model_fields)


def one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(f'`{name}`' for name in names)}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{server: a, prot: 1}",
         "f:4:18: sinks.s.prot: unknown key `prot`; did you mean `protocol`?"),
        ("{protocol: splunk-hec, url: 'http://h:8088', acknowledge: yes}",
         "f:4:51: sinks.s.acknowledge: unknown key `acknowledge`; did you mean "
         "`indexer_acknowledgement`?"),
        ("{server: a, framing: nul}",
         "f:4:27: sinks.s.framing: expected one of `none`, `gelf`"),
        ("{server: a, chunk_size: 8KiB}",
         "f:4:30: sinks.s.chunk_size: needs `framing: gelf`: only Graylog joins datagrams"),
        ("{server: 'a:515', port: 514}",
         "f:4:24: sinks.s.port: `server` names port 515 already: leave one of the two out"),
        ("{server: ['a:515', 'b:516'], protocol: tcp, port: 514}",
         "f:4:50: sinks.s.port: `server` names port 515 already: leave one of the two out"),
        ("{protocol: unix, path: log.sock}",
         "f:4:29: sinks.s.path: write an absolute path, one that begins with /"),
        ("{protocol: file, path: audit.json}",
         "f:4:29: sinks.s.path: write an absolute path, one that begins with /"),
        ("{server: a, protocol: tls, tls: {ca: ca.pem}}",
         "f:4:43: sinks.s.tls.ca: write an absolute path, one that begins with /"),
        ("{server: a, protocol: relp, framing: nul}",
         "f:4:34: sinks.s.framing: `framing` is not used by protocol relp; "
         f"it belongs to {having(registry.PROTOCOLS, 'framing')}"),
        ("{url: 'http://a/', server: a}",
         "f:4:25: sinks.s.server: `server` is not used by protocol http; "
         f"it belongs to {having(registry.PROTOCOLS, 'server')}"),
        ("{server: a, vendor: x}",
         "f:4:18: sinks.s.vendor: `vendor` is not used by format syslog; "
         f"it belongs to {having(registry.FORMATS, 'vendor')}"),
        ("{server: a, header: none}",
         "f:4:18: sinks.s.header: `header` is not used by format syslog; "
         f"it belongs to {', '.join(n for n, kind in registry.FORMATS.items() if kind.headers)}"),
        ("{siem: qradar, server: b, host: a}",
         "f:4:32: sinks.s.host: `host` is not used by protocol tcp; it belongs to splunk-hec"),
        ("{siem: elastic, url: 'https://a', hosts: [b]}",
         "f:4:40: sinks.s.hosts: unknown key `hosts`; did you mean `url`?"),
        ("{type: splunk_hec, url: 'https://a'}",
         "f:4:7: sinks.s.type: unknown key `type`; did you mean `protocol`?"),
        ("{url: 'https://a', exclude: [b]}",
         "f:4:25: sinks.s.exclude: unknown key `exclude`; did you mean `events`?"),
        ("{server: a, protocol: tls, tls: {insecure: yes}}",
         "f:4:39: sinks.s.tls.insecure: unknown key `insecure`; did you mean `verify`?"),
        ("{protocol: kafka, brokers: [a], topic: 'a b'}",
         "f:4:45: sinks.s.topic: must match the pattern ^[A-Za-z0-9._-]+$"),
        ("{protocol: file, path: /a, max_size: 1GiB}",
         "f:4:33: sinks.s.max_size: unknown key `max_size`; did you mean `rotate_size`?"),
        ("{server: a, protocol: ssl}",
         "f:4:28: sinks.s.protocol: unknown protocol `ssl`; did you mean `tls`?; "
         f"expected {one_of(registry.PROTOCOLS)}"),
        ("{server: a, protocol: syslog}",
         "f:4:28: sinks.s.protocol: unknown protocol `syslog`; `syslog` is a format: write "
         "`format: syslog` and the protocol that carries it; "
         f"expected {one_of(registry.PROTOCOLS)}"),
        ("{server: a, protocol: qradar}",
         "f:4:28: sinks.s.protocol: unknown protocol `qradar`; did you mean `siem: qradar`?; "
         f"expected {one_of(registry.PROTOCOLS)}"),
        ("{server: 'tcp://a:514'}",
         "f:4:15: sinks.s.server: write the name or address alone, like siem.example.com:6514; "
         "`protocol` says how it is reached"),
        ("{server: 10.0.0.256}",
         "f:4:15: sinks.s.server: 10.0.0.256 is not an address: its numbers are from 0 to 255"),
        ("{server: a, where: {severity: '>5'}}",
         "f:4:36: sinks.s.where.severity: no event has the severity '>5'; `severity` is a whole "
         "number from 0 to 10: write 7, or {min: 7}"),
        ("{server: a, where: {severity: {min: 11}}}",
         "f:4:36: sinks.s.where.severity: no event has such a severity; `severity` is from 0 to "
         "10"),
        ("{server: a, where: {outcome: {not: failed}}}",
         "f:4:35: sinks.s.where.outcome: no event has the outcome 'failed'; it is one of success, "
         "failure, unknown"),
        ("{server: a, where: {time: {min: 5}}}",
         "f:4:32: sinks.s.where.time: `time` is not a number: `min` and `max` do not fit it"),
        ("{server: a, where: {attributes.a: {min: 5, max: 3}}}",
         "f:4:40: sinks.s.where.attributes.a: `min` is above `max`: no event fits"),
        ("{server: a, sample: [{where: {outcome: fail}, one_in: 3}]}",
         "f:4:45: sinks.s.sample[0].where.outcome: no event has the outcome 'fail'; it is one of "
         "success, failure, unknown"),
        ("{server: a, protocol: tpc}",
         "f:4:28: sinks.s.protocol: unknown protocol `tpc`; did you mean `tcp`?; "
         f"expected one of {', '.join(f'`{name}`' for name in registry.PROTOCOLS)}"),
        ("{server: a, port: 99999}", "f:4:24: sinks.s.port: must be at most 65535"),
        ("{server: a, port: x}", "f:4:24: sinks.s.port: expected a whole number, found text"),
        ("{server: 5}",
         "f:4:15: sinks.s.server: expected text, found a number; put it in quotes"),
        ("{server: [a]}", "f:4:15: sinks.s.server: expected text, found a list"),
        ("{server: $HOST}",
         "f:4:15: sinks.s.server: an environment variable is written ${NAME}, with braces"),
        ("{server: “a”}",
         "f:4:15: sinks.s.server: write a name or address, maybe with a port: "
         'siem.example.com:6514; column 15 of line 4 has U+201C, which looks like `"`: type that'),
        ("{server: a, events: all}",
         "f:4:26: sinks.s.events: unknown event type 'all'; write `Any Audit Record` for all "
         "events"),
        ("{server: a, where: [severity]}",
         "f:4:25: sinks.s.where: expected `key: value` lines below it, found a list"),
        ("{server: a, retry: 5}",
         "f:4:25: sinks.s.retry: expected `key: value` lines below it, found a number; the keys "
         "are initial, max"),
        ("{server: a, sample: 0.1}",
         "f:4:26: sinks.s.sample: expected a whole number, found a fraction"),
        ("{server: a, enabled: maybe}", "f:4:27: sinks.s.enabled: expected yes or no, found text"),
        ("{server: a, when_full: drop}",
         "f:4:29: sinks.s.when_full: expected one of `block`, `drop_oldest`; "
         "did you mean `drop_oldest`?"),
        ("{server: a, retry: {initial: 5}}",
         "f:4:35: sinks.s.retry.initial: a number needs a unit: write 5s or 5h"),
        ("{server: a, retry: {initial: soon}}",
         "f:4:35: sinks.s.retry.initial: write a number and a unit, like 500ms, 10s or 24h"),
        ("{server: a, retry: {max: 5min}}",
         "f:4:31: sinks.s.retry.max: unknown unit 'min'; write 5m"),
        ("{server: a, retry: {max: 5y}}",
         "f:4:31: sinks.s.retry.max: unknown unit 'y'; the units are ms, s, m, h, d, w"),
        ("{server: a, max_message_size: 10K}",
         "f:4:36: sinks.s.max_message_size: unknown unit 'K'; write 10KiB"),
        ("{server: a, max_message_size: '8192'}",
         "f:4:36: sinks.s.max_message_size: a number needs a unit: write 8192B, 8192KiB or "
         "8192MiB"),
        ("{server: a, retry: {max: 10ms}}",
         "f:4:31: sinks.s.retry.max: must not be shorter than `initial`"),
        ("{server: a, retry: {mx: 1s}}",
         "f:4:26: sinks.s.retry.mx: unknown key `mx`; did you mean `max`?"),
        ("{server: a, max_message_size: 100B}",
         "f:4:36: sinks.s.max_message_size: must be at least 480B"),
        ("{server: a, protocol: tcp, timeout: 0s}",
         "f:4:42: sinks.s.timeout: must be more than 0s"),
        ("{url: 'http://a/', batch: {max_wait: 2m}}",
         "f:4:43: sinks.s.batch.max_wait: must be at most 1m"),
        ("{url: 'http://a:abc/'}",
         "f:4:12: sinks.s.url: the port in the address must be from 1 to 65535"),
        ("{url: 'http://a..b/'}",
         "f:4:12: sinks.s.url: the host in it cannot be a host name"),
        ('{url: "http://a/\\n"}',
         "f:4:12: sinks.s.url: contains a line break or an invisible character"),
        ("{url: 'http://a/', oauth: {token_url: a, client_id: a, client_secret: a}}",
         "f:4:44: sinks.s.oauth.token_url: write a whole address, like "
         "https://siem.example.com:8443/events"),
        ("{}", "f:4:3: sinks.s.server: is required: the receiver's name or address "
         "(or `url` for http)"),
        ("{protocol: tcp}",
         "f:4:3: sinks.s.server: is required: text or list of text (host name or address of the "
         "receiver, or a list of them, tried in order; `name:port` where one has a port of its "
         "own)"),
        ("{protocol: tcp, server: []}", "f:4:30: sinks.s.server: must not be empty"),
        ("{protocol: tls, server: [a, 'b:99999']}", "f:4:34: sinks.s.server[1]: write a name or "
         "address, maybe with a port: siem.example.com:6514"),
        ("{server: 'a b'}", "f:4:15: sinks.s.server: write a name or "
         "address, maybe with a port: siem.example.com:6514"),
        ("{server: 'a,b'}", "f:4:15: sinks.s.server: write a name or "
         "address, maybe with a port: siem.example.com:6514"),
        ("{server: 'a:b:c'}", "f:4:15: sinks.s.server: write a name or "
         "address, maybe with a port: siem.example.com:6514"),
        ("{url: 'http://x:99999/y'}",
         "f:4:12: sinks.s.url: the port in the address must be from 1 to 65535"),
        ("{url: 'http://x:5y/'}",
         "f:4:12: sinks.s.url: the port in the address must be from 1 to 65535"),
        ("{url: 'http://x y/'}", "f:4:12: sinks.s.url: write a whole address, like "
         "https://siem.example.com:8443/events"),
        ("{protocol: relp, server: a, window: 0}", "f:4:42: sinks.s.window: must be at least 1"),
        ("", "f:4:5: sinks.s: expected `key: value` lines below it, found nothing"),
        ("[a]", "f:4:6: sinks.s: expected `key: value` lines below it, found a list"),
    ],
)  # fmt: skip
def test_sink_fault_is_located_and_says_what_was_expected(text: str, fault: str) -> None:
    assert sink_faults(text) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{path: /a}", f"f:2:3: sources.s.type: is required: {one_of(registry.SOURCES)}"),
        ("{type: fil, path: /a}",
         "f:2:13: sources.s.type: unknown type `fil`; did you mean `file`?; expected "
         f"{one_of(registry.SOURCES)}"),
        ("{type: file}", "f:2:3: sources.s.path: is required: text or list of text (glob, or list "
         "of globs, of the files to follow)"),
        ("{type: file, path: /a, product: al}", "f:2:38: sources.s.product: unknown product `al`; "
         f"did you mean `alm`?; expected {one_of(BUILT_IN)}"),
        ("{type: file, path: /a, fields: {actr.name: x}}", "f:2:38: sources.s.fields.actr.name: "
         "unknown event field `actr.name`; did you mean `actor.name`?"),
        ("{type: splunk-hec, listen: 'http://h:1', tokens: abcdef}", "f:2:55: sources.s.tokens: "
         "expected a list, found text; put it in brackets: [...]"),
        ("{type: file, path: /a, fields: {type: 5}}", "f:2:44: sources.s.fields.type: "
         "expected text, found a number; put it in quotes"),
        ("{type: http_poll, url: 'http://a/', authorization: 'Bearer é'}", "f:2:57: "
         "sources.s.authorization: a header cannot carry this text: it has something other than "
         "visible ASCII at character 8; take that out"),
        *(("{type: syslog, listen: " + listen + "}", "f:2:29: sources.s.listen: which protocol? "
           f"write udp://{place} or tcp://{place}")
          for listen, place in (("514", "0.0.0.0:514"), ("':514'", "0.0.0.0:514"),
                                ("10.0.0.1:514", "10.0.0.1:514"), ("'[::]:514'", "[::]:514"))),
        ("{type: http, listen: 8443}", "f:2:27: sources.s.listen: with TLS or without? "
         "write https://0.0.0.0:8443 or http://0.0.0.0:8443"),
        ("{type: file, path: /a, enabled: no}", "f:2:29: sources.s.enabled: unknown key `enabled`"),
    ],
)  # fmt: skip
def test_source_fault_is_located_and_says_what_was_expected(text: str, fault: str) -> None:
    (found,) = faults(f"sources:\n  s: {text}\n{SINK}")
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "f:1:1: the file is empty"),
        ("# nothing\n", "f:1:1: the file is empty"),
        ("- a\n", "f:1:1: expected `key: value` lines"),
        ("hello\n", "f:1:1: expected `key: value` lines"),
        (SINK, "f:1:1: sources: is required"),
        (SOURCE, "f:1:1: sinks: is required"),
        (f"{SOURCE}sinks: {{}}\n", "f:3:8: sinks: must not be empty"),
        (f"{SOURCE}sinks:\n", "f:3:7: sinks: expected `key: value` lines below it, found nothing"),
        (f"{SOURCE}{SINK}sink: {{}}\n", "f:5:1: sink: unknown key `sink`; did you mean `sinks`?"),
        (f"{SOURCE}{SINK}state_dir: here\n", "f:5:12: state_dir: write an absolute path"),
        (f"{SOURCE}{SINK}buffer: {{max_size: 10}}\n", "f:5:20: buffer.max_size: a number needs"),
        (f"{SOURCE}{SINK}buffer: {{max_size: 1KiB}}\n", "f:5:20: buffer.max_size: must be at"),
        (f"{SOURCE}{SINK}buffer: {{kep: 1h}}\n",
         "f:5:10: buffer.kep: unknown key `kep`; did you mean `keep`?"),
        (f"{SOURCE}{SINK}endpoint: {{listen: here}}\n", "f:5:20: endpoint.listen: write HOST:PORT"),
        (f"{SOURCE}{SINK}endpoint: {{listen: '::1:9'}}\n", "f:5:20: endpoint.listen: put an IPv6"),
        (f"{SOURCE}{SINK}endpoint: {{listen: 8080}}\n",
         "f:5:20: endpoint.listen: write HOST:PORT, like 127.0.0.1:8080, or off"),
        (f"{SOURCE}{SINK}endpoint: {{listen: yes}}\n",
         "f:5:20: endpoint.listen: write HOST:PORT, like 127.0.0.1:9614, or off"),
        (f"{SOURCE}{SINK}endpoint: {{listen: 'a:70000'}}\n", "f:5:20: endpoint.listen: the port"),
        (f"{SOURCE}{SINK}event_types: {{A: {{severity: 11}}}}\n",
         "f:5:29: event_types.A.severity: must be at most 10"),
        (f"{SOURCE}{SINK}event_types: [A, 5]\n", "f:5:14: event_types: expected"),
        (f"{SOURCE}sinks:\n  'a b': {{server: a}}\n", "f:4:3: sinks.a b: a name is 1 to 64"),
    ],
)  # fmt: skip
def test_fault_outside_the_parts_is_located(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


@pytest.mark.parametrize("choice", ["protocol: foo", "format: foo"])
def test_what_means_the_same_everywhere_is_judged_beside_an_unknown_choice(choice: str) -> None:
    port, unknown = sink_faults(f"{{server: h, port: 70000, {choice}}}")
    assert port == "f:4:24: sinks.s.port: must be at most 65535"
    assert f"sinks.s.{choice}"[:10] in unknown


@pytest.mark.parametrize("server", ["::1", "fe80::1%eth0", "[::1]:5", "my_host", "bücher.example"])
def test_a_name_or_address_as_it_may_be_is_no_fault(server: str) -> None:
    assert loaded(f"{SOURCE}sinks:\n  s: {{server: '{server}'}}\n").config.sinks


def test_what_only_one_type_has_is_judged_beside_an_unknown_one() -> None:
    unknown, path = faults(f"sources:\n  s: {{type: fil, path: 5}}\n{SINK}")
    assert "unknown type `fil`; did you mean `file`?" in unknown
    assert path == "f:2:24: sources.s.path: expected text, found a number; put it in quotes"


def test_a_key_of_another_protocol_that_stands_for_a_missing_one_is_answered_with_that() -> None:
    required, host = sink_faults("{protocol: tcp, host: a}")
    assert "sinks.s.server: is required" in required
    assert host.endswith("`host` is not used by protocol tcp; did you mean `server`?")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("queue.type: LinkedList", "leave it out: every record is in the disk buffer"),
        ("action.resumeRetryCount: -1", "leave it out: delivery is retried for ever"),
        ("match: '*'", "did you mean `events`?"),
        ("tls.verify: off", "write `verify` below `tls:`"),
        ("uri: /a", "did you mean `url`, of http, splunk-hec, elasticsearch, otlp?"),
        ("name: splunk", "did you mean `protocol`?"),
        ("StreamDriverMode: 1", "leave it out: `protocol: tls` and its block `tls:`"),
        ("http_user: ada", "did you mean `basic`, of http, splunk-hec, elasticsearch, otlp?"),
    ],
)
def test_a_key_of_another_relay_is_answered_with_what_does_the_same_here(
    text: str, hint: str
) -> None:
    (fault,) = sink_faults(f"{{protocol: tls, server: a, {text}}}")
    assert f"unknown key `{text.partition(': ')[0]}`; {hint}" in fault


def test_a_sink_whose_protocol_is_called_type_is_judged_by_it() -> None:
    found = sink_faults("{type: kafka, bootstrap_servers: [a], topic: t}")
    assert [fault.partition(": ")[2] for fault in found] == [
        "sinks.s.brokers: is required: list of text (HOST:PORT of some brokers; the others are "
        "found by them)",
        "sinks.s.type: unknown key `type`; did you mean `protocol: kafka`?",
        "sinks.s.bootstrap_servers: unknown key `bootstrap_servers`; did you mean `brokers`?",
    ]


def test_a_test_around_fields_is_answered_with_its_place_below_one() -> None:
    inner = "attributes.env: prod"
    where, key = sink_faults(f"{{server: a, where: {{not: {{{inner}}}}}}}")
    assert where.endswith("sinks.s.where.not: `not` stands below a field: `outcome: {not: ...}`")
    assert key.endswith("unknown key `attributes.env`")


def test_a_key_of_another_relay_is_not_answered_with_one_that_only_sounds_like_it() -> None:
    _, head, db = faults(f"sources:\n  s: {{type: tail, read_from_head: on, db: /x}}\n{SINK}")
    assert "`read_from_head`; did you mean `start_at`, of file, redis, kafka, " in head
    assert db.endswith("unknown key `db`; leave it out: positions are in `state_dir`")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{path: “/a”}", 'column 13 of line 4 has U+201C, which looks like `"`: type that'),
        ("{server: a, sample: \u20131}", "column 26 of line 4 has U+2013, which looks like `-`"),
        (
            "\n    server:\u00a0a\n    port: 1",
            "column 12 of line 5 has U+00A0, which looks like a ",
        ),
        ("\n    server\uff1a a", "column 11 of line 5 has U+FF1A, which looks like `:`"),
        ("\n    ser\u200bver: a", "column 8 of line 5 has U+200B, which is invisible: take it out"),
    ],
)
def test_a_fault_points_at_a_character_that_only_looks_like_one_of_yaml(
    text: str, hint: str
) -> None:
    assert any(hint in fault for fault in sink_faults(text))


def test_a_lookalike_in_another_value_explains_no_fault() -> None:
    (fault,) = sink_faults("{server: a, port: 70000, pool: 'a\u2013b'}")
    assert fault == "f:4:24: sinks.s.port: must be at most 65535"


def test_sources_as_a_list_are_answered_with_the_form_that_they_have() -> None:
    (fault,) = faults(f"sources:\n  - {{name: a, type: file, path: /a}}\n{SINK}")
    assert "found a list; a name of your own goes before each: `NAME:`" in fault


def test_an_unknown_protocol_does_not_ask_for_a_server() -> None:
    (found,) = sink_faults("{protocol: flie}")
    assert "unknown protocol `flie`; did you mean `file`?" in found


def test_every_fault_of_a_file_is_reported_at_once_and_in_order() -> None:
    found = faults(
        "sources:\n  a: {type: fil}\n  b: {type: file, path: 5, produkt: alm}\n"
        "sinks:\n  s: {server: a, prot: 1, port: x}\n  t: {server: b, events: [Nothing Of It]}\n"
        "  t: {server: c}\n  u: {url: '${NOPE}'}\nlog: {level: loud}\n"
    )
    assert [fault.split(": ")[:2] for fault in found] == [
        ["f:2:13", "sources.a.type"],
        ["f:3:25", "sources.b.path"],
        ["f:3:28", "sources.b.produkt"],
        ["f:5:18", "sinks.s.prot"],
        ["f:5:33", "sinks.s.port"],
        ["f:6:27", "sinks.t.events[0]"],
        ["f:7:3", "sinks.t"],
        ["f:8:12", "sinks.u.url"],
        ["f:9:14", "log.level"],
    ]


@pytest.mark.parametrize(
    ("events", "at"),
    [
        ("Acount Provisioned", "f:4:26: sinks.s.events:"),
        ("[User Logged In, Acount Provisioned]", "f:4:43: sinks.s.events[1]:"),
        ("{exclude: [Acount Provisioned]}", "f:4:37: sinks.s.events.exclude[0]:"),
    ],
)
def test_unknown_event_points_at_its_own_entry(events: str, at: str) -> None:
    (fault,) = sink_faults(f"{{server: a, events: {events}}}")
    assert fault.startswith(at)
    assert "'Account Provisioned'" in fault


def test_declared_types_may_be_chosen_by_name_and_category() -> None:
    text = (
        f"{SOURCE}sinks:\n  s: {{server: a, events: [Door Opened, 'category:doors', Plain]}}\n"
        "event_types:\n  Door Opened: {category: doors, severity: 7}\n  Plain:\n"
    )
    found = loaded(text).config.catalogue().find("door opened")
    assert found is not None
    assert (found.category, found.severity) == ("doors", 7)
    listed = loaded(f"{SOURCE}{SINK}event_types: [Door Opened]\n").config.catalogue()
    assert listed.find("Door Opened") is not None


def test_a_word_means_in_a_sources_records_what_it_means_to_its_own_product() -> None:
    config = loaded(
        "sources:\n  web: {type: stdin}\n  linux: {type: file, path: /a, product: auditd}\n"
        "sinks:\n  s: {server: a, events: [LOGIN, Door Opened]}\nevent_types: [Door Opened]\n"
    ).config
    assert config.catalogue_for("auditd").canonical("login") == "LOGIN"
    assert config.catalogue_for("generic").find("login") is None
    assert config.catalogue_for("generic").find("door opened") is not None
    assert config.catalogue().find("login") is not None


def test_yaml_off_turns_the_endpoint_off() -> None:
    for word in ("off", "'off'", "no"):
        text = f"{SOURCE}{SINK}endpoint: {{listen: {word}}}\n"
        assert loaded(text).config.endpoint.address is None


def test_reference_can_stand_for_a_number_or_a_switch() -> None:
    text = f"{SOURCE}sinks:\n  s: {{server: a, port: '${{PORT}}', enabled: '${{ON}}'}}\n"
    sink = loaded(text, PORT="1514", ON="no").config.sinks["s"]
    assert isinstance(sink, SinkConfig)
    assert (sink.model_dump()["port"], sink.enabled) == (1514, False)


def test_unset_reference_is_complained_about_once() -> None:
    (fault,) = sink_faults("{url: 'http://a/', authorization: '${TOKEN}'}")
    assert "environment variable TOKEN is not set" in fault


@pytest.mark.parametrize(
    "text",
    [
        "{server: a, port: '${S}'}",
        "{server: a, protocol: '${S}'}",
        "{server: a, events: '${S}'}",
        "{server: a, retry: {initial: '${S}'}}",
        "{server: a, format: cef, map: {cs1: '${S}'}}",
        "{server: a, when_full: '${S}'}",
        "{url: 'ftp://user:${S}@host/'}",
    ],
)
@pytest.mark.parametrize("secret", ["hunter2hunter2", "5parsecs"])
def test_fault_about_a_secret_does_not_tell_it(text: str, secret: str) -> None:
    assert not any(secret in fault for fault in sink_faults(text, S=secret))


HEADERS = [
    ("{url: 'http://a/', authorization: 'Bearer SECRET\u00e9'}",
     "f:4:40: sinks.s.authorization: a header cannot carry this text: it has something "
     "other than visible ASCII at character 14; take that out"),
    ("{url: 'http://a/', authorization: 'Bearer SECRET '}",
     "f:4:40: sinks.s.authorization: a header cannot carry this text: it begins or ends with a "
     "space or a line break; leave that out"),
    ('{url: "http://a/", headers: {X-Key: "SECRET\\nX-Forged: 1"}}',
     "f:4:42: sinks.s.headers.X-Key: a header cannot carry this text: it has a line break in it; "
     "write it as one line"),
    ("{url: 'http://a/', headers: {X Key: SECRET}}",
     "f:4:35: sinks.s.headers.X Key: write a header's name: ASCII letters, digits and `-`, without "
     "spaces"),
    ("{url: 'http://a/', headers: {Content-Length: '5'}}",
     "f:4:35: sinks.s.headers.Content-Length: the relay sets this header itself; leave it out"),
    ("{url: 'http://a/', authorization_header: 'X Key'}",
     "f:4:47: sinks.s.authorization_header: write a header's name: ASCII letters, digits and `-`, "
     "without spaces"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), HEADERS)
def test_a_header_that_no_request_can_carry_is_a_fault_that_does_not_tell_it(
    text: str, fault: str
) -> None:
    assert sink_faults(text) == [fault]
    assert "SECRET" not in fault


@pytest.mark.parametrize(
    "secret", ["SECRET\u00e9", "SECRET\u2028", "SECRET\n", "\x7fSECRET", "S\nT"]
)
@pytest.mark.parametrize(
    "sink",
    [
        "{url: 'http://a/', authorization: 'Bearer ${S}'}",
        "{url: 'http://a/', headers: {A: '${S}'}}",
    ],
)
def test_a_header_from_a_reference_is_judged_as_one_in_the_file(sink: str, secret: str) -> None:
    (fault,) = sink_faults(sink, S=secret)
    assert "a header cannot carry this text" in fault
    assert "SECRET" not in fault


def test_inline_password_in_a_refused_url_is_not_shown() -> None:
    assert not any("hunter2" in fault for fault in sink_faults("{url: 'ftp://u:hunter2@host/'}"))


def test_loaded_knows_every_secret_and_where_it_is_inline() -> None:
    text = (
        f"{SOURCE}sinks:\n  s: {{url: 'https://a/', authorization: 'Bearer abcdef'}}\n"
        "  t: {url: 'https://a/', authorization: 'Bearer ${TOKEN}', headers: {X: '${KEY}'}}\n"
    )
    found = loaded(text, TOKEN="tokentoken", KEY="keykey")
    assert found.secrets == {
            "Bearer abcdef", "abcdef", "Bearer tokentoken", "tokentoken", "keykey",
        }  # fmt: skip
    assert found.inline_secrets == (("sinks", "s", "authorization"),)
    assert found.shown == {
        ("sinks", "t", "authorization"): "Bearer ${TOKEN}",
        ("sinks", "t", "headers", "X"): "${KEY}",
    }
    assert "tokentoken" not in repr(found.config.sinks["t"].model_dump()["authorization"])


def test_file_that_cannot_be_read_is_a_fault_without_a_line(tmp_path: Path) -> None:
    for path, part in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigurationRefused, match=part) as refused:
            load(path)
        (fault,) = refused.value.faults
        assert fault.line is None


def test_file_in_another_encoding_or_too_large_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(
        ConfigurationRefused, match=r"f\.yaml:2:4: not UTF-8 text; save the file as UTF-8"
    ):
        load(file)
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigurationRefused, match="larger than 1 MiB"):
        load(file)


def test_file_with_a_byte_order_mark_and_crlf_loads(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + (SOURCE + SINK).replace("\n", "\r\n").encode())
    assert list(load(file).config.sinks) == ["s"]


@pytest.mark.parametrize("protocol", list(registry.PROTOCOLS))
@pytest.mark.parametrize("form", list(registry.FORMATS))
def test_no_key_of_a_sink_means_two_things(protocol: str, form: str) -> None:
    names = [
        set(field_names(model))
        for model in (
            SinkConfig,
            registry.PROTOCOLS[protocol].options,
            registry.FORMATS[form].options,
        )
    ]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert set(field_names(sink_model(protocol, form))) == set().union(*names)


@pytest.mark.parametrize("kind", list(registry.SOURCES))
@pytest.mark.parametrize("decoder", list(registry.DECODERS))
def test_no_key_of_a_source_means_two_things(kind: str, decoder: str) -> None:
    names = [
        set(field_names(model))
        for model in (
            SourceConfig,
            registry.SOURCES[kind].options,
            registry.DECODERS[decoder].options,
        )
    ]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert set(field_names(source_model(kind, decoder))) == set().union(*names)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ("type: stdin, decoder: csv, multiline: {indented: yes}", "a.multiline: decoder csv finds"),
        ("type: stdin, multiline: {indented: yes}", "a.multiline: decoder json finds"),
        ("type: stdin, decoder: auditd, encoding: latin-1", "a.encoding: audit logs are UTF-8"),
        ("type: syslog, listen: 'udp://127.0.0.1:5514', decoder: csv", "a.decoder: `columns` is"),
        ("type: stdin, decoder: regex", "a.pattern: is required"),
        ("type: stdin, decoder: csv, delimiter: ';;'", "a.delimiter: "),
    ],
)
def test_a_decoder_and_its_source_must_agree_on_what_a_record_is(settings: str, fault: str) -> None:
    (found,) = faults(f"sources:\n  a: {{{settings}}}\n{SINK}")
    assert fault in found


def test_standard_input_can_be_read_by_one_source_only() -> None:
    (found,) = faults(f"sources:\n  a: {{type: stdin}}\n  b: {{type: stdin}}\n{SINK}")
    assert found.endswith("sources.b.type: only one source can be of type stdin")


CIRCLE = """\
sources:
  a: {{type: file, path: {pattern}{source}}}
sinks:
  s: {{protocol: file, path: {path}{sink}}}
"""


def circle(pattern: str, path: str, source: str = "", sink: str = "") -> str:
    return CIRCLE.format(pattern=pattern, path=path, source=source, sink=sink)


@pytest.mark.parametrize(
    ("pattern", "path", "sink"),
    [
        ("/var/log/a/*.json", "/var/log/a/out.json", ""),
        ("/var/log/a/out.json", "/var/log/a/out.json", ""),
        ("['/x/*', '/var/log/*/o?t.[jk]son']", "/var/log/a/out.json", ""),
        ("/var/log/**", "/var/log/a/b/out.json", ""),
        ("/var/log/**/*.json", "/var/log/out.json", ""),
        ("/var/log/./a/../a/*", "/var/log/a/b/../out.json", ""),
        ("/var/log/a/out-*", "/var/log/a/out.json", ""),
        ("/var/log/a/*.gz", "/var/log/a/out.json", ", compression: gzip"),
    ],
)
def test_a_sink_into_a_file_that_a_source_reads_is_a_fault(
    pattern: str, path: str, sink: str
) -> None:
    (fault,) = faults(circle(pattern, path, sink=sink))
    assert fault.startswith("f:4:29: sinks.s.path: source `a` would read ")
    assert fault.endswith("without end; give the sink a directory that no source's `path` matches")


def test_a_fault_says_that_only_the_rotated_files_would_be_read() -> None:
    (fault,) = faults(circle("/var/log/out-*.json", "/var/log/out.json"))
    assert "its rotated files (out-2" in fault


def test_a_sink_into_a_file_that_a_source_reads_through_a_link_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    text = circle(f"{tmp_path}/real/*.json", f"{tmp_path}/link/out.json")
    (fault,) = faults(text)
    assert "source `a` would read this file" in fault
    (fault,) = faults(circle(f"{tmp_path}/link/*.json", f"{tmp_path}/real/out.json"))
    assert "source `a` would read this file" in fault


@pytest.mark.parametrize(
    "text",
    [
        circle("/var/log/*.json", "/var/log/archive/out.json"),
        circle("/var/log/*.json", "/var/log/.out.json"),
        circle("/var/log/**/*.json", "/var/log/.archive/out.json"),
        circle("/var/log/*/*.json", "/var/log/out.json"),
        circle("/var/log/*.gz", "/var/log/out.json"),
        circle("/var/log/*.json", "/var/log/out.json", sink=", enabled: no"),
        circle("/var/log/*.json", "/var/log/out.json", ", pool: [a, b]", ", pool: c"),
    ],
)
def test_a_sink_into_a_file_that_no_source_reads_is_no_fault(text: str) -> None:
    assert loaded(text).config.sinks


def test_two_sinks_into_one_file_are_a_fault() -> None:
    both = (
        "sinks:\n  s: {{protocol: file, path: /var/a/out.json{0}}}\n"
        "  t: {{protocol: file, path: /var/a/../a/out.json{1}}}\n"
    )
    (fault,) = faults(SOURCE + both.format("", ""))
    assert fault == (
        "f:5:29: sinks.t.path: sink `s` writes to that file already; "
        "give each sink a file of its own"
    )
    assert loaded(SOURCE + both.format(", enabled: no", "")).config.sinks
    assert loaded(SOURCE + both.format(", pool: emea", ", pool: apac")).config.sinks


def test_no_source_may_have_the_name_of_the_relays_own_events() -> None:
    (found,) = faults(f"sources:\n  siemrelay: {{type: stdin}}\n{SINK}")
    assert found.endswith("sources.siemrelay: `siemrelay` names the relay's own events; rename it")
