"""Syslog messages that a sink with `format: syslog` forwards, and those that it writes anew."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.config.load import load_text
from siemrelay.core.event import Batch, DecodedBatch
from siemrelay.core.lines import payloads
from siemrelay.decoders.contract import Decoder
from siemrelay.formats.rfc5424 import Rfc5424, Rfc5424Options
from siemrelay.formats.writing.text import CONTROL_PICTURES
from siemrelay.pipeline.formatting.formatter import Formatter
from siemrelay.pipeline.formatting.messages import InternalError
from siemrelay.relay.assembly import Assembly
from tests.support.events.formats import messages_for
from tests.support.events.hostile import FORGERIES
from tests.support.examples import examples

USUAL = b'<38>1 2026-01-15T11:59:00.123Z box sshd 17 LOGIN [a@1 user="ada"] a [text] with "words"'
CONFIG: Final = """
state_dir: /tmp/none
sources:
  devices: {{type: syslog, listen: "tcp://127.0.0.1:6514"{source}}}
sinks:
  siem: {{protocol: tcp, server: 10.0.0.9{sink}}}
  other: {{protocol: tcp, server: 10.0.0.9, format: cef, events: User Logged Out}}
"""


def formatter(source: str = "", sink: str = "", *sinks: str) -> Formatter:
    """As the relay makes it of that configuration; of these sinks, or `siem` alone."""
    assembly = Assembly(load_text(CONFIG.format(source=source, sink=sink), "f.yaml", {}).config)
    return assembly.formatter({name: assembly.sink_format(name) for name in sinks or ("siem",)})


def sent(made: Formatter, *records: bytes, part: int | None = None) -> list[bytes]:
    """What `siem` gets for these records."""
    messages, first = list[bytes](), 1
    for payload, some in payloads(records):
        batch = Batch(first, len(some), "devices", 1.7e9, payload, part)
        messages += messages_for(made, "siem", batch).messages
        first += len(some)
    return messages


FORWARDED = {
    "structured data and text": USUAL,
    "nothing but a header": b"<0>1 - - - - - -",
    "no structured data": b"<191>1 - box su - ID47 - 'su root' failed",
    "a time with an offset": b"<13>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 p 8710 - - %% now",
    "several elements": b'<165>1 - a b c d [x@1 i="3" s="\\]\\"\\\\"][y@1 z=""][z@1] text',
    "a backslash that escapes nothing": rb'<165>1 - a b c d [x@1 path="C:\dir"] text',
    "a text like an event of a relay's": b'<13>1 - a b - - - [event@32473 type="x"] y',
    "a JSON text": b'<13>1 - a b - - [a@1 id="7"] {"type":"User Logged In","id":"7"}',
    "a byte order mark before the text": b"<13>1 - a b - - - \xef\xbb\xbf\xc3\xa4",
}  # fmt: skip

WRITTEN = {
    "RFC 3164": b"<38>Jan 15 11:59:00 box sshd[17]: text",
    "text": b"text",
    "JSON": b'{"type":"User Logged In"}',
    "no priority": USUAL[4:],
    "a priority above 191": USUAL.replace(b"<38>", b"<192>"),
    "a priority with a zero before it": USUAL.replace(b"<38>", b"<038>"),
    "another version": USUAL.replace(b">1 ", b">2 "),
    "a 13th month": USUAL.replace(b"-01-15", b"-13-15"),
    "a time without a zone": USUAL.replace(b"123Z", b"123"),
    "nanoseconds": USUAL.replace(b"123Z", b"123456789Z"),
    "two spaces": USUAL.replace(b" box", b"  box"),
    "a host that is not ASCII": USUAL.replace(b"box", "bóx".encode()),
    "an application's name that is too long": USUAL.replace(b"sshd", b"s" * 49),
    "no structured data, not even a hyphen": b"<38>1 - box sshd 17 LOGIN text",
    "an element that does not end": USUAL.replace(b"]", b""),
    "a value that does not end": USUAL.replace(b'"ada"', b'"ada'),
    "a value without quotes": USUAL.replace(b'"ada"', b"ada"),
    "text that touches the structured data": USUAL.replace(b"] a", b"]a"),
    "a byte order mark before it": b"\xef\xbb\xbf" + USUAL,
    "a space before it": b" " + USUAL,
}  # fmt: skip


@pytest.mark.parametrize("what", FORWARDED)
def test_a_message_that_is_rfc_5424_leaves_as_it_came(what: str) -> None:
    assert sent(formatter(), FORWARDED[what]) == [FORWARDED[what]]


@pytest.mark.parametrize("what", WRITTEN)
def test_any_other_message_is_written_as_an_event(what: str) -> None:
    (message,) = sent(formatter(), WRITTEN[what])
    assert b" siemrelay - " in message
    assert b'[event@32473 sequence="1" id="' in message


BY_THE_LETTER: Final = re.compile(
    rb"<([1-9]?\d|1[0-8]\d|19[01])>1 (?P<time>-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?"
    rb"(?:Z|[+-]\d\d:\d\d)) [!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32} "
    rb'(?:-|(?:\[[!#-<>-\\^-~]{1,32}(?: [!#-<>-\\^-~]{1,32}="(?:[^"\\\]]|\\.)*")*\])+)(?: .*)?',
    re.DOTALL,
)
"""RFC 5424, section 6, without the limits of this relay."""


def is_rfc5424(record: bytes) -> bool:
    match = BY_THE_LETTER.fullmatch(record)
    if match is None:
        return False
    try:
        return match["time"] == b"-" or bool(datetime.fromisoformat(match["time"].decode()))
    except ValueError:
        return False


PIECES = [b" ", b"-", b'"', b"]", b"[", b"\\", b"<13>1 ", b"\r", b"\xff", b"\t", b"=", b"0", b"x"]
MESSAGES = st.sampled_from([*FORWARDED.values(), *WRITTEN.values()])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message in which something was put in or taken out, perhaps where it is no fault."""
    record = draw(MESSAGES)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(record)))
        record = record[:at] + draw(st.sampled_from(PIECES)) + record[at + draw(st.booleans()) :]
    return record or b"x"


