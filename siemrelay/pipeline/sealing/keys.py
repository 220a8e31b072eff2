"""The relay's signing keys, in a file of the state directory for this user alone (0600).

One key a line, each as Go's `sumdb/note` writes it; the last one signs. After `siemrelay seal
rotate` there are more: for an hour all of them sign, which hands over, then the last one stays.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import structlog

from siemrelay.buffer.threads import in_thread
from siemrelay.core.errors import SinkHolds, StartRefused
from siemrelay.durable_files import replace_file
from siemrelay.pipeline.sealing.archive import folder_of
from siemrelay.proof.note import Signer

_log = structlog.get_logger()

# Long enough for every sink that delivers to get a seal by all keys.
_HAND_OVER_S: Final = 3600.0

# Of several rotations within that time: each adds a signature to a seal.
_MOST_KEYS: Final = 4


def key_file(state_dir: Path) -> Path:
    """Where the keys are."""
    return state_dir / "seal.key"


class SealKeys:
    """The keys of one relay. The file is read for each seal, so that a rotation needs no reload."""

    def __init__(self, state_dir: Path, name: str, given: str | None = None) -> None:
        """`given` is a signing key from the configuration, used instead of the file."""
        self._path, self._name, self._given = key_file(state_dir), name, given
        self.signing = ""
        """The key that signs, as it was read last: NAME+ID, which begins its verifier key."""

    def make(self) -> list[Signer]:
        """The keys; makes the first one if there is none. Raises StartRefused.

        Warns when others may read them, and when seals by another key were sent before.
        """
        try:
            signers = self._read()
            if self._given is None and self._path.stat().st_mode & 0o077:
                _log.warning("others than its owner may read the signing key",
                             file=str(self._path), advice="chmod 600 that file; if somebody has "
                             "read it, run `siemrelay seal rotate`")  # fmt: skip
            return signers
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            where = self._path if self._given is None else "in `seal.key` of a sink"
            raise StartRefused(f"cannot use the signing key {where}: {error}") from error
        folder = self._path.parent
        if not folder.is_dir():
            raise StartRefused(f"there is no signing key yet, and no state directory {folder}: "
                               "start the relay once, which makes both")  # fmt: skip
        try:
            write_keys(self._path, [Signer.generate(self._name)])
            signers = self._read()
        except (OSError, ValueError) as error:
            raise StartRefused(f"cannot make the signing key {self._path}: {error}") from error
        if folder_of(folder, "").exists():
            _log.warning("the signing key was lost, and a new one signs from now on",
                         file=str(self._path), verifier_key=str(signers[-1].verifier),
                         advice="give auditors this verifier key beside the old one, or put the "
                         "old file back and restart; find out who removed it")  # fmt: skip
        return signers

    async def signers(self) -> list[Signer]:
        """The keys that sign now. Raises SinkHolds without a usable one."""
        try:
            return await in_thread(self._signing)
        except (OSError, ValueError) as error:
            raise SinkHolds(
                f"cannot sign: {self._path}: {error}",
                advice="restore the key from your copy, or remove the file and restart: then a new "
                "key signs, of which auditors must be told",
            ) from error

    def rotate(self, new: Signer) -> None:
        """Sign with `new` from the next seal on. Raises OSError, ValueError."""
        write_keys(self._path, [*self._read(), new][-_MOST_KEYS:])

    def _signing(self) -> list[Signer]:
        signers = self._read()
        if (
            self._given is None
            and len(signers) > 1
            and time.time() - self._path.stat().st_mtime > _HAND_OVER_S
        ):
            signers = signers[-1:]
            write_keys(self._path, signers)
        return signers

    def _read(self) -> list[Signer]:
        given = self._given
        signers = read_keys(self._path) if given is None else [Signer.read(given)]
        self.signing = signers[-1].verifier.title
        return signers


def read_keys(path: Path) -> list[Signer]:
    """The keys in a file. Raises OSError, and ValueError if it holds anything else."""
    signers = [Signer.read(line) for line in path.read_text().splitlines() if line.strip()]
    if not signers:
        raise ValueError("there is no key in it")
    return signers


def write_keys(path: Path, signers: list[Signer]) -> None:
    """Replace the file by one with these keys, whole or not at all, on disk at return.

    Raises OSError.
    """
    replace_file(path, "".join(f"{signer.written()}\n" for signer in signers).encode())
