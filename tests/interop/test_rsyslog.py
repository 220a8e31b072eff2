"""The real daemon to a real rsyslogd: what rsyslog parsed is what was sent, field by field.

Every combination of transport and message sends the same hard events; the header's HOSTNAME tells
them apart.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycef
import pytest

from tests.conftest import MakeDaemon
from tests.support.daemon import Daemon, append, event, tcp, udp, until
from tests.support.events.formats import carried
from tests.support.events.hostile import forged_events
from tests.support.programs.rsyslogd import ParsingRsyslogd

HARD = [
    event(1),
    event(
        2, message='quotes " and \\"escaped\\", brackets ] and [x y="z"], a backslash \\ at last\\'
    ),
    event(3, message="equals = and a=b, pipes | and |x|, both \\= and \\|"),
    event(4, message="Zoë, Ωmega, 漢字, emoji 😀", actor={"name": 'Zoë | ] " = \\', "id": "ü-1"}),
    event(
        5,
        message="a line\nbreak\r\n<13>1 2026-01-01T00:00:00Z forged app - - - two\x00 NUL\x1b[31m",
    ),
    event(6, message="CEF:0|forged|x|1|y|z|9|suser=mallory", type="User\n<13>forged| ] =\\ type"),
    event(7, severity=8, outcome="failure", message="", target={"name": "t\n1", "type": "account"}),
    *forged_events(),
    event(
        9,
        outcome="failure",
        attributes=dict.fromkeys(("outcome", "actor.id", "sequence", "type", "x] y"), "FORGED"),
    ),
    event(8, severity=10, message="x" * 3000, extra={"deep": {"quote": '"]\\'}, "list": [1, "]"]}),
]
PRI = {3: 13 * 8 + 6, 8: 13 * 8 + 3, 10: 13 * 8 + 2}

MESSAGES: dict[str, dict[str, str]] = {
    "syslog": {"format": "syslog"},
    "rfc3164": {"format": "rfc3164", "timezone": "UTC"},
    "cef-rfc3164": {"format": "cef", "header": "rfc3164", "timezone": "UTC"},
    "cef-rfc5424": {"format": "cef", "header": "rfc5424"},
    "json-rfc3164": {"format": "json", "header": "rfc3164", "timezone": "UTC"},
    "json-rfc5424": {"format": "json", "header": "rfc5424"},
}
TRANSPORTS = ("udp", "newline", "octet-counting")
PAIRS = [(transport, message) for transport in TRANSPORTS for message in MESSAGES]

Parsed = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module", params=["imtcp", "imptcp"])
def parsed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parsed:
    """HOSTNAME → what rsyslog parsed of it, in order."""
    directory = tmp_path_factory.mktemp(request.param)
    with ParsingRsyslogd(directory, request.param) as rsyslog:
        daemon = Daemon(directory, dict(sinks(rsyslog)))
        append(daemon.audit, HARD)
        try:
            daemon.start("--drain", ready=False)
            assert daemon.wait() == 0, daemon.log_text
            until(lambda: len(rsyslog.parsed) >= len(HARD) * len(PAIRS))
        finally:
            daemon.close()
    # It has ended, so what it had is written: nothing more than the events may be there.
    found: Parsed = defaultdict(list)
    for record in rsyslog.parsed:
        found[record["hostname"]].append(record)
    return found


def sinks(rsyslog: ParsingRsyslogd) -> Iterator[tuple[str, dict[str, Any]]]:
    for transport, message in PAIRS:
        name = f"{transport}-{message}"
        settings: dict[str, Any] = {**MESSAGES[message], "hostname": name}
        if transport == "udp":
            yield name, udp(rsyslog.udp_port) | settings
        else:
            yield name, tcp(rsyslog.port, framing=transport) | settings


def structured(text: str) -> dict[str, str]:
    """One SD-ELEMENT's parameters, by the grammar of RFC 5424, 6.3; the id first, as `""`."""
    head = re.match(r"\[([!#-<>-\\^-~]{1,32})", text)
    assert head, text
    values, at = {"": head[1]}, head.end()
    parameter = re.compile(r' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\.)*)"')
    while match := parameter.match(text, at):
        assert match[1] not in values, f"{match[1]} comes twice"
        values[match[1]] = re.sub(r'\\(["\\\]])', r"\1", match[2])
        at = match.end()
    assert text[at:] == "]", text[at:]
    return values


def test_every_event_is_one_record_and_nothing_is_forged(parsed: Parsed) -> None:
    assert {name: len(records) for name, records in parsed.items()} == {
        f"{transport}-{message}": len(HARD) for transport, message in PAIRS
    }