def shown(record: bytes) -> bytes:
    """A record as it may stand in a line."""
    text = record.rstrip(b"\r").decode("utf-8", "replace")
    return text.translate(CONTROL_PICTURES).encode()


@examples(300)
@given(records=st.lists(damaged(), min_size=1, max_size=6))
def test_messages_are_forwarded_by_the_grammar_and_each_as_if_it_were_alone(
    records: list[bytes],
) -> None:
    made = formatter()
    together = sent(made, *records)
    assert len(together) == len(records)
    for number, (record, message) in enumerate(zip(records, together, strict=True), 1):
        forwarded = is_rfc5424(record)
        assert forwarded == (f'[event@32473 sequence="{number}"'.encode() not in message)
        if forwarded:
            assert message == shown(record)
        assert is_rfc5424(message)


def test_what_is_typed_into_a_text_is_no_structure_for_the_receiver() -> None:
    header = b'<38>1 2026-01-15T11:59:00Z box sshd 17 LOGIN [a@1 user="ada"] '
    texts = [text.encode("utf-8", "replace") for text in FORGERIES]
    for text, message in zip(texts, sent(formatter(), *(header + t for t in texts)), strict=True):
        assert message == header + shown(text)
        assert not re.search(rb"[\0-\x1f\x7f]", message)


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("", ", rewrite: yes"),
        ("", ", add: {attributes.env: prod}"),
        ("", ", redact: [{field: actor.name}]"),
        ("", ", seal: yes"),
        (", add: {category: custom}", ""),
        (", decoder: json", ""),
    ],
)
def test_a_message_that_the_configuration_changes_is_written_as_an_event(
    source: str, sink: str
) -> None:
    (message,) = sent(formatter(source, sink), USUAL)
    assert b"[event@32473 " in message


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("", ", where: {type: LOGIN}"),
        ("", ", events: {min_severity: 1}"),
        ("", ", sample: [{events: User Logged Out, one_in: 2}]"),
        ("", ", facility: local4, hostname: other"),
        (", decoder: cef", ""),
        (", redact: [{pattern: secret}]", ""),
    ],
)
def test_a_message_that_is_only_chosen_leaves_as_it_came(source: str, sink: str) -> None:
    assert sent(formatter(source, sink), USUAL) == [USUAL]


