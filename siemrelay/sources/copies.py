"""Whether a file that appears is a copy of one that was read: logrotate's `copytruncate` and
`compress` make such copies, and their records must not be delivered twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from siemrelay.sources.content import Content, GzipContent, PlainContent
from siemrelay.sources.generations import COMPRESSED, family
from siemrelay.sources.identity import PREFIX_BYTES, Place, begins_as, continues_at, showable


class Candidate(NamedTuple):
    """A content that was read, at least in part."""

    key: str
    place: Place
    settled: bool
    """Whether nothing more will be read from it: deleted and finished, truncated, or gone."""
    head: bytes | None
    """Its first bytes (of `place.prefix_length`) where they are known."""


class Origin(NamedTuple):
    """`candidate` is what the file is a copy of, if any; wait and ask again if not `certain`."""

    candidate: Candidate | None
    certain: bool
    whole: bool = False
    """Whether all that is in the copy (as long as it stays so) was read from the original."""


def candidates_for(path: str, known: Iterable[Candidate]) -> list[Candidate]:
    """Those of `known` (all of one log) that `path` may be a copy of, by their names.

    A log's plain copy has the suffix of a rotated file; its origin is the log itself, or what was
    truncated, under whatever name. A compressed one may come from any generation: the plain file
    is gone then, or has the name without `.gz`.
    """
    shown = showable(path)
    able = [item for item in known if item.place.offset > 0 and not item.place.copied]
    if path.endswith(COMPRESSED):
        plain = shown.removesuffix(COMPRESSED)
        return [item for item in able if item.settled or item.place.path == plain]
    base = family(shown)
    if shown == base:
        return []
    return [item for item in able if item.place.path == base or item.place.truncated]


def find_origin(content: Content, candidates: Iterable[Candidate]) -> Origin:
    """Which of the candidates `content` begins with; of several, the one read furthest.

    Inflates a gzip file up to the candidate's place.
    """
    begin = content.pread(PREFIX_BYTES, 0)
    certain = True
    found: Candidate | None = None
    shorter: Candidate | None = None
    # Rising offsets, so that a gzip file is inflated once.
    for candidate in sorted(candidates, key=lambda item: item.place.offset):
        place = candidate.place
        if len(begin) < place.prefix_length:
            # As far as it goes it may be the same: it is being written.
            may_grow = not isinstance(content, GzipContent) or not content.complete
            if may_grow and (candidate.head is None or candidate.head.startswith(begin)):
                certain = False
        elif begins_as(begin, place):
            if continues_at(content, place):
                found = candidate
                certain = certain and candidate.settled
            elif not _reaches(content, place.offset):
                certain = False
                # Between cp and the truncation the log went on, and was read: a copy in progress
                # is like this too. A whole kilobyte that is the same is taken as proof.
                if place.prefix_length == PREFIX_BYTES and isinstance(content, PlainContent):
                    shorter = candidate
    if found is None and shorter is not None:
        return Origin(shorter, certain, whole=True)
    return Origin(found, certain)


def _reaches(content: Content, offset: int) -> bool:
    """Whether the content is as long as that, or has ended before."""
    if isinstance(content, PlainContent):
        return len(content.pread(1, offset - 1)) == 1
    return content.complete or content.damage is not None or len(content.pread(1, offset - 1)) == 1
