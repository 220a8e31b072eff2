"""The keys of a webhook's requests: as many as are kept, the newest, and no others."""

from __future__ import annotations

import pytest

from siemrelay.sources.http import idempotency
from siemrelay.sources.http.idempotency import IdempotencyKeys

NOW = 1.7e9


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT", 4)


def request(keys: IdempotencyKeys, key: str, *, stored: bool) -> None:
    begun = keys.begin([key], key.encode(), 1, NOW)
    assert begun is not None
    keys.end(begun, stored=stored)


def test_a_key_is_forgotten_after_that_many_requests_also_if_some_were_not_stored() -> None:
    keys = IdempotencyKeys({})
    request(keys, "old", stored=True)
    for key in ("b", "c", "d"):
        request(keys, key, stored=False)
    assert keys.find(["old"], NOW) is not None
    for key in ("e", "f", "g", "h"):
        request(keys, key, stored=True)
    known = [key for key in ("old", *"bcdefgh") if keys.find([key], NOW) is not None]
    assert known == [*"efgh"]


def test_no_more_requests_are_under_way_than_keys_are_kept() -> None:
    keys = IdempotencyKeys({})
    begun = [keys.begin([key], b"", 1, NOW) for key in "abcd"]
    assert None not in begun
    assert keys.begin(["e"], b"", 1, NOW) is None
    assert begun[0] is not None
    keys.end(begun[0], stored=True)
    assert keys.begin(["e"], b"", 1, NOW) is not None
    assert keys.find(["a"], NOW) is None
