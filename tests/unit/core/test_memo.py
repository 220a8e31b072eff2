"""A memo of what peers choose stays within its bounds, and gives what it would compute."""

from __future__ import annotations

from collections import Counter

from siemrelay.core.memo import MOST_CHARACTERS, MOST_KEYS, BoundedMemo


def test_a_value_is_computed_once_while_it_is_kept() -> None:
    computed = Counter[str]()

    def length(key: str) -> int:
        computed[key] += 1
        return len(key)

    memo = BoundedMemo[str, int](length)
    assert [memo["abc"], memo["abc"], memo["d"]] == [3, 3, 1]
    assert computed == {"abc": 1, "d": 1}


def test_a_flood_of_keys_starts_it_anew() -> None:
    memo = BoundedMemo[tuple[str, int], str](lambda key: key[0], most=10)
    for i in range(1000):
        assert memo["x", i] == "x"
        assert len(memo) <= 10
    assert MOST_KEYS == 4096


def test_a_key_with_too_many_characters_is_not_kept() -> None:
    memo = BoundedMemo[tuple[str | tuple[str, ...] | None, ...], int](len)
    kept = ("x" * (MOST_CHARACTERS - 2), None, "y", ("z",))
    assert (memo[kept], memo[(*kept, "z")]) == (4, 5)
    assert memo[(*kept, ("z",))] == 5
    assert list(memo) == [kept]
