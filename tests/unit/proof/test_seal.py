"""A seal is read back whole, or not at all."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
import pytest

from siemrelay.proof.merkle import Tree, leaf_hash
from siemrelay.proof.note import Signer
from siemrelay.proof.seal import Absent, Anchor, SealTally, find_seal, made_text, read_seal

SIGNER = Signer.generate("relay.example")
TREE = Tree().extended([leaf_hash(b"%d" % n) for n in range(11)])
ORIGIN = "relay.example/splunk/abcdefgh22"
TALLY = SealTally(
    number=12, at="2026-11-28T03:00:00Z", reason="interval", every_s=60.0, next_sequence=40,
    counts={"delivered": 12, "filtered": 27}, format="json", version="1.0", configuration="c0ffee",
    cause="start", absent=[Absent(3, "00" * 32, "400 no")],
    previous=Anchor.of("relay.example/splunk/zzzzzzzz22", TREE),
)  # fmt: skip


def test_a_seal_in_a_text_is_read_back_with_the_keys_that_signed_it() -> None:
    text = f"sealed: {made_text(ORIGIN, TREE, TALLY, [SIGNER])} and more"
    word = find_seal(text.encode())
    assert word is not None
    seal = read_seal(word, [SIGNER.verifier])
    assert (seal.origin, seal.tree, seal.tally) == (ORIGIN, TREE, TALLY)
    assert seal.opened.verified == (SIGNER.verifier,)
    assert seal.stream == "abcdefgh22"
    assert TALLY.previous is not None
    assert TALLY.previous.tree == TREE


def test_a_text_without_a_seal_has_none() -> None:
    assert find_seal(b"siemrelay-seal: soon") is None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_seal_of_parts_that_do_not_belong_together_is_malformed(part: int) -> None:
    other = TREE.extended([leaf_hash(b"x")])
    words = [
        made_text(ORIGIN, TREE, TALLY, [SIGNER]),
        made_text(ORIGIN, other, msgspec.structs.replace(TALLY, number=13), [SIGNER]),
    ]
    first, second = (
        list(msgspec.msgpack.decode(urlsafe_b64decode(word.partition(":")[2] + "==")))
        for word in words
    )
    first[part] = second[part]
    mixed = urlsafe_b64encode(msgspec.msgpack.encode(first)).rstrip(b"=")
    with pytest.raises(ValueError, match="malformed seal"):
        read_seal(mixed, [SIGNER.verifier])


@pytest.mark.parametrize("word", [b"A" * 100, b"_" * 101, b"k" * 400])
def test_garbage_is_a_malformed_seal(word: bytes) -> None:
    with pytest.raises(ValueError, match="malformed seal"):
        read_seal(word, [SIGNER.verifier])