@pytest.mark.parametrize(("transport", "message"), PAIRS)
def test_headers_say_severity_facility_and_time(
    parsed: Parsed, transport: str, message: str
) -> None:
    for sent, record in zip(HARD, parsed[f"{transport}-{message}"], strict=True):
        assert record["pri"] == str(PRI[sent["severity"]])
        assert record["syslogfacility"] == "13"
        assert record["syslogseverity"] == str(PRI[sent["severity"]] % 8)
        if MESSAGES[message].get("header") == "rfc3164" or message == "rfc3164":
            # No year and no zone are sent; the rest is the event's own time.
            assert record["timereported"][4:19] == "-03-04T05:06:07"
            assert record["protocol-version"] == "0"
        else:
            assert record["timereported"] == sent["time"]
            assert record["protocol-version"] == "1"
            assert record["app-name"] == "siemrelay"
            assert record["procid"] == "-"
            name = "".join(c for c in sent["type"] if "!" <= c <= "~")[:32]
            assert record["msgid"] == name


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rfc_5424_carries_the_whole_event_in_structured_data(
    parsed: Parsed, transport: str
) -> None:
    for number, (sent, record) in enumerate(
        zip(HARD, parsed[f"{transport}-syslog"], strict=True), 1
    ):
        values = structured(record["structured-data"])
        assert values[""] == "event@32473"
        assert values["sequence"] == str(number)
        assert values["id"] == sent["id"]
        assert values["type"] == carried(sent["type"])
        assert values["severity"] == str(sent["severity"])
        assert values["outcome"] == sent["outcome"]
        assert values["actor.name"] == carried(sent["actor"]["name"])
        assert values.get("actor.id") == sent["actor"].get("id")
        target = sent.get("target", {})
        assert values.get("target.name") == (carried(target["name"]) if target else None)
        said = sent["message"] or sent["type"]
        assert record["msg"] == carried(said)
    extra = structured(parsed[f"{transport}-syslog"][-1]["structured-data"])
    assert extra["attributes.extra.deep.quote"] == '"]\\'
    assert json.loads(extra["attributes.extra.list"]) == [1, "]"]
    forged = structured(parsed[f"{transport}-syslog"][-2]["structured-data"])
    assert [name for name, value in forged.items() if value == "FORGED"] == [
        "attributes.outcome", "attributes.actor.id", "attributes.sequence", "attributes.type",
        "attributes.x__y",
    ]  # fmt: skip


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rfc_3164_carries_the_message_behind_the_tag(parsed: Parsed, transport: str) -> None:
    for sent, record in zip(HARD, parsed[f"{transport}-rfc3164"], strict=True):
        assert record["syslogtag"] == "siemrelay:"
        assert record["programname"] == "siemrelay"
        said = f": {sent['message']}" if sent["message"] else ""
        assert record["msg"].startswith(carried(f" {sent['type']}{said} ("))
        assert re.search(rf'\(id="?{sent["id"]}"? ', record["msg"])


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("message", ["json-rfc3164", "json-rfc5424"])
def test_json_behind_a_header_is_the_event(parsed: Parsed, transport: str, message: str) -> None:
    for sent, record in zip(HARD, parsed[f"{transport}-{message}"], strict=True):
        got = json.loads(record["msg"])
        for field in ("id", "type", "severity", "outcome", "actor", "target"):
            assert got.get(field) == sent.get(field), field
        assert (got.get("message") or "") == sent["message"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("message", ["cef-rfc3164", "cef-rfc5424"])
def test_cef_behind_a_header_is_read_by_an_independent_parser(
    parsed: Parsed, transport: str, message: str
) -> None:
    for sent, record in zip(HARD, parsed[f"{transport}-{message}"], strict=True):
        # Behind RFC 3164 rsyslog takes `CEF:` for the tag, as ArcSight's receivers expect it.
        line = record["msg"] if message == "cef-rfc5424" else record["syslogtag"] + record["msg"]
        assert line.startswith("CEF:0|siemrelay|audit|1.0|")
        begins = re.match(r"(?:(?:[^\\|]|\\.)*\|){7}", line)
        assert begins is not None
        header = re.findall(r"((?:[^\\|]|\\.)*)\|", begins[0])
        assert re.sub(r"\\(.)", r"\1", header[4]) == carried(sent["type"])
        assert header[6] == str(sent["severity"])
        # pycef does not take a header with escapes, though the standard has them.
        read = pycef.parse(f"CEF:0|a|b|c|d|e|1|{line[begins.end() :]}")
        assert unescaped(read["externalId"]) == sent["id"]
        assert unescaped(read["suser"]) == carried(sent["actor"]["name"], breaks=True)
        assert read["outcome"] == sent["outcome"]
        assert read["rt"] == "1772600767089"
        if sent["message"]:
            kept = carried(sent["message"], breaks=True)
            assert unescaped(read["msg"]).startswith(kept[:1000])


def unescaped(text: str) -> str:
    """A CEF value as it was before its escapes."""
    plain = {"n": "\n", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: plain.get(match[1], match[1]), text)


def test_a_frame_that_rsyslog_takes_for_none_costs_no_other_message(
    make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    """It believes no length over its `maxFrameSize`, 200,000, and reads lines from there on."""
    with ParsingRsyslogd(tmp_path, "imtcp") as rsyslog:
        daemon = make_daemon({"siem": tcp(rsyslog.port, framing="octet-counting", format="syslog")})
        append(daemon.audit, [event(1), event(2, message="x" * 210_000), event(3), event(4)])
        daemon.start("--drain", ready=False)
        assert daemon.wait() == 0, daemon.log_text
        until(lambda: len(rsyslog.parsed) >= 4)
    first, long, *others = rsyslog.parsed
    assert "x" * 1000 in long["msg"]
    for number, record in zip((1, 3, 4), (first, *others), strict=True):
        assert f'sequence="{number}"' in record["structured-data"]
