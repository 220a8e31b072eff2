"""Leaves by number: as a dictionary, in less memory."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from siemrelay.proof.leaf_store import LeafStore
from siemrelay.proof.merkle import leaf_hash

STARTS = st.integers(0, 400) | st.integers(10**15, 10**15 + 200)


@given(added=st.lists(st.tuples(STARTS, st.integers(1, 150), st.booleans()), max_size=12))
def test_leaves_are_found_as_in_a_dictionary(added: list[tuple[int, int, bool]]) -> None:
    store, expected = LeafStore(), dict[int, bytes]()
    for turn, (first, count, at_once) in enumerate(added):
        leaves = {n: leaf_hash(b"%d %d" % (turn, n)) for n in range(first, first + count)}
        if at_once:
            is_new = not leaves.keys() & expected.keys()
            assert store.add_run(first, b"".join(leaves.values())) is is_new
            expected |= leaves if is_new else {}
        else:
            for number, leaf in leaves.items():
                assert store.add(number, leaf) == expected.get(number)
                expected.setdefault(number, leaf)
    assert (store.count, store.end) == (len(expected), max(expected, default=-1) + 1)
    for start, end in ((0, 600), (37, 300), (64, 128), (10**15 - 3, 10**15 + 400)):
        inside = {n: leaf for n, leaf in expected.items() if start <= n < end}
        assert store.between(start, end) == [expected.get(n) for n in range(start, end)]
        runs = list(store.runs(start, end))
        assert [n for first, last in runs for n in range(first, last + 1)] == sorted(inside)
        assert all(one[1] + 1 < two[0] for one, two in pairwise(runs))


def test_numbers_that_lie_far_apart_cost_little() -> None:
    store = LeafStore()
    for n in range(1000):
        store.add(n * 10**12, bytes([1]) * 32)
    assert store.held_bytes < 1000 * 600
