"""How the bytes of a source become records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from siemrelay.wire.framing.lines import cut


@given(st.lists(st.sampled_from([b"", b"\r", b"a", b"bb\r", b"\0", b"c" * 50])), st.binary())
def test_cut_takes_every_line_but_the_blank_and_the_incomplete_ones(
    lines: list[bytes], rest: bytes
) -> None:
    rest = rest.replace(b"\n", b"")
    made = cut(b"".join(line + b"\n" for line in lines) + rest, 40)
    wanted = [line for line in lines if line not in (b"", b"\r")]
    if made is None:
        assert lines == []
        return
    assert made.consumed == b"".join(line + b"\n" for line in lines)
    assert made.payload == b"".join(line + b"\n" for line in wanted)
    assert made.count == len(wanted)
    assert list(made.oversize) == [len(line) for line in wanted if len(line) > 40]
