"""Messages as the elements of a JSON array, which is what many receivers take a batch as."""

from __future__ import annotations

from collections.abc import Sequence


def json_array(elements: Sequence[bytes], before: bytes = b"[", after: bytes = b"]") -> bytes:
    """The elements, each a JSON value, with commas between and with what stands around them.

    Only the first and the last one are copied twice: a second copy of a large body costs about as
    much as sending it.
    """
    if not elements:
        return before + after
    parts = [*elements]
    parts[0] = before + parts[0]
    parts[-1] += after
    return b",".join(parts)
