"""What an auditor is told about an export: a table of attacks, and of what is none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest

from siemrelay.proof.leaf import hash_of
from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import Tree
from siemrelay.proof.note import Signer
from siemrelay.proof.report import Report
from siemrelay.proof.verification import Verification
from tests.support.seals.stream import SIGNER, SealedStream, read_into, sealed

Lines = list[bytes]


def verified(
    lines: Iterable[bytes], *, until: float | None = None, since: float | None = None,
    sink: str | None = None, signers: Iterable[Signer] = (SIGNER,),
    tiles: dict[str, LeafStore] | None = None, max_age_s: float | None = None,
    expected: tuple[str, ...] = (),
) -> Report:  # fmt: skip
    """The report on an export of these lines, which ends with the last seal of `sealed()`."""
    end = sealed().now.timestamp() if until is None else until
    checked = Verification(
        [signer.verifier for signer in signers], until=end, since=since, sink=sink,
        max_age_s=max_age_s, expected=expected,
    )  # fmt: skip
    read_into(checked, (line + b"\n" for line in lines))
    return checked.report(tiles)


def found(report: Report) -> set[tuple[str, int | None, int | None]]:
    return {(finding.kind, finding.first, finding.last) for finding in report.findings}


def changed(lines: Lines, at: int, **fields: object) -> Lines:
    event = json.dumps(json.loads(lines[at]) | fields).encode()
    return [*lines[:at], event, *lines[at + 1 :]]


def without(lines: Lines, *at: int) -> Lines:
    return [line for i, line in enumerate(lines) if i not in at]


def inserted(lines: Lines, number: int, at: int = 5) -> Lines:
    event = {"type": "User Logged In", "siemrelay": {"n": f"abcdefgh22:{number}"}}
    return [*lines[:at], json.dumps(event).encode(), *lines[at:]]


# Each stream has ten events and a seal, three times: seals are the numbers 10, 21 and 32.
HARMLESS: dict[str, Callable[[Lines], Lines]] = {
    "as it was sent": lambda lines: lines,
    "in another order": lambda lines: random.Random(7).sample(lines, len(lines)),
    "backwards": lambda lines: lines[::-1],
    "two events swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
    "each event twice": lambda lines: [*lines, *lines],
    "with CR LF at the end of a line": lambda lines: [line + b"\r" for line in lines],
    "with members in another order and other spaces": lambda lines: [
        json.dumps(json.loads(line), sort_keys=True, separators=(" , ", " : ")).encode()
        for line in lines
    ],
    "with empty lines": lambda lines: [part for line in lines for part in (line, b"")],
}  # fmt: skip


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_changes_no_event_is_complete_unchanged_and_fresh(
    change: Callable[[Lines], Lines],
) -> None:
    report = verified(change(sealed().lines))
    assert (found(report), report.is_proven) == (set(), True)


ATTACKS: dict[str, tuple[Callable[[Lines], Lines], set[tuple[str, int | None, int | None]]]] = {
    "the first event deleted": (lambda x: x[1:], {("missing", 0, 0), ("unproven", 0, 9)}),
    "one in the middle": (
        lambda x: without(x, 14), {("missing", 14, 14), ("unproven", 10, 20)},
    ),
    "several": (
        lambda x: without(x, 2, 3, 4, 7),
        {("missing", 2, 4), ("missing", 7, 7), ("unproven", 0, 9)},
    ),
    "the last one before the last seal": (
        lambda x: without(x, 31), {("missing", 31, 31), ("unproven", 21, 31)},
    ),
    "a seal": (lambda x: without(x, 10), {("missing", 10, 10), ("unproven", 0, 20)}),
    "a field changed": (lambda x: changed(x, 3, user="mallory"), {("changed", 0, 9)}),
    "a field added": (lambda x: changed(x, 12, admin=True), {("changed", 10, 20)}),
    "a field of another type": (lambda x: changed(x, 12, user=12), {("changed", 10, 20)}),
    "a number beyond a double": (
        lambda x: [*x[:3], x[3].replace(b"{", b'{"amount": 1e400, ', 1), *x[4:]],
        {("changed", 0, 9)},
    ),
    "an event with a used number": (lambda x: inserted(x, 4), {("added", 4, 4)}),
    "an event with a used number, first": (lambda x: inserted(x, 4, 0), {("added", 4, 4)}),
    "an event without a number": (
        lambda x: [*x, b'{"type":"User Logged In"}'], {("added", None, None)},
    ),
    "a line that is no event": (lambda x: [*x, b"hello"], {("added", None, None)}),
    "an event for a deleted one": (lambda x: inserted(without(x, 4), 4), {("changed", 0, 9)}),
    "numbers of two events swapped": (
        lambda x: changed(changed(x, 3, siemrelay={"n": "abcdefgh22:4"}), 4,
                          siemrelay={"n": "abcdefgh22:3"}),
        {("changed", 0, 9)},
    ),
    "all seals deleted": (
        lambda x: without(x, 10, 21, 32), {("unproven", 0, 31), ("stale", None, None)},
    ),
    "an event of a stream that nobody sealed": (
        lambda x: [*x, x[0].replace(b"abcdefgh22", b"zzzzzzzz22")], {("unproven", 0, 0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "expected"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_found_where_it_was(
    attack: Callable[[Lines], Lines], expected: set[tuple[str, int | None, int | None]]
) -> None:
    lines = sealed().lines
    report = verified(attack(lines))
    assert found(report) == expected
    assert not report.is_proven
    # Whatever the order in which the SIEM gives it.
    assert found(verified(attack(lines)[::-1])) == expected


@pytest.mark.parametrize(("attack", "expected"), [
    (lambda x: changed(x, 3, user="mallory"), {("changed", 3, 3)}),
    (lambda x: changed(changed(x, 3, user="mallory"), 8, user="eve"),
     {("changed", 3, 3), ("changed", 8, 8)}),
    (lambda x: changed(without(x, 5), 3, user="mallory"), {("changed", 3, 3), ("missing", 5, 5)}),
    (lambda x: without(x, 5), {("missing", 5, 5)}),
    (lambda x: inserted(without(x, 4), 4), {("changed", 4, 4)}),
])  # fmt: skip
def test_with_the_relays_leaves_the_very_event_is_named(
    attack: Callable[[Lines], Lines], expected: set[tuple[str, int | None, int | None]]
) -> None:
    stream = sealed()
    leaves = LeafStore()
    for number, line in enumerate(stream.lines):
        leaves.add(number, hash_of(line))
    assert found(verified(attack(stream.lines), tiles={stream.name: leaves})) == expected


def test_leaves_that_do_not_give_the_signed_root_are_not_believed() -> None:
    stream = sealed()
    leaves = LeafStore()
    for number, line in enumerate(changed(stream.lines, 3, user="mallory")):
        leaves.add(number, hash_of(line))
    forged = changed(stream.lines, 3, user="mallory")
    assert found(verified(forged, tiles={stream.name: leaves})) == {("changed", 0, 9)}


@pytest.mark.parametrize("kept", [22, 27])
def test_an_end_that_is_cut_off_is_stale(kept: int) -> None:
    stream = sealed()
    lines = stream.lines[:kept]
    assert found(verified(lines, until=stream.now.timestamp() + 300)) == {("stale", 21, 21)}


def tails(report: Report) -> list[tuple[str, int, int, int]]:
    return [
        (tail.state, tail.messages, tail.first, tail.last)
        for stream in report.streams
        if (tail := stream.tail) is not None
    ]


def with_tail(count: int = 4) -> SealedStream:
    stream = sealed()
    stream.send(count)
    return stream


def test_events_behind_the_last_seal_are_shown_as_not_proven_yet_and_are_no_fault() -> None:
    stream = with_tail()
    report = verified(stream.lines)
    assert report.is_proven
    assert tails(report) == [("pending", 4, 33, 36)]
    (tail,) = [stream.tail for stream in report.streams]
    assert tail is not None
    assert tail.after == stream.now.isoformat()
    assert "export again after it" in tail.why


@pytest.mark.parametrize(("max_age_s", "after_s", "state"), [
    (None, 180, "pending"), (None, 181, "overdue"), (30, 30, "pending"), (30, 31, "overdue"),
    (0, 1, "overdue"),
])  # fmt: skip
def test_events_behind_a_seal_that_is_too_old_are_a_fault(
    max_age_s: float | None, after_s: float, state: str
) -> None:
    stream = with_tail()
    until = stream.now.timestamp() + after_s
    report = verified(stream.lines, until=until, max_age_s=max_age_s)
    assert tails(report) == [(state, 4, 33, 36)]
    assert (report.fresh, report.is_proven) == (state == "pending", state == "pending")


def test_events_of_a_stream_that_its_sink_has_left_unsealed_are_a_fault() -> None:
    lost, new = with_tail(), sealed(9, name="bcdefghi22")
    report = verified([*lost.lines, *new.lines], until=new.now.timestamp())
    assert found(report) == {("unproven", 33, 36)}
    assert tails(report) == [("overdue", 4, 33, 36)]


@pytest.mark.parametrize("text", [f"siemrelay-seal:{'A' * 200}", "a seal of another"])
def test_a_text_like_a_seal_behind_the_last_seal_is_not_proven_yet(text: str) -> None:
    if text.startswith("a "):
        text = json.loads(sealed(1, signer=Signer.generate("relay.example")).lines[-1])["message"]
    stream = sealed()
    stream.send(user=text)
    report = verified(stream.lines)
    assert (report.is_proven, tails(report)) == (True, [("pending", 1, 33, 33)])
    assert [note.first for note in report.notes] == [33]
    assert "looks like a seal and is none yet" in report.notes[0].text
    # Once the seal that should prove it is late, it is a fault.
    assert ("forged", 33, 33) in found(verified(stream.lines, until=stream.now.timestamp() + 300))
    stream.seal()
    assert not verified(stream.lines, until=stream.now.timestamp()).notes


@pytest.mark.parametrize("damage", [
    lambda seal: seal.replace(b"siemrelay-seal:k8", b"siemrelay-seal:k9", 1),
    lambda seal: seal.replace(b"siemrelay-seal:k", b"siemrelay-seal:k ", 1),
    lambda seal: seal[:500] + b'"' + seal[seal.rindex(b', "siem') :],
], ids=["a letter", "a space in it", "cut off"])  # fmt: skip
def test_a_last_seal_that_is_damaged_is_found_at_once(damage: Callable[[bytes], bytes]) -> None:
    """By the message's id it is a seal, so nobody has to wait for the next one."""
    lines = sealed().lines
    report = verified([*lines[:-1], damage(lines[-1])])
    assert ("forged", 32, 32) in found(report)
    assert tails(report) == [("pending", 11, 22, 32)]


