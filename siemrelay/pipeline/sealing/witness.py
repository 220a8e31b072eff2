"""Notices a state directory that was copied, set back, or moved to another machine.

A sealed stream goes on only if its state is the one that this machine wrote last. Its witness is a
small file that is made anew with each seal: no tool that copies or restores files can give a file
the inode and the time of change (ctime) that it had. The stream's state, in the buffer, has these,
and a digest of the machine's id. What sets back a whole disk (a snapshot of a virtual machine)
sets back all of it: only `siemrelay verify` finds that, by two histories of one stream.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from siemrelay.durable_files import sync, sync_directory
from siemrelay.pipeline.sealing.archive import SealArchive, folder_of
from siemrelay.proof.seal import Anchor, find_seal, read_seal
from siemrelay.proof.stream import ANOTHER_MACHINE, COPIED, SET_BACK, StreamState, Witness

_MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))

# Of a digest: nobody mistakes a machine for another by chance. The id itself is confidential
# (machine-id(5)).
_MACHINE_CHARACTERS: Final = 16

_NAME: Final = "witness-"


class Doubt(msgspec.Struct, frozen=True):
    """Why a state is not the one that was left last, one of `DOUBTS`; the true end, if known."""

    cause: str = ""
    end: Anchor | None = None


class StateWitness:
    """The witnesses of one relay's streams. Blocks: call it in threads."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._durable = set[str]()
        """Streams whose folders have their entries on disk."""

    def doubt(self, state: StreamState) -> Doubt:
        """Whether the state is one that was left behind: by the archive, and by its witness."""
        last = SealArchive(self._state_dir, state.name, 0).last_seal()
        # A seal is archived when it is confirmed, and stored in the state before it is sent.
        known = state.sealed.size if state.pending is None else state.pending.size
        if last is not None and last.origin == state.origin and last.size > known:
            with suppress(ValueError):
                tree = read_seal(find_seal(last.text.encode()) or b"", ()).tree
                return Doubt(SET_BACK, Anchor.of(last.origin, tree))
            return Doubt(SET_BACK)
        return Doubt(self._missed(state))

    def _missed(self, state: StreamState) -> str:
        """Why the state is not the one that this machine wrote last; empty if nothing says so."""
        witness = state.witness
        if witness is None:  # of a relay before there were any, or the disk was full
            return ""
        if witness.machine and witness.machine != _machine():
            return ANOTHER_MACHINE
        found = self._found(folder_of(self._state_dir, state.name) / witness.name)
        return "" if found is not None and is_the_file(witness, *found) else COPIED

    def renewed(self, stream: str) -> Witness | None:
        """Make the next witness of a stream, on disk at return; None, if there is no room for it.

        The one before stays until `keep_only`: the state names it until it is stored with this one.
        """
        folder = folder_of(self._state_dir, stream)
        path = folder / f"{_NAME}{secrets.token_hex(8)}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            sync_directory(folder)
            if stream not in self._durable:
                sync_directory(folder.parent)
                sync_directory(self._state_dir)
                self._durable.add(stream)
        except OSError:
            return None
        found = self._found(path)
        return None if found is None else Witness(path.name, *found, _machine())

    def keep_only(self, stream: str, witness: Witness) -> None:
        """Remove the witnesses of a stream before this one, which is stored."""
        for path in folder_of(self._state_dir, stream).glob(f"{_NAME}*"):
            if path.name != witness.name:
                with suppress(OSError):
                    path.unlink()

    @staticmethod
    def _found(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns


def is_the_file(witness: Witness, inode: int, changed_ns: int) -> bool:
    """Whether a witness is the file with that inode and time of change."""
    # A disk may keep fewer digits than memory: ext4 with small inodes, whole seconds.
    kept = (witness.changed_ns - witness.changed_ns % 10**digits for digits in range(10))
    return inode == witness.inode and changed_ns in kept


def _machine() -> str:
    for path in _MACHINE_IDS:
        with suppress(OSError):
            if identity := path.read_bytes().strip():
                return sha256(b"siemrelay " + identity).hexdigest()[:_MACHINE_CHARACTERS]
    return ""
