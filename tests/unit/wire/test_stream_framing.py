"""The splitter of syslog streams: three framings told apart, cut anywhere, within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.lines import records_of
from siemrelay.wire.stream_framing import ENDLESS_BYTES, Messages, StreamSplitter

PART_BYTES = 40

# Bytes that mean something to a framing are much more likely than in bytes drawn blindly.
TELLING = st.lists(
    st.sampled_from([b"\n", b"\r", b"\0", b" ", b"1", b"0", b"12 ", b"<13>", b"text", b"x" * 30]),
    max_size=40,
).map(b"".join)
CUTS = st.lists(st.integers(1, 25), max_size=30)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    found = []
    for cut in cuts:
        found.append(stream[:cut])
        stream = stream[cut:]
    return [piece for piece in [*found, stream] if piece]


def received(
    fed: list[bytes], part_bytes: int = 1000
) -> tuple[list[tuple[bytes, int | None]], str | None]:
    """Every record with its part, and the refusal."""
    splitter = StreamSplitter(part_bytes, part_bytes)
    taken: list[Messages] = []
    for piece in fed:
        taken += splitter.feed(piece)
        assert splitter.held <= part_bytes + len(piece)
    taken += splitter.end()
    assert not splitter.held or splitter.refusal
    out: list[tuple[bytes, int | None]] = []
    for messages in taken:
        assert messages.payload.endswith(b"\n")
        records = records_of(messages.payload, messages.count)
        assert len(records) == messages.count
        out += [(record, messages.part) for record in records]
    return out, splitter.refusal


def texts(stream: bytes) -> list[bytes]:
    found, refusal = received([stream])
    assert refusal is None
    return [record for record, _ in found]


@pytest.mark.parametrize(
    ("stream", "messages"),
    [
        (b"<13>a\n<13>b\n", [b"<13>a", b"<13>b"]),
        (b"<13>a\r\n\r\n\n<13>b\r\n", [b"<13>a", b"<13>b"]),
        (b"<13>a\n<13>cut off", [b"<13>a", b"<13>cut off"]),
        (b"<13>a\0\n<13>b\0\n", [b"<13>a", b"<13>b"]),
        (b"<13>a\0<13>b\nc\0", [b"<13>a", b"<13>b\nc"]),
        (b"5 <13>a6 <13>\nb", [b"<13>a", b"<13>\nb"]),
        (b"6 <13>a\n\n5 <13>b", [b"<13>a", b"<13>b"]),
        (b"9 <13>cut", [b"<13>cut"]),
        (b"2026-03-04 no count\n", [b"2026-03-04 no count"]),
        (b"12", [b"12"]),
        (b"", []),
    ],
)
def test_each_framing_is_recognised_by_how_it_begins(stream: bytes, messages: list[bytes]) -> None:
    assert texts(stream) == messages


@given(TELLING, CUTS)
def test_messages_do_not_depend_on_where_the_network_cuts(stream: bytes, cuts: list[int]) -> None:
    assert received(pieces(stream, cuts)) == received([stream] if stream else [])


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=20), CUTS)
def test_counted_messages_come_back_as_they_were(sent: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(b"%d %b" % (len(message), message) for message in sent)
    expected = [left for message in sent if (left := message.rstrip(b"\r\n\0"))]
    found, refusal = received(pieces(wire, cuts))
    assert refusal is None
    assert [record for record, _ in found] == expected


@given(st.lists(st.integers(1, 150), max_size=10), CUTS, st.sampled_from(["newline", "count"]))
def test_long_messages_come_in_numbered_parts(sizes: list[int], cuts: list[int], how: str) -> None:
    sent = [bytes([97 + i]) * size for i, size in enumerate(sizes)]
    wire = b"".join(m + b"\n" if how == "newline" else b"%d %b" % (len(m), m) for m in sent)
    expected: list[tuple[bytes, int | None]] = []
    for message in sent:
        parts = [message[at : at + PART_BYTES] for at in range(0, len(message), PART_BYTES)]
        expected += [(p, n if len(parts) > 1 else None) for n, p in enumerate(parts, 1)]
    assert received(pieces(wire, cuts), PART_BYTES) == (expected, None)


@given(st.binary(max_size=300), CUTS)
def test_garbage_is_messages_or_a_refusal_and_never_more_than_a_part_is_held(
    stream: bytes, cuts: list[int]
) -> None:
    received(pieces(stream, cuts), PART_BYTES)


@pytest.mark.parametrize("bad", [b"5 <13>aX", b"5 <13>a05 <13>b", b"999999999 x"])
def test_a_bad_count_is_refused_after_what_was_good(bad: bytes) -> None:
    found, refusal = received([bad])
    assert refusal is not None
    assert found == ([] if bad.startswith(b"9") else [(b"<13>a", None)])


def test_a_line_without_an_end_is_refused_at_the_bound() -> None:
    splitter, chunk = StreamSplitter(1 << 20, 1 << 24), b"x" * (1 << 24)
    for _ in range(ENDLESS_BYTES // len(chunk)):
        splitter.feed(chunk)
    assert splitter.refusal is None
    splitter.feed(b"x")
    assert splitter.refusal is not None
    assert splitter.feed(b"<13>more\n") == []


def test_messages_over_the_limit_are_kept_and_reported() -> None:
    (messages,) = StreamSplitter(10, 1000).feed(b"short\n" + b"x" * 11 + b"\r\n")
    assert messages == Messages(b"short\n" + b"x" * 11 + b"\n", 2, None, (11,))


@pytest.mark.parametrize(
    ("beginning", "advice"),
    [
        ([b"\x16\x03\x01\x05\xb8\x01\x00\x05\xb4\n\x00"], "`tls://`"),
        ([b"\x16", b"\x03\x01\x05\xb8\x01\x00\x05\xb4\n"], "`tls://`"),
        ([b"1 open 85 relp_version=0\nrelp_software=librelp,1.11.0"], "`relp://`"),
    ],
)
def test_another_protocol_is_refused_and_the_reason_names_the_address_for_it(
    beginning: list[bytes], advice: str
) -> None:
    records, refusal = received(beginning)
    assert records == []
    assert refusal is not None
    assert advice in refusal


@pytest.mark.parametrize(
    ("stream", "several"),
    [
        # pino-syslog and winston-syslog, as they are by default
        (
            b'<134>1 2026-11-28T15:33:20Z h - 1 - - {"a":1}<131>1 2026-11-28T15:33:20Z h - 1 - - x',
            1,
        ),
        (b"<134>Nov 28 15:04:04 web1 shop[31701]: a<131>Nov  8 15:04:04 web1 shop[31701]: b", 1),
        (b"<134>Nov 28 15:04:04 web1 shop: the last, without a line feed", 0),
        (b"<134>Nov 28 15:04:04 web1 shop: a <13> b", 0),
        (b"<134>Nov 28 15:04:04 web1 shop: a<131>Nov 28 15:04:04 forged: b\n", 0),
    ],
)
def test_messages_with_nothing_between_them_stay_one_and_are_noticed(
    stream: bytes, several: int
) -> None:
    splitter = StreamSplitter(1000, 1000)
    splitter.feed(stream)
    assert splitter.unseparated == bool(several)
    assert texts(stream) == [stream.rstrip(b"\n")]
