"""Attacks on what SIEMs export of sealed sinks, each in the export's own shape.

One relay delivers to every SIEM once (`tests/support/seals/exports.py`); each test tampers with a
copy and asks the real `siemrelay verify`. The attacks of the design and their tests:

| attack on an export | test |
|---|---|
| none: as exported, reordered, repeated, CR LF, another time zone | `…what_changes_no_event…` |
| the first, one, the last deleted; a window; several; a seal | `…deleted_messages…` |
| everything after a moment; the whole stream | `…cut_off…`, `…nothing_is_left…` |
| a character changed; two messages swapped | `…a_single_changed_character…`, `ADDITIONS` |
| added with a used, a free, no number, for a deleted one | `ADDITIONS` |
| truncated by the receiver, in the middle of a message | `…shortened…`, `…cut_in_the_middle…` |
| fields added, renamed, of another type | `…rewrites_fields…` |
| two sinks, two relays mixed; the wrong key | `…side_by_side…`, `…two_relays…`, `…wrong_key…` |
| seals deleted, sent again, copied, damaged, signed by another key | `SEALS` |
| unsealed shown as sealed | `…behind_the_last_seal…` |

What happens to the relay itself is in `tests/daemon/test_seals.py` and
`tests/daemon/test_seal_attacks.py`; hostile shapes of a stream without a relay in
`tests/unit/proof/test_verification.py`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from siemrelay.proof.note import Signer
from siemrelay.proof.seal import find_seal, made_text, read_seal
from tests.support.seals.exports import (
    SHAPES,
    Export,
    Finding,
    findings,
    number_of,
    record,
    sealed_by,
    verified,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Export]:
    """Every export by its shape."""
    return record(tmp_path_factory.mktemp("relay"))


@pytest.fixture(params=SHAPES)
def export(request: pytest.FixtureRequest, recorded: dict[str, Export]) -> Export:
    """One of them."""
    return recorded[request.param]


def test_what_changes_no_event_is_complete_unchanged_and_fresh(
    export: Export, tmp_path: Path
) -> None:
    for name, change in {
        "as exported": lambda rows: rows,
        "backwards": lambda rows: rows[::-1],
        "in another order": lambda rows: random.Random(3).sample(rows, len(rows)),
        "some twice": lambda rows: [*rows, *rows[7:30]],
    }.items():
        code, report = verified(export.tampered(change), folder=tmp_path)
        assert (name, code, findings(report)) == (name, 0, set())
        assert len(report["streams"]) == 1
    text = export.shape(export.rows)
    for other in (text.replace("\n", "\r\n"), _in_another_zone(text)):
        code, report = verified(other, export.tampered(lambda rows: rows[:3]), folder=tmp_path)
        assert (code, findings(report)) == (0, set())


def _in_another_zone(text: str) -> str:
    """What a SIEM shows with the times beside its messages in the zone of another user."""
    for shown, elsewhere in (
        ("T05:06:07+00:00 ", "T07:06:07+02:00 "),
        ("Mar  4 05:06:07 ", "Mar  4 07:06:07 "),
        (">1 2026-03-04T05:06:07.089Z ", ">1 2026-03-04T07:06:07.089+02:00 "),
        (",2026-11-28T03:00:00.000+0100,", ",2026-11-28T02:00:00.000+0000,"),
    ):
        text = text.replace(shown, elsewhere)
    return text


def deleted(export: Export, *numbers: int) -> Export:
    return export.tampered(lambda rows: [row for row in rows if number_of(row) not in numbers])


def test_deleted_messages_are_named(export: Export, tmp_path: Path) -> None:
    windows = export.windows()
    events = [number_of(export.rows[i]) for i in export.events]
    seals = [number_of(row) for row in export.rows if sealed_by(row) is not None]
    last = windows[-1][-1]
    for numbers in ([0], [events[20]], [last], events[3:9], [events[1], events[30]], [*windows[1]],
                    events, [seals[1]], seals[:-1]):  # fmt: skip
        tampered = deleted(export, *numbers)
        code, report = verified(tampered, folder=tmp_path)
        assert code == 1
        assert findings(report) == tampered.holes(), numbers
        named = [n for kind, a, b in findings(report) if kind == "missing" and a is not None
                 for n in range(a, (b or 0) + 1)]  # fmt: skip
        assert sorted(named) == sorted(set(numbers))


def test_an_export_that_is_cut_off_is_not_fresh(export: Export, tmp_path: Path) -> None:
    for rows in (5, 25, len(export.rows) - 1):
        cut = export.tampered(lambda every: every[:rows])  # noqa: B023  (called now)
        code, report = verified(cut, folder=tmp_path, after_s=90)
        assert (code, {"stale"} <= {kind for kind, *_ in findings(report)}) == (1, True)
        # Sooner, the seals of its neighbours name the ones that are gone.
    code, report = verified(export, folder=tmp_path, after_s=90)
    assert {kind for kind, *_ in findings(report)} == {"stale"}


def test_a_single_changed_character_of_any_message_is_found(export: Export, tmp_path: Path) -> None:
    chance = random.Random(11)
    for turn in range(12):
        # Also in a seal: its text is a message like any other.
        at = len(export.rows) // 2 if turn == 0 else chance.randrange(len(export.rows) - 2)
        row = export.rows[at]
        start = export.body(row)
        places = [i for i in range(start, len(row)) if row[i].isalnum()]
        place = chance.choice(places)
        other = chance.choice([c for c in "abcxyz0123456789" if c != row[place].lower()])
        forged = f"{row[:place]}{other}{row[place + 1 :]}"
        if row[place - 1] == "\\":
            continue  # an escape of JSON, which may become none
        code, report = verified(
            export.tampered(lambda rows: [forged if r == row else r for r in rows]),  # noqa: B023  (called now)
            folder=tmp_path,
        )  # fmt: skip
        assert code == 1, (row, forged)
        kinds = {kind for kind, *_ in findings(report)}
        assert kinds & {"changed", "missing", "forged", "added"}, (row, forged)


def test_a_changed_event_is_found_in_its_window(export: Export, tmp_path: Path) -> None:
    for at in (export.events[2], export.events[24]):
        row = export.rows[at]
        forged = row.replace("was provisioned", "was not provisioned")
        assert forged != row
        tampered = export.tampered(lambda rows: [forged if r == row else r for r in rows])  # noqa: B023  (called now)
        code, report = verified(tampered, folder=tmp_path)
        assert (code, findings(report)) == (1, {export.window_of(number_of(row))})


def renumbered(row: str, number: int) -> str:
    return re.sub(r"\b([a-z2-7]{10}):\d+\b", rf"\g<1>:{number}", row, count=1)


def forged_event(export: Export) -> str:
    """An event as somebody at the SIEM would write it, with a number of the stream."""
    return export.rows[export.events[4]].replace("provisioned", "granted root")


def swapped(export: Export) -> list[str]:
    rows = [*export.rows]
    a, b = export.events[2], export.events[3]
    numbers = number_of(rows[a]), number_of(rows[b])
    rows[a], rows[b] = renumbered(rows[a], numbers[1]), renumbered(rows[b], numbers[0])
    return rows


ADDITIONS: dict[str, tuple[Callable[[Export], list[str]], Callable[[Export], set[Finding]]]] = {
    "with a used number": (
        lambda x: [*x.rows, renumbered(forged_event(x), number_of(x.rows[9]))],
        lambda x: {("added", number_of(x.rows[9]), number_of(x.rows[9]))},
    ),
    "with a used number, before it": (
        lambda x: [renumbered(forged_event(x), number_of(x.rows[9])), *x.rows],
        lambda x: {("added", number_of(x.rows[9]), number_of(x.rows[9]))},
    ),
    "with the number of a seal": (
        lambda x: [*x.rows, renumbered(forged_event(x), x.windows()[0].stop)],
        lambda x: {("added", x.windows()[0].stop, x.windows()[0].stop),
                   ("split", x.windows()[0].stop, x.windows()[0].stop)},
    ),
    "without a number": (
        lambda x: [*x.rows, forged_event(x).replace(x.stream, "somebody")],
        lambda x: {("added", None, None)},
    ),
    "for a deleted one": (
        lambda x: [forged_event(x) if i == x.events[4] else row for i, row in enumerate(x.rows)],
        lambda x: {x.window_of(number_of(x.rows[x.events[4]]))},
    ),
    "of a stream that nobody sealed": (
        lambda x: [*x.rows, forged_event(x).replace(x.stream, "zzzzzzzz22")],
        lambda x: {("unproven", number_of(forged_event(x)), number_of(forged_event(x)))},
    ),
    "two that have exchanged their numbers": (
        swapped, lambda x: {x.window_of(number_of(x.rows[x.events[2]]))},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "expected"), ADDITIONS.values(), ids=ADDITIONS)
def test_an_added_event_is_found(
    attack: Callable[[Export], list[str]], expected: Callable[[Export], set[Finding]],
    export: Export, tmp_path: Path,
) -> None:  # fmt: skip
    code, report = verified(export.tampered(lambda _: attack(export)), folder=tmp_path)
    assert code == 1
    assert findings(report) == expected(export)


def test_messages_that_a_receiver_has_shortened_are_found(export: Export, tmp_path: Path) -> None:
    if export.sink == "elastic":
        pytest.skip("a document that is cut off is none")
    shortest = min(map(len, seals([*export.rows])))
    cut = export.tampered(lambda rows: [row[: shortest - 10] for row in rows])
    code, report = verified(cut, folder=tmp_path)
    assert code == 1
    # Seals are longer than events: none is left.
    assert {kind for kind, *_ in findings(report)} >= {"stale", "unproven"}


def test_an_export_that_is_cut_in_the_middle_of_a_message_is_found_or_cannot_be_read(
    export: Export, tmp_path: Path
) -> None:
    text = export.shape(export.rows)
    for share in (0.3, 0.62, 0.97):
        kept = text[: int(len(text) * share)]
        code, _ = verified(
            kept, export.tampered(lambda rows: rows[:1]), folder=tmp_path, after_s=90
        )
        assert code in (1, 2)


def test_a_siem_that_rewrites_fields_is_found_unless_its_own_are_named(
    recorded: dict[str, Export], tmp_path: Path
) -> None:
    export = recorded["Elasticsearch, a scroll"]

    def each(change: Callable[[dict[str, object]], object]) -> Export:
        def changed(row: str) -> str:
            document = json.loads(row)
            change(document)
            return json.dumps(document)

        return export.tampered(lambda rows: [*map(changed, rows)])

    ingested = each(lambda d: d.update({"ingested": "2026-11-28T03:00:00Z"}))
    assert verified(ingested, folder=tmp_path)[0] == 1
    assert verified(ingested, folder=tmp_path, options=["--added", "ingested"])[0] == 0
    for rewritten in (
        each(lambda d: d.update({"when": d.pop("@timestamp")})),
        each(lambda d: d.update({"message": [d["message"]]})),
        each(lambda d: d.update({"@timestamp": str(d["@timestamp"]).replace("Z", "+00:00")})),
        each(lambda d: d.pop("event")),
    ):
        code, report = verified(rewritten, folder=tmp_path)
        assert (code, {kind for kind, *_ in findings(report)} & {"changed", "added"} != set()) == (
            1, True,
        )  # fmt: skip


def test_sinks_side_by_side_are_judged_stream_by_stream(
    recorded: dict[str, Export], tmp_path: Path
) -> None:
    every = {export.sink: export for export in recorded.values()}
    code, report = verified(*every.values(), folder=tmp_path)
    assert (code, findings(report), len(report["streams"])) == (0, set(), len(every))
    assert report["elsewhere"] == []
    mixed = every["ng-json"].tampered(lambda rows: [*rows, *every["gelf"].rows])
    code, report = verified(mixed, folder=tmp_path)
    assert (code, findings(report), len(report["streams"])) == (0, set(), 2)
    tampered = deleted(every["gelf"], 3)
    code, report = verified(*(every | {"gelf": tampered}).values(), folder=tmp_path)
    assert (code, findings(report)) == (1, tampered.holes())
    assert {finding["stream"].split("/")[1] for finding in report["findings"]} == {"gelf"}
    code, report = verified(tampered, every["otlp"], folder=tmp_path, options=["--sink", "otlp"])
    assert (code, findings(report)) == (0, set())


def test_a_stream_of_which_the_end_is_gone_is_missed_by_the_seals_of_its_neighbours(
    recorded: dict[str, Export], tmp_path: Path
) -> None:
    every = {export.sink: export for export in recorded.values()}
    cut = every["gelf"].tampered(lambda rows: rows[:25])
    code, report = verified(*(every | {"gelf": cut}).values(), folder=tmp_path)
    assert code == 1
    assert "missing" in {kind for kind, *_ in findings(report)}
    assert {finding["stream"].split("/")[1] for finding in report["findings"]} == {"gelf"}


def test_a_stream_of_which_nothing_is_left_is_named_by_its_neighbours(
    recorded: dict[str, Export], tmp_path: Path
) -> None:
    every = {export.sink: export for export in recorded.values()}
    del every["gelf"]
    _, report = verified(*every.values(), folder=tmp_path)
    (gone,) = report["elsewhere"]
    assert gone.split("/")[1] == "gelf"


def test_the_wrong_key_proves_nothing(export: Export, tmp_path: Path) -> None:
    other = str(Signer.generate(export.key.split("+")[0]).verifier)
    code, report = verified(export, folder=tmp_path, keys=[other])
    assert code == 1
    assert {kind for kind, *_ in findings(report)} == {"forged", "unproven", "stale"}


def resealed(export: Export, signer: Signer) -> list[str]:
    """The rows with the seals signed anew."""
    rows = []
    for row in export.rows:
        word = find_seal(row.encode())
        if word is not None:
            seal = read_seal(word, ())
            text = made_text(seal.origin, seal.tree, seal.tally, [signer])
            row = row.replace(f"siemrelay-seal:{word.decode()}", text)
        rows.append(row)
    return rows


def seals(rows: list[str]) -> list[str]:
    return [row for row in rows if sealed_by(row) is not None]


def damaged(row: str) -> str:
    at = row.index("siemrelay-seal:") + 200
    return row[:at] + ("A" if row[at] != "A" else "B") + row[at + 1 :]


SEALS: dict[str, tuple[Callable[[Export], list[str]], set[str]]] = {
    "sent again": (lambda x: [*x.rows, *seals([*x.rows])], set()),
    "all deleted": (
        lambda x: [row for row in x.rows if sealed_by(row) is None], {"unproven", "stale"},
    ),
    "signed by a key of the same name": (
        lambda x: resealed(x, Signer.generate(x.key.split("+")[0])),
        {"forged", "unproven", "stale"},
    ),
    "damaged": (
        lambda x: [damaged(row) if sealed_by(row) is not None else row for row in x.rows],
        {"forged", "unproven", "stale"},
    ),
    "the last one damaged, while the one before is fresh": (
        lambda x: [damaged(row) if row == seals([*x.rows])[-1] else row for row in x.rows],
        {"forged"},
    ),
    "copied into another stream": (
        lambda x: [*x.rows, seals([*x.rows])[1].replace(f"{x.stream}:", "zzzzzzzz22:")],
        {"forged", "unproven"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("attack", "kinds"), SEALS.values(), ids=SEALS)
def test_verify_finds_each_attack_on_seals_and_nothing_else(
    attack: Callable[[Export], list[str]], kinds: set[str], export: Export, tmp_path: Path
) -> None:
    code, report = verified(export.tampered(lambda _: attack(export)), folder=tmp_path)
    assert (code, {kind for kind, *_ in findings(report)}) == (int(bool(kinds)), kinds)


def test_what_stands_behind_the_last_seal_is_not_shown_as_proven(
    export: Export, tmp_path: Path
) -> None:
    free = len(export.rows)
    copied = renumbered(seals([*export.rows])[1], free)
    for row, kinds in ((renumbered(forged_event(export), free), set()), (copied, {"forged"})):
        more = export.tampered(lambda rows: [*rows, row])  # noqa: B023  (called now)
        for after_s, state, late in ((0, "pending", set()), (90, "overdue", {"stale", *kinds})):
            code, report = verified(more, folder=tmp_path, after_s=after_s)
            tail = report["streams"][0]["tail"]
            assert (tail["state"], tail["messages"], tail["first"]) == (state, 1, free)
            assert {kind for kind, *_ in findings(report)} == late
            assert code == int(bool(late))