@pytest.mark.parametrize(("expected", "is_there"), [
    ("splunk", True), ("relay.example/splunk", True), ("relay.example/splunk/abcdefgh22", True),
    ("abcdefgh22", True), ("elastic", False), ("other/splunk", False), ("relay.example", False),
    ("", False),
])  # fmt: skip
def test_a_sink_or_stream_that_the_auditor_expects_must_be_there(
    expected: str, is_there: bool
) -> None:
    report = verified(sealed().lines, expected=("splunk", expected))
    assert (report.complete, report.is_proven) == (is_there, is_there)
    if not is_there:
        assert f"no sealed message of {expected} is in the export" in report.findings[0].why


def test_an_expected_stream_that_only_its_successor_names_is_missing() -> None:
    first = sealed(1)
    second = sealed(1, name="bcdefghi22", sink="other", previous=first, start=first.now)
    report = verified(second.lines, until=second.now.timestamp(), expected=("splunk",))
    assert ("missing", None, None) in found(report)


@pytest.mark.parametrize(("damage", "said"), [
    (lambda leaves: [*leaves[:5], b"x" * 32, *leaves[6:]], "do not give the signed root"),
    (lambda leaves: leaves[:5], "lack 5 of 10"),
])  # fmt: skip
def test_hashes_of_the_relay_that_are_of_no_use_are_noted(
    damage: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    stream = sealed(1)
    leaves = LeafStore()
    for number, leaf in enumerate(damage(list(map(hash_of, stream.lines)))):
        leaves.add(number, leaf)
    report = verified(changed(stream.lines, 3, user="eve"), tiles={stream.name: leaves},
                      until=stream.now.timestamp())  # fmt: skip
    assert found(report) == {("changed", 0, 9)}
    assert said in report.notes[0].text


def test_findings_stand_in_the_order_of_streams_and_numbers() -> None:
    one, other = sealed(), sealed(name="bcdefghi22", sink="qradar", start=sealed().now)
    lines = [b"hello", *without(other.lines, 5), *without(one.lines, 25, 3, 14)]
    report = verified(lines, until=other.now.timestamp())
    places = [(each.stream, each.first or 0) for each in report.findings if each.stream]
    assert places == sorted(places, key=lambda place: (place[0] != one.origin, place[1]))
    assert report.findings[-1].stream == ""


def test_a_refused_message_is_accounted_for_and_may_come_later() -> None:
    stream = SealedStream()
    stream.send(3)
    stream.refuse()
    refused = stream.absent[0]
    stream.send(3)
    stream.seal()
    until = stream.now.timestamp()
    report = verified(stream.lines, until=until)
    assert (found(report), report.streams[0].absent) == (set(), 1)
    forged = json.dumps({"siemrelay": {"n": f"abcdefgh22:{refused.number}"}}).encode()
    assert found(verified([*stream.lines, forged], until=until)) == {("changed", 0, 6)}


def test_a_stream_is_proven_to_its_end_by_the_stream_that_follows() -> None:
    first = sealed(1)
    first.send(5)  # under no seal of its own
    second = sealed(2, name="bcdefghi22", previous=first, start=first.now)
    report = verified([*first.lines, *second.lines])
    assert (found(report), [s.unsealed for s in report.streams]) == (set(), [0, 0])
    assert found(verified([*first.lines[:-1], *second.lines])) == {
        ("missing", 15, 15), ("unproven", 10, 15),
    }  # fmt: skip
    assert found(verified(second.lines)) == {("missing", 0, 15)}
    first.send(2)  # sent, and not confirmed when the second began
    assert found(verified([*first.lines, *second.lines])) == {("unproven", 16, 17)}


def test_two_histories_of_one_stream_are_found() -> None:
    one, other = sealed(1), sealed(1)
    for stream, user in ((one, "ada"), (other, "eve")):
        stream.send(10, user=user)
        stream.seal()
    kinds = {finding.kind for finding in verified([*one.lines, *other.lines]).findings}
    assert "split" in kinds


def test_a_stream_that_another_saw_sealed_must_be_there_to_its_end() -> None:
    one, other = sealed(2), sealed(2, name="bcdefghi22", sink="qradar")
    other.send(3)
    other.seal(others=one.last_seal)
    assert found(verified([*one.lines, *other.lines])) == set()
    assert ("missing", 10, 20) in found(verified([*one.lines[:11], *other.lines]))


def test_mixed_exports_of_two_relays_are_judged_stream_by_stream() -> None:
    one, other = sealed(), sealed(name="bcdefghi22", signer=(second := Signer.generate("two")))
    other_lines = [line.replace(b"user3", b"mallory") for line in other.lines]
    report = verified([*one.lines, *other_lines], signers=(SIGNER, second))
    assert {finding.stream for finding in report.findings} == {other.origin}


def test_only_the_sink_that_is_asked_for_is_judged() -> None:
    one, other = sealed(), sealed(name="bcdefghi22", sink="qradar")
    lines = [*one.lines, *other.lines[:5], *other.lines[6:]]
    assert found(verified(lines, sink="splunk")) == set()
    assert found(verified(lines, sink="qradar")) == {("missing", 5, 5), ("unproven", 0, 9)}
    assert found(verified(lines, sink="chronicle")) == {("stale", None, None)}


def test_seals_of_a_relay_by_the_key_of_another_one_are_noted() -> None:
    """An auditor of many relays gives all their keys, and one of these may be in wrong hands."""
    stolen = Signer.generate("other.example")
    forged = sealed(signer=stolen)
    for verifiers, notes in (([SIGNER, stolen], 1), ([stolen], 0)):  # a key may have any name
        checked = Verification([each.verifier for each in verifiers], until=forged.now.timestamp())
        read_into(checked, [b"\n".join(forged.lines)])
        report = checked.report()
        assert (report.is_proven, len(report.notes)) == (True, notes)
    assert verified(sealed().lines).notes == []


def test_a_seal_by_another_key_proves_nothing() -> None:
    forged = sealed(signer=Signer.generate("relay.example"))
    report = verified(forged.lines)
    assert {finding.kind for finding in report.findings} == {"forged", "unproven", "stale"}
    assert not report.unchanged


def test_events_sealed_anew_by_an_old_key_are_found_by_the_seals_of_the_new_one() -> None:
    old, new = Signer.generate("relay.example"), SIGNER
    stream = sealed(2, signer=old)
    stream.signer = new
    stream.send(10)
    stream.seal()
    assert verified(stream.lines, signers=(old, new)).is_proven
    forged = sealed(2, signer=old)
    forged.lines = changed(forged.lines, 3, user="mallory")
    rewritten = SealedStream(signer=old)
    for line in stream.lines[:10]:
        rewritten.send(user="mallory") if b'"user3"' in line else rewritten.send()
    rewritten.seal()
    lines = [*rewritten.lines, *stream.lines[11:]]
    assert "changed" in {finding.kind for finding in verified(lines, signers=(old, new)).findings}


@pytest.mark.parametrize("damage", [
    lambda line: line.replace(b"siemrelay-seal:k", b"siemrelay-seal:x"),
    lambda line: line[:-60] + b'"' + line[line.index(b', "siemrelay"'):],
])  # fmt: skip
def test_a_malformed_seal_is_a_finding(damage: Callable[[bytes], bytes]) -> None:
    lines = sealed().lines
    report = verified([*lines[:10], damage(lines[10]), *lines[11:]])
    assert ("forged", 10, 10) in found(report)


def test_what_was_sealed_before_the_export_begins_is_not_judged() -> None:
    stream = sealed(4)
    since = stream.now.timestamp() - 130
    until = stream.now.timestamp()
    assert found(verified(stream.lines[21:], since=since, until=until)) == set()
    assert found(verified(without(stream.lines[21:], 2), since=since, until=until)) == {
        ("missing", 23, 23), ("unproven", 21, 31),
    }  # fmt: skip
    # What of it is in the export must be proven: else an added event could have such a number.
    assert found(verified(without(stream.lines, 5), since=since, until=until)) == {
        ("unproven", 0, 4),
    }  # fmt: skip


def test_an_export_that_begins_late_in_a_long_stream_is_one_finding() -> None:
    stream = SealedStream()
    stream.tree = Tree().extended([bytes(32)] * 1_100_000)
    for _ in range(2):
        stream.send(5)
        stream.seal()
    until = stream.now.timestamp()
    report = verified(stream.lines, until=until)
    assert found(report) == {("missing", 0, 1_099_999), ("unproven", 0, 1_100_004)}
    assert found(verified(stream.lines[5:], since=until - 90, until=until)) == set()


def test_a_clock_that_was_set_back_spoils_nothing() -> None:
    stream = sealed(2)
    stream.now -= timedelta(hours=5)
    stream.send(10)
    stream.seal()
    assert verified(stream.lines, until=sealed(2).now.timestamp()).is_proven


# An event by somebody who wants that it is not seen among the messages.
HIDDEN: dict[str, bytes] = {
    "as a search without hits": b'{"user": "mallory", "hits": []}',
    "as a hit that holds an empty list": b'{"_id": "1", "_source": {"u": "m", "messages": []}}',
    "as a result that holds an empty list": b'{"result": {"user": "mallory", "value": []}}',
    "as OTLP without records": b'{"resourceLogs": [], "user": "mallory"}',
    "as an event of a search": b'{"events": ["mallory logged in"]}',
    "as a text in a list": b'["mallory logged in"]',
    "as a search that took a text": b'{"hits": [], "took": "mallory logged in"}',
    "as aggregations": b'{"hits": {"hits": []}, "aggregations": {"user": "mallory"}}',
    "as a member's name": b'{"hits": {"hits": []}, "_shards": {"mallory logged in": 1}}',
    "as the id of a scroll": b'{"_scroll_id": "mallory did", "hits": {"hits": []}}',
    "as what Splunk says": b'{"results": [], "messages": ["mallory logged in"]}',
    "as the context of no values": b'{"value": [], "@odata.context": "mallory logged in"}',
    "as an answer in a list": b'{"results": [{"hits": [], "took": "mallory logged in"}]}',
    "as a resource without records": b'{"resourceLogs": [{"resource": {"attributes": ["m"]}}]}',
}


@pytest.mark.parametrize("event", HIDDEN.values(), ids=HIDDEN)
def test_an_added_event_is_found_however_it_is_wrapped(event: bytes) -> None:
    assert found(verified([*sealed().lines, event])) == {("added", None, None)}


@pytest.mark.parametrize("answer", [
    b'{"took": 1, "timed_out": false, "_shards": {"total": 1, "successful": 1}, "hits": '
    b'{"total": {"value": 0, "relation": "eq"}, "max_score": null, "hits": []}}',
    b'{"_scroll_id": "DXF1ZXJ5QW5kRmV0Y2gBAAAA==", "hits": {"hits": []}}',
    b'{"preview": false, "init_offset": 9, "messages": [], "fields": [], "results": []}',
    b"[]", b'{"resourceLogs": [{"scopeLogs": []}]}',
])  # fmt: skip
def test_the_last_page_of_an_answer_may_be_empty(answer: bytes) -> None:
    assert found(verified([*sealed().lines, answer])) == set()


@pytest.mark.parametrize("place", ["message", "event.original", "_raw"])
def test_a_copy_of_a_message_vouches_for_no_document_around_it(place: str) -> None:
    lines = sealed().lines
    document = {place: lines[3].decode(), "what": "mallory logged in"}
    copies = [json.dumps({place: line.decode(), "what": "a login"}).encode() for line in lines]
    assert found(verified(copies)) == set()
    report = verified([*lines, json.dumps(document).encode()])
    assert found(report) == {("added", 3, 3)}
    assert "export:34" in report.findings[0].why
    assert found(verified([json.dumps(document).encode(), *lines])) == {("added", 3, 3)}


def test_a_second_message_of_a_number_behind_the_last_seal_is_found() -> None:
    stream = sealed()
    number = stream.tree.size - 1  # of the last seal
    assert found(verified(inserted(stream.lines, number))) == {("added", number, number)}
    assert found(verified(inserted(stream.lines, number, 40))) == {("added", number, number)}
    stream.send(3)
    late = inserted(stream.lines, number + 2)
    assert ("added", number + 2, number + 2) in found(verified(late))


def test_a_second_member_of_one_name_changes_an_event() -> None:
    lines = sealed().lines
    lines[3] = b'{"user": "mallory", ' + lines[3][1:]
    assert found(verified(lines)) == {("changed", 0, 9)}


def test_a_record_that_has_one_name_twice_is_unchanged_as_it_was_sent() -> None:
    stream = SealedStream()
    stream.send_line(b'{"user": "a", "user": "b", "siemrelay": {"n": "abcdefgh22:0"}}')
    stream.seal()
    assert verified(stream.lines, until=stream.now.timestamp()).is_proven


def test_a_seal_from_after_the_end_does_not_make_an_export_fresh() -> None:
    stream = sealed(20)
    cut = [*stream.lines[:11], *stream.lines[-11:]]
    until = (stream.now - timedelta(seconds=30)).timestamp()
    assert {kind for kind, _, _ in found(verified(cut, until=until))} == {
        "stale", "missing", "unproven",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", [f"siemrelay-seal:{'A' * 200}", "a copied seal", "a seal of another"]
)
def test_an_event_may_have_a_text_that_looks_like_a_seal(text: str) -> None:
    stream = sealed(1)
    if text.startswith("a "):
        signer = SIGNER if "copied" in text else Signer.generate("relay.example")
        text = json.loads(sealed(1, signer=signer).lines[-1])["message"]
    stream.send(user=text)
    stream.seal()
    assert verified(stream.lines, until=stream.now.timestamp()).is_proven


def test_a_stream_of_which_nothing_is_left_is_named_by_its_neighbours() -> None:
    gone = sealed(name="zzzzzzzz22", sink="elastic")
    stream = SealedStream()
    stream.send()
    stream.seal(others=gone.last_seal)
    report = verified(stream.lines, until=stream.now.timestamp())
    assert report.elsewhere == [gone.origin]


def test_days_that_were_deleted_with_their_seals_are_found_whatever_since_says() -> None:
    stream = sealed(20)
    since, until = stream.start_s + 130, stream.now.timestamp()
    assert verified(stream.lines[22:], since=since, until=until).is_proven
    deleted = stream.lines[22 + 99 :]
    assert found(verified(deleted, since=since, until=until)) == {("unproven", 130, 130)}
    # Those of a stream that began after that time, too.
    first = sealed(3)
    second = sealed(20, name="bcdefghi22", previous=first, start=first.now)
    until = second.now.timestamp()
    lines = [*first.lines[11:], *second.lines[110:]]
    assert ("missing", 0, 109) in found(verified(lines, since=first.start_s + 60, until=until))
    # And a whole one, from between two others.
    third = sealed(3, name="cdefghij22", previous=second, start=second.now)
    until, lines = third.now.timestamp(), [*first.lines[11:], *third.lines]
    assert found(verified(lines, since=first.start_s + 60, until=until)) == {
        ("unproven", 33, 33), ("unproven", 219, 219),
    }  # fmt: skip


def test_a_stream_that_begins_after_since_is_judged_from_its_first_message_on() -> None:
    stream = sealed(3)
    since, until = stream.start_s - 3600, stream.now.timestamp()
    assert verified(stream.lines, since=since, until=until).is_proven
    assert ("missing", 4, 4) in found(verified(without(stream.lines, 4), since=since, until=until))


def test_an_event_with_a_number_from_before_since_is_found() -> None:
    stream = sealed(6)
    since, until = stream.start_s + 190, stream.now.timestamp()
    kept = stream.lines[35:]  # some minutes, the first of them not whole
    report = verified(kept, since=since, until=until)
    assert (report.is_proven, [n.first for n in report.notes]) == (True, [35])
    assert found(verified(inserted(kept, 7), since=since, until=until)) == {("unproven", 7, 7)}
    # Only the message with which the export begins may stand there alone.
    early = stream.lines[20:]
    report = verified(early, since=since, until=until)
    assert (report.is_proven, [n.first for n in report.notes]) == (True, [20])
    report = verified([*stream.lines[9:11], *early], since=since, until=until)
    assert (found(report), [n.first for n in report.notes]) == ({("unproven", 10, 20)}, [9])
    # An export that begins earlier proves what was sent again, and not what was added.
    assert verified([*kept, *stream.lines], since=since, until=until).is_proven
    assert ("added", 7, 7) in found(verified(inserted(stream.lines, 7), since=since, until=until))


def test_the_end_of_a_stream_that_no_later_one_names_is_not_proven() -> None:
    first = sealed(5)
    # As after a lost state directory under a key from a credential.
    second = sealed(3, name="bcdefghi22", start=first.now + timedelta(hours=1))
    until = second.now.timestamp()
    lines = [*first.lines[:22], *second.lines]
    assert found(verified(lines, until=until)) == {("unproven", 22, 22)}
    # Before the time that is judged it is nobody's business.
    since = second.start_s
    assert found(verified(lines[22:], since=since, until=until)) == set()


def test_two_streams_that_follow_one_are_two_histories() -> None:
    first = sealed(2)
    second = sealed(2, name="bcdefghi22", previous=first, start=first.now)
    clone = sealed(2, name="cdefghij22", previous=first, start=first.now)
    lines = [*first.lines, *second.lines, *clone.lines]
    report = verified(lines, until=second.now.timestamp())
    assert found(report) == {("split", 22, 22)}


def test_a_stream_that_is_sealed_on_after_its_end_is_two_histories() -> None:
    first = sealed(2)
    second = sealed(2, name="bcdefghi22", previous=first, start=first.now)
    first.send(3)
    first.seal()
    report = verified([*first.lines, *second.lines], until=second.now.timestamp())
    assert ("split", 22, 22) in found(report)


def test_a_seal_from_after_the_end_proves_what_was_sent_before_it() -> None:
    stream = sealed(4)
    until = stream.now.timestamp() - 70
    report = verified(stream.lines, until=until)
    assert (report.is_proven, report.streams[0].unsealed) == (True, 0)
    forged = changed(stream.lines, 35, user="mallory")
    assert found(verified(forged, until=until)) == {("changed", 32, 42)}
    # A message that is missing before that seal may have been sent before the end.
    assert found(verified(without(stream.lines, 24), until=until)) == {
        ("missing", 24, 24), ("unproven", 21, 31),
    }  # fmt: skip
    # Behind it, as far as the export has it all.
    report = verified(without(stream.lines, 40), until=until)
    assert (report.is_proven, tails(report)) == (True, [("later", 9, 33, 42)])


def test_a_stream_that_begins_after_the_end_is_not_judged() -> None:
    stream = with_tail()
    report = verified(stream.lines, until=stream.start_s + 30)
    assert (found(report), tails(report)) == ({("stale", None, None)}, [("later", 4, 33, 36)])


def test_records_that_the_relay_gave_up_are_missing() -> None:
    first = sealed(2)
    second = SealedStream("bcdefghi22", previous=first, start=first.now)
    second.dropped = 70
    second.send(3)
    second.seal()
    second.send(3)
    second.seal()
    report = verified([*first.lines, *second.lines], until=second.now.timestamp())
    (finding,) = report.findings
    assert (finding.kind, finding.stream, finding.why[:10]) == (
        "missing", second.origin, "70 records",
    )  # fmt: skip
    assert not report.complete
    # What was given up before the time that is judged is not.
    since = second.start_s + 70
    assert verified(second.lines, since=since, until=second.now.timestamp()).is_proven
