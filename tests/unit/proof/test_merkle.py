"""The tree grows by runs to what RFC 6962 defines, however the leaves are cut into runs."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from siemrelay.proof.merkle import Tree, leaf_hash, node_hash


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(by_definition(leaves[:k]), by_definition(leaves[k:]))


@given(runs=st.lists(st.integers(0, 40), max_size=12))
def test_a_tree_that_grows_by_runs_has_the_root_of_the_whole(runs: list[int]) -> None:
    leaves = [leaf_hash(b"%d" % n) for n in range(sum(runs))]
    tree, at = Tree(), 0
    for run in runs:
        tree, at = tree.extended(leaves[at : at + run]), at + run
        assert tree.root == by_definition(leaves[:at])
        assert (tree.size, tree.is_whole()) == (at, True)


def test_the_roots_are_those_of_the_test_vectors_of_certificate_transparency() -> None:
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
            "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    tree = Tree().extended([leaf_hash(bytes.fromhex(text)) for text in data])
    assert tree.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert Tree().root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_peaks_that_do_not_fit_the_size_are_no_tree() -> None:
    leaf = leaf_hash(b"")
    assert not Tree(2, (leaf, leaf)).is_whole()
    assert not Tree(1, (leaf[:31],)).is_whole()
    assert not Tree(0, (leaf,)).is_whole()
