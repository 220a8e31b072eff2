"""RELP's frames: a client's as the specification has them, a server's however the network cuts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.core.errors import FrameRefused
from siemrelay.wire.relp import MAX_ANSWER_BYTES, MAX_TXNR, RelpAnswer, RelpClient, ServerClose


def response(txnr: int, data: bytes) -> bytes:
    return b"%d rsp %d %b\n" % (txnr, len(data), data)


OFFERS = "relp_version=0\nrelp_software=librelp,1.2.13,http://librelp.adiscon.com\ncommands=syslog"
ANSWERS: list[tuple[bytes, RelpAnswer | ServerClose]] = [
    (b"1 rsp 6 200 OK\n", RelpAnswer(1, 200, "OK")),
    (response(2, b"200"), RelpAnswer(2, 200, "")),
    (response(MAX_TXNR, b"500 not today!"), RelpAnswer(999_999_999, 500, "not today!")),
    (response(3, b"200 OK\n" + OFFERS.encode()), RelpAnswer(3, 200, "OK", OFFERS)),
    (response(4, b"200 caf\xc3\xa9 \xff!"), RelpAnswer(4, 200, "café \ufffd!")),
    (b"0 serverclose 0\n", ServerClose()),
    (b"0 serverclose 0 \n", ServerClose()),
]


def framed(data: bytes) -> list[tuple[int, str, bytes]]:
    """A receiver's reading of a client's frames: number, command, data."""
    found = []
    while data:
        head = re.match(rb"([0-9]+) ([a-z]+) ([0-9]+)", data)
        assert head, data[:40]
        size = int(head[3])
        data = data[head.end() :]
        if size:
            assert data[:1] == b" "
            data = data[1:]
        found.append((int(head[1]), head[2].decode(), data[:size]))
        assert data[size : size + 1] == b"\n"
        data = data[size + 1 :]
    return found


@pytest.mark.parametrize(("wire", "value"), ANSWERS)
def test_each_frame_of_a_server_is_read(wire: bytes, value: RelpAnswer | ServerClose) -> None:
    assert RelpClient().receive(wire) == [value]


@given(st.lists(st.sampled_from(ANSWERS), max_size=8), st.data())
def test_answers_do_not_depend_on_where_the_network_cuts(
    answers: list[tuple[bytes, RelpAnswer | ServerClose]], data: st.DataObject
) -> None:
    wire, client, got = b"".join(frame for frame, _ in answers), RelpClient(), []
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        got += client.receive(wire[:cut])
        wire = wire[cut:]
    assert got == [value for _, value in answers]


@given(st.lists(st.sampled_from(ANSWERS), max_size=4))
def test_a_byte_at_a_time_is_the_same(
    answers: list[tuple[bytes, RelpAnswer | ServerClose]],
) -> None:
    wire, client, got = b"".join(frame for frame, _ in answers), RelpClient(), []
    for at in range(len(wire)):
        got += client.receive(wire[at : at + 1])
    assert got == [value for _, value in answers]


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 40))
def test_each_message_is_one_frame_with_a_number_of_its_own(
    messages: list[bytes], before_the_end: int
) -> None:
    client = RelpClient(last_txnr=MAX_TXNR - before_the_end)
    numbers, wire = client.syslog(messages)
    assert framed(wire) == [
        (number, "syslog", message) for number, message in zip(numbers, messages, strict=True)
    ]
    expected = [(MAX_TXNR - before_the_end + n) % MAX_TXNR + 1 for n in range(len(messages))]
    assert numbers == expected
    following, _ = client.close()
    assert following == (expected[-1] % MAX_TXNR + 1 if expected else
                         (MAX_TXNR - before_the_end) % MAX_TXNR + 1)  # fmt: skip


def test_a_session_opens_with_number_one_and_offers_syslog() -> None:
    number, wire = RelpClient().open()
    ((same, command, offers),) = framed(wire)
    assert (number, same, command) == (1, 1, "open")
    assert offers.startswith(b"relp_version=0\nrelp_software=siemrelay,")
    assert offers.endswith(b"\ncommands=syslog")


@pytest.mark.parametrize(
    "wire",
    [
        b"\x15\x03\x03\x00\x02\x02F", b"220 mail.example.com ESMTP\r\n", b"\n", b" ", b"rsp",
        b"1  rsp 0\n", b"1 rsp x\n", b"1 rsp 6\n", b"1 rsp 6 200 OKx", b"1 rsp 0\n",
        b"1 rsp 2 OK\n", b"1 rsp 5 2000 \n", b"1234567890 rsp 0\n", b"1 syslog 2 hi\n",
        b"1 rsp %d " % (MAX_ANSWER_BYTES + 1), b"HTTP/1.1 400 Bad Request\r\n",
    ],
)  # fmt: skip
def test_what_is_no_relp_is_refused(wire: bytes) -> None:
    with pytest.raises(FrameRefused):
        RelpClient().receive(wire)


@given(st.binary(max_size=200))
def test_garbage_is_read_or_refused_and_nothing_else(garbage: bytes) -> None:
    client = RelpClient()
    try:
        client.receive(garbage)
        client.receive(b"1 rsp 6 200 OK\n")
    except FrameRefused:
        pass
