"""Signed notes and their keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siemrelay.proof.note import Signer, Verifier, open_note, sign

SIGNER = Signer("relay.example", bytes(range(32)))
OTHER = Signer("relay.example", bytes(range(1, 33)))


def test_two_new_keys_differ() -> None:
    assert Signer.generate("relay.example") != Signer.generate("relay.example")


def test_a_key_survives_as_text() -> None:
    assert Signer.read(SIGNER.written()) == SIGNER
    assert Verifier.read(str(SIGNER.verifier)) == SIGNER.verifier
    assert SIGNER.written() not in repr(SIGNER)


def test_a_note_names_the_keys_that_signed_it_and_those_that_are_not_known() -> None:
    note = sign(b"one\ntwo\n", [SIGNER, OTHER])
    opened = open_note(note, [SIGNER.verifier])
    assert (opened.text, opened.verified) == (b"one\ntwo\n", (SIGNER.verifier,))
    assert opened.unknown == (f"relay.example+{OTHER.verifier.id.hex()}",)


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_note_with_a_changed_bit_is_not_verified(at: int, bit: int) -> None:
    note = bytearray(sign(b"one\ntwo\n", [SIGNER]))
    note[at % len(note)] ^= 1 << bit
    try:
        opened = open_note(bytes(note), [SIGNER.verifier])
    except ValueError:
        return
    assert not opened.verified


@pytest.mark.parametrize("text", [
    "", "relay", "relay+00000000+AAAA", f"{SIGNER.verifier}A", f"x{SIGNER.verifier}",
    SIGNER.written(),
])  # fmt: skip
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="verifier key"):
        Verifier.read(text)


def test_a_refused_signing_key_is_not_shown() -> None:
    broken = SIGNER.written().replace("relay", "other")
    with pytest.raises(ValueError, match="signing key") as refused:
        Signer.read(broken)
    assert broken.rpartition("+")[2] not in str(refused.value)


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb"])
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a key"):
        Signer.generate(name)