def test_what_a_sink_sends_does_not_depend_on_other_sinks() -> None:
    records = [*FORWARDED.values(), *WRITTEN.values()]
    assert sent(formatter(), *records) == sent(formatter("", "", "other", "siem"), *records)


def test_a_filter_chooses_among_messages_of_both_kinds() -> None:
    other = USUAL.replace(b"LOGIN", b"LOGOUT")
    records = [USUAL, other, WRITTEN["RFC 3164"], USUAL, WRITTEN["text"], other]
    found = sent(formatter("", ", where: {type: [LOGIN, sshd]}"), *records)
    assert [found[0], found[2]] == [USUAL, USUAL]
    assert b'sequence="3"' in found[1]
    assert len(found) == 3


def test_a_message_over_the_limit_is_cut_at_the_end_of_its_text() -> None:
    long = USUAL + b" x" * 500
    (message,) = sent(formatter("", ", max_message_size: 500B"), long)
    assert message == long[: 500 - len("...[cut]")] + b"...[cut]"


def test_a_piece_of_a_long_message_is_an_unparsed_record() -> None:
    (message,) = sent(formatter(), USUAL, part=1)
    assert b'type="Unparsed Record"' in message


class Counting(Decoder):
    """A syslog decoder that counts what it has to decode."""

    reads_syslog: Final = True

    def __init__(self, inner: Any) -> None:
        self._inner, self.batches = inner, 0

    def decode(self, batch: Batch) -> DecodedBatch:
        self.batches += 1
        found: DecodedBatch = self._inner.decode(batch)
        return found


@pytest.mark.parametrize(
    ("sink", "records", "batches"),
    [
        ("", [USUAL, USUAL], 0),
        (", format: raw", [USUAL, b"text", b"\xff"], 0),
        ("", [USUAL, b"text"], 1),
        (", where: {type: LOGIN}", [USUAL], 1),
    ],
)
def test_only_what_a_sink_reads_is_decoded(
    sink: str, records: Sequence[bytes], batches: int
) -> None:
    assembly = Assembly(load_text(CONFIG.format(source="", sink=sink), "f.yaml", {}).config)
    sinks = {"siem": assembly.sink_format("siem")}
    counting = Counting(assembly.decoder("devices", sinks.values()))
    assert len(sent(Formatter(sinks, {"devices": lambda _: counting}, counting), *records)) >= 1
    assert counting.batches == batches


class Broken(Decoder):
    """A syslog decoder with a bug about every record."""

    reads_syslog: Final = True

    def decode(self, batch: Batch) -> DecodedBatch:
        raise RuntimeError("a bug")


def test_a_decoder_that_fails_late_costs_no_message() -> None:
    broken, sinks = Broken(), formatter("", "", "siem", "other").sinks
    made, errors = Formatter(sinks, {"devices": lambda _: broken}, broken), list[InternalError]()
    batch = Batch(1, 2, "devices", 1.7e9, USUAL + b"\ntext\n")
    decoded = made.decode(batch, errors)
    for name in ("siem", "other", "siem"):
        group, view = made.places[name]
        messages = made.format(decoded, group, [view], errors).messages
        if name == "siem":
            assert messages[0] == USUAL
            assert b'type="Unparsed Record"' in messages[1]
    assert [error.message.partition(":")[0] for error in errors] == ["internal error"]


def test_bytes_that_are_no_utf_8_are_replaced_and_counted_without_an_event() -> None:
    batch = Batch(5, 2, "devices", 1.7e9, USUAL + b"\n" + USUAL + b"\xff\n")
    found = messages_for(formatter(), "siem", batch)
    assert found.messages == [USUAL, USUAL + "\ufffd".encode()]
    assert found.replaced == [6]
    assert found.last_type == ""


@pytest.mark.parametrize("tail", [b' b="c"', b"\\]", b"][a"])
def test_structured_data_without_an_end_costs_no_memory(tail: bytes) -> None:
    record = b'<13>1 - a b - - [a b="' + b'"' * (tail == b' b="c"') + tail * 100_000
    form = Rfc5424(Rfc5424Options(), "host")
    tracemalloc.start()
    try:
        assert not form.forwards(record, is_syslog=True)
        assert tracemalloc.get_traced_memory()[1] < len(record)
    finally:
        tracemalloc.stop()
