"""What is known of files from before: recognises a file that was read, under whatever name."""

# ruff: noqa: PTH119
# Paths are text here: each look at the disk handles them by the thousand, and Path costs tenfold.
from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from siemrelay.sources.content import Content, GzipContent, PlainContent, open_regular
from siemrelay.sources.contract import Position
from siemrelay.sources.copies import Candidate, candidates_for, find_origin
from siemrelay.sources.following import Followed
from siemrelay.sources.generations import family, is_compressed
from siemrelay.sources.globbing import Found
from siemrelay.sources.identity import (
    PREFIX_BYTES,
    Identity,
    Place,
    begins_as,
    continues_at,
    place_from,
    position,
    showable,
)
from siemrelay.sources.remembered import Remembered

# A file that may be the copy of another is looked at until it has been still for this long:
# cp and gzip write without pausing.
_COPY_QUIET_S: Final = 2.0
# Where reading starts at the end, the beginning of an incomplete line is looked for this far back.
_LAST_LINE_BYTES: Final = 64 << 10
# The key under which it is stored that reading began at the end of what was there.
_BEGUN_KEY: Final = "begun"


class Recognition:
    """Opens files and knows them again. What is to be stored gathers in `to_store`."""

    def __init__(self, log: Any, *, max_record_bytes: int) -> None:
        self._log, self._max_record_bytes = log, max_record_bytes
        self.to_store: list[Position] = []
        self.memory = Remembered()
        self._serial = time.time_ns()

    def recall(self, stored: Mapping[str, Mapping[str, Any]]) -> None:
        """Begin with the stored positions."""
        for key, value in stored.items():
            if key == _BEGUN_KEY:
                continue
            try:
                place = place_from(value)
            except msgspec.ValidationError as error:
                self._log.error("stored position not understood, ignored", key=key, why=str(error))
                continue
            self.memory.put(key, place)
            # The clock may have been set back since.
            self._serial = max(self._serial, place.serial)

    def mark_begun(self) -> None:
        """Store that reading began at the end, so that the next start does not do so again."""
        self.to_store.append(Position(_BEGUN_KEY, {"at": time.time()}))

    def open(self, file: Found) -> tuple[Followed, bool]:
        """Open a file that is not followed yet; the flag says whether it was read before.

        Nothing is changed but the file opened: `resumed` or `skip` may follow. Raises OSError;
        FileNotFoundError if the name now has another file, or none.
        """
        fd, status = open_regular(file.path)
        file, expected = file._replace(status=status), file.file_id
        if file.file_id != expected:
            os.close(fd)
            raise FileNotFoundError(f"{file.path} is another file now")
        self._serial += 1
        identity = Identity(file.path, *file.file_id, self._serial)
        followed = Followed(file.path, identity, max_record_bytes=self._max_record_bytes)
        content = followed.adopt(fd)
        followed.matched = file.matched
        try:
            known = self._known(content, file)
            if known is not None:
                self._resume(followed, content, file, *known)
            followed.saw(status)
            if followed.identity.finished_size == status.st_size:
                followed.close()
        except OSError:
            followed.close()
            raise
        return followed, known is not None

    def _known(self, content: Content, file: Found) -> tuple[str, Place] | None:
        remembered = self.memory.of_inode(file.status.st_ino)
        if not remembered:
            return None
        begin = content.pread(PREFIX_BYTES, 0)
        for key, place in remembered:
            # Device numbers may change when the machine starts; then the name must be the same.
            if place.device != file.status.st_dev and place.path != showable(file.path):
                continue
            # The compressed form of a file begins as it does, and may be given its inode.
            if is_compressed(place.path) != isinstance(content, GzipContent):
                continue
            if not begins_as(begin, place):
                continue
            if place.offset == 0 and place.finished_size != file.status.st_size:
                continue  # it was an empty gzip file, which says nothing of this one
            # Compressed files are written once: the beginning says enough, at no cost.
            if isinstance(content, GzipContent) or continues_at(content, place):
                return key, place
        return None

    def _resume(
        self, followed: Followed, content: Content, file: Found, key: str, place: Place
    ) -> None:
        begin = content.pread(PREFIX_BYTES, 0)
        found = (file.path, *file.file_id)
        followed.identity = identity = Identity.resume(key, place, found, begin)
        if place.finished_size != file.status.st_size:
            identity.move_to(content, place.offset)
        followed.searched_to_offset()
        if not file.matched:
            followed.family = family(place.path)  # wherever it went, it is a generation of that

    def resumed(self, followed: Followed) -> None:
        """Say that a file that was read before is followed again."""
        identity = followed.identity
        place = self.memory.pop(identity.key)
        if place is not None and (place.gone is not None or place.path != identity.path):
            self.to_store.append(identity.position())

    def skip(self, followed: Followed) -> None:
        """Take everything that is in a new file as read, but for an incomplete last line."""
        content, identity = followed.content, followed.identity
        if isinstance(content, PlainContent):
            start = max(0, followed.size - _LAST_LINE_BYTES)
            last = content.pread(followed.size - start, start)
            line_start = start + last.rfind(b"\n") + 1
            identity.move_to(content, line_start if b"\n" in last else followed.size)
        elif content is not None:
            identity.move_to(content, len(content.pread(PREFIX_BYTES, 0)))
            identity.finished_size = followed.size
            followed.ready = False
        followed.searched_to_offset()
        self.to_store.append(identity.position())

    def decide(self, followed: Followed, relatives: Iterable[Followed], *, final: bool) -> bool:
        """Settle whether a new file is a copy, and then start where its origin was read to.

        `relatives`: what is followed of the same log. `final`: there is no time to wait. Returns
        False to be asked again a little later. Raises OSError.
        """
        relatives = [other for other in relatives if other is not followed]
        candidates = candidates_for(followed.path, self._candidates(followed, relatives))
        if candidates:
            content = followed.content or followed.reopen()
            final = final or time.monotonic() - followed.changed_at >= _COPY_QUIET_S
            origin = find_origin(content, candidates)
            if not origin.certain and not final:
                return False
            content.keep_from(0)
            if origin.candidate is not None:
                place = origin.candidate.place
                start = followed.size if origin.whole else place.offset
                followed.identity.part = 0 if origin.whole else place.part
                followed.identity.move_to(content, start)
                followed.searched_to_offset()
                self._claim(followed, origin.candidate, relatives)
        followed.undecided = False
        return True

    def _candidates(self, followed: Followed, relatives: Iterable[Followed]) -> list[Candidate]:
        candidates = [
            Candidate(key, place, settled=True, head=None)
            for key, place in self.memory.of_log(os.path.basename(followed.family))
        ]
        for other in relatives:
            settled = other.deleted and other.idle
            identity = other.identity
            place = identity.place()
            candidates.append(Candidate(identity.key, place, settled, identity.head))
        return candidates

    def _claim(self, copy: Followed, origin: Candidate, relatives: list[Followed]) -> None:
        """Store that `copy` is one of `origin`, which is not taken for one's again."""
        self.to_store.append(copy.identity.position())
        for other in relatives:
            if other.identity.key == origin.key:
                other.identity.copied = True
                self.to_store.append(other.identity.position())
        if self.memory.pop(origin.key) is not None:
            claimed = msgspec.structs.replace(origin.place, copied=True)
            self.memory.put(origin.key, claimed)
            self.to_store.append(position(origin.key, claimed))
        self._log.info(
            "copy of a file that was read, reading only the rest",
            path=copy.identity.path,
            origin=origin.place.path,
            from_offset=copy.identity.offset,
        )

    def remember(self, identity: Identity) -> None:
        """Keep the place in a file that is followed no longer."""
        if identity.offset:
            place = identity.place(gone=time.time())
            self.memory.put(identity.key, place)
            self.to_store.append(position(identity.key, place))

    def expire(self) -> None:
        """Forget what is gone for long; call after every file that is there was opened."""
        self.to_store.extend(self.memory.expire(time.time()))
