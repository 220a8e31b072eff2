"""What is decided about a source's files: the table, row by row, and laws over any facts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.sources.file.disk import FileId
from siemrelay.sources.file.reconcile import (
    COPY_QUIET_S,
    DELETED_QUIET_S,
    RENAMED_QUIET_S,
    Action,
    Begin,
    Copied,
    FollowOn,
    Known,
    Lost,
    Orphan,
    Recovered,
    Renamed,
    Resume,
    Retired,
    Seen,
    SharedPrefix,
    Stage,
    Truncated,
    Wait,
    reconcile,
)

LOG, COPY = (1, 1), (1, 2)


def known(**changes: Any) -> Known:
    values: dict[str, Any] = {
        "key": "log",
        "path": "/a.log",
        "matched": True,
        "stage": Stage.READING,
        "offset": 50,
    }
    return Known(**(values | changes))


def seen(**changes: Any) -> Seen:
    return Seen(**({"path": "/a.log", "log": "a.log"} | changes))


def copy(same: int, length: int, *, offset: int = 50, key: str = "log", **changes: Any) -> Seen:
    """A file that may be a copy: so many of its bytes are proven to be those of `key`."""
    shared = SharedPrefix(key=key, same=same, offset=offset)
    values: dict[str, Any] = {
        "path": "/a.log.1", "length": length, "shared_prefixes": (shared,), "copy_by_name": True,
    }  # fmt: skip
    return seen(**(values | changes))


QUIET: dict[str, Any] = {"quiet_s": COPY_QUIET_S}


@pytest.mark.parametrize(
    ("was", "now", "actions"),
    [
        (None, seen(), [Begin(LOG)]),
        (None, seen(checkpoint="old"), [Resume(LOG, "old")]),
        (known(), seen(), []),
        (known(), seen(grown=True), [FollowOn(LOG)]),
        (known(), seen(path="/a.log.1"), [Renamed(LOG, "/a.log.1", True)]),
        (known(), seen(path="/x", matched=False), [Renamed(LOG, "/x", False)]),
        (known(), seen(changed=True), [Truncated(LOG)]),
        (known(), None, [Retired(LOG, "gone")]),
        (known(matched=False, idle_s=DELETED_QUIET_S), seen(matched=False, deleted=True),
         [Retired(LOG, "finished")]),
        (known(matched=False, idle_s=DELETED_QUIET_S - 1), seen(matched=False, deleted=True), []),
        (known(matched=False, idle_s=DELETED_QUIET_S),
         seen(matched=False, deleted=True, grown=True), [FollowOn(LOG)]),
        (known(matched=False, unread=1, idle_s=DELETED_QUIET_S),
         seen(matched=False, deleted=True), []),
        (known(matched=False, idle_s=RENAMED_QUIET_S), seen(matched=False),
         [Retired(LOG, "not written to any more")]),
        (known(stage=Stage.COPY), seen(deleted=True), [Retired(LOG, "finished")]),
        (known(stage=Stage.COPY), seen(grown=True), [FollowOn(LOG)]),
        (known(stage=Stage.COPY), seen(grown=True, differs=True), [Begin(LOG)]),
    ],
)  # fmt: skip
def test_a_file_that_is_no_copy(was: Known | None, now: Seen | None, actions: list[Action]) -> None:
    assert reconcile({LOG: was} if was else {}, {LOG: now} if now else {}, {}) == actions


@pytest.mark.parametrize(
    ("log", "now", "action"),
    [
        # The log itself is there: its copy waits, and is left out once it is whole and still.
        (seen(), copy(50, 50), Wait(COPY, "log")),
        (seen(), copy(50, 50, **QUIET), Copied(COPY, "log", 50, 0, whole=True)),
        (seen(), copy(40, 40, **QUIET), Copied(COPY, "log", 40, 0, whole=True)),
        (seen(), copy(60, 60, **QUIET), Wait(COPY, "log")),  # the log is read up to there first
        (seen(), copy(40, 40, complete=False, **QUIET), Wait(COPY, "log")),
        (seen(), copy(0, 40), Wait(COPY, None)),
        (seen(), copy(0, 40, **QUIET), Begin(COPY)),
        # The log was truncated, or is gone: the copy goes on where it was read to.
        (seen(changed=True), copy(50, 60), Copied(COPY, "log", 50, 0, whole=False)),
        (seen(changed=True), copy(60, 60), Copied(COPY, "log", 50, 0, whole=False)),
        (seen(changed=True), copy(50, 50), Copied(COPY, "log", 50, 0, whole=False)),
        (seen(changed=True), copy(40, 40), Copied(COPY, "log", 40, 0, whole=True)),
        (seen(changed=True), copy(40, 40, complete=False), Wait(COPY, None)),
        (None, copy(50, 60), Copied(COPY, "log", 50, 0, whole=False)),
        # No proof: to read it again is better than to lose it.
        (seen(changed=True), copy(0, 60), Wait(COPY, None)),
        (seen(), copy(20, 60, **QUIET), Begin(COPY)),
        (None, copy(20, 40, **QUIET), Begin(COPY)),
        # The inode of a deleted file with the same header.
        (seen(), copy(50, 50, checkpoint="header", checkpoint_offset=9), Wait(COPY, "log")),
        (seen(), copy(9, 50, checkpoint="old", checkpoint_offset=40), Resume(COPY, "old")),
        # Something changed while it was compared.
        (seen(), copy(0, 60, postponed=True, **QUIET), Wait(COPY, None)),
    ],
)  # fmt: skip
def test_a_file_that_may_be_a_copy(log: Seen | None, now: Seen, action: Action) -> None:
    there = {COPY: now} | ({LOG: log} if log else {})
    assert action in reconcile({LOG: known()}, there, {})


def test_without_time_to_wait_a_file_that_cannot_be_proven_a_copy_is_read() -> None:
    assert reconcile({}, {COPY: copy(0, 40)}, {}, final=True) == [Begin(COPY)]


def test_the_longest_proof_wins_over_a_common_header() -> None:
    shared_prefixes = (
        SharedPrefix(key="header", same=9, offset=9),
        SharedPrefix(key="origin", same=50, offset=50),
    )
    now = copy(0, 60, shared_prefixes=shared_prefixes)
    assert reconcile({}, {COPY: now}, {}) == [Copied(COPY, "origin", 50, 0, whole=False)]


def test_a_header_proves_nothing_while_a_longer_content_may_be_the_origin() -> None:
    shared_prefixes = (
        SharedPrefix(key="header", same=9, offset=9), SharedPrefix(key="origin", same=0, offset=50),
    )  # fmt: skip
    now = copy(0, 20, shared_prefixes=shared_prefixes)
    assert reconcile({}, {COPY: now}, {}) == [Wait(COPY, None)]


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (None, Lost("log", 10)),
        (copy(50, 60), Recovered("log")),
        (copy(0, 60, **QUIET), Recovered("log")),  # it is read from its beginning
        (copy(0, 60), None),  # it may turn out to be the copy
        (copy(40, 40), Lost("log", 10)),  # what was unread lies behind it
        (copy(50, 60, key="other"), Lost("log", 10)),
    ],
)
def test_what_was_unread_when_a_file_left_is_recovered_or_lost(
    now: Seen | None, outcome: Action | None
) -> None:
    orphans = {"log": Orphan(10, "a.log", 50)}
    actions = reconcile({}, {COPY: now} if now else {}, orphans)
    assert [a for a in actions if isinstance(a, Lost | Recovered)] == ([outcome] if outcome else [])


keys = st.sampled_from(["k1", "k2", "k3"])
ids = st.sampled_from([(1, n) for n in range(1, 5)])
sizes = st.integers(0, 60)
shared_prefixes = st.lists(
    st.builds(SharedPrefix, key=keys, same=sizes, offset=sizes),
    max_size=3,
    unique_by=lambda it: it.key,
)
knowns = st.builds(
    Known, key=keys, path=st.sampled_from(["/a", "/a.1"]), matched=st.booleans(),
    stage=st.sampled_from(Stage), offset=sizes, unread=sizes, idle_s=st.sampled_from([0.0, 1e4]),
)  # fmt: skip
seens = st.builds(
    Seen, path=st.sampled_from(["/a", "/a.1"]), matched=st.booleans(), deleted=st.booleans(),
    changed=st.booleans(), grown=st.booleans(), checkpoint=st.none() | keys, length=sizes,
    complete=st.booleans(), quiet_s=st.sampled_from([0.0, 1e4]), copy_by_name=st.booleans(),
    shared_prefixes=shared_prefixes.map(tuple), postponed=st.booleans(), differs=st.booleans(),
)  # fmt: skip
orphans = st.dictionaries(keys, st.builds(Orphan, sizes, st.just(""), sizes))


@given(st.dictionaries(ids, knowns), st.dictionaries(ids, seens), orphans, st.booleans())
def test_whatever_the_facts_no_byte_is_skipped_without_proof(
    known: dict[FileId, Known], seen: dict[FileId, Seen], orphans: dict[str, Orphan], final: bool
) -> None:
    actions = reconcile(known, seen, orphans, final=final)
    for action in actions:
        if isinstance(action, Copied):
            now = seen[action.file]
            (proof, *_) = [like for like in now.shared_prefixes if like.key == action.origin
                           and like.same >= action.through]  # fmt: skip
            assert 0 < action.through <= min(now.length, proof.offset)


@given(st.dictionaries(ids, knowns), st.dictionaries(ids, seens), orphans, st.booleans())
def test_whatever_the_facts_every_file_is_dealt_with_once(
    known: dict[FileId, Known], seen: dict[FileId, Seen], orphans: dict[str, Orphan], final: bool
) -> None:
    actions = reconcile(known, seen, orphans, final=final)
    fates = [a.file for a in actions if not isinstance(a, Renamed | Lost | Recovered)]
    assert len(fates) == len(set(fates))
    assert set(seen) - set(known) <= set(fates), "a new file is opened, resumed or waited for"
    assert set(known) - set(seen) <= {a.file for a in actions if isinstance(a, Retired)}
    settled = [a.key for a in actions if isinstance(a, Lost | Recovered)]
    assert len(settled) == len(set(settled))
