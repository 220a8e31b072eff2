"""Every exception of the relay, named for what the caller does next.

Facts are attributes, so that a log line, a metric and a person can each take what they need;
the text is one sentence that says what happened and, where there is one, what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar


class SiemrelayError(Exception):
    """The root of all: catch it only where it is reported to a person."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in the configuration; `line` and `column` count from 1.

    `file` is the included file that has it; None for the main one.
    """

    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    file: str | None = None

    def located(self, file: str) -> str:
        """`FILE:LINE:COLUMN: key: message`, the form that editors jump to; `file`: the main one."""
        file = self.file or file
        place = file if self.line is None else f"{file}:{self.line}:{self.column or 1}"
        return f"{place}: {self.key + ': ' if self.key else ''}{self.message}"


class ConfigurationRefused(SiemrelayError):
    """The configuration has faults: show all of them, change nothing, exit with 78."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file, self.faults = file, faults
        super().__init__("\n".join(fault.located(file) for fault in faults))


class StartRefused(SiemrelayError):
    """The relay cannot start here (state directory or port in use): report it and exit."""


class ListenRefused(SiemrelayError):
    """A listener cannot take its address now: try again; the text says what to change."""


class BufferFull(SiemrelayError):
    """No room for more records: acknowledge nothing, try again when `store` says there is room."""


class DiskFull(BufferFull):
    """The file system has no room left: as `BufferFull`, and retrying by itself finds the room."""


class BufferBroken(SiemrelayError):
    """The disk failed under the buffer (I/O error, failed fsync): end the process.

    After a failed fsync nothing about the written pages can be trusted; a new process reads back
    what is really there.
    """


class BufferMoved(BufferBroken):
    """The buffer's files are no longer at their path: acknowledge nothing more, end the process.

    At once: an orderly end of the interpreter would close the files (see `Store.close`).
    """


class DeliveryError(SiemrelayError):
    """The root of the errors that a sink raises about a batch of messages."""


class SinkWaits(DeliveryError):
    """A passing fault (network, 5xx, 429): send the whole batch again after a while, for ever.

    `throttled`: the receiver works and limits how much it takes.
    """

    def __init__(
        self, reason: str, *, after_s: float | None = None, throttled: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.after_s, self.throttled = reason, after_s, throttled


class SinkHolds(DeliveryError):
    """Only a person can fix this (credentials, URL, TLS): keep everything, try again seldom.

    `advice` is the sentence that says what to change.
    """

    def __init__(self, reason: str, *, advice: str) -> None:
        super().__init__(f"{reason}; {advice}" if advice else reason)
        self.reason, self.advice = reason, advice


class BatchRefused(DeliveryError):
    """The peer read the batch and will never take it as it is: search for the culprit.

    `index`: which message that is, as far as the peer says; it may be wrong.
    """

    def __init__(self, *, code: str, reason: str, index: int | None = None) -> None:
        super().__init__(f"refused: {code} {reason}")
        self.code, self.reason, self.index = code, reason, index


_Error = TypeVar("_Error", bound=BaseException)


def leaves(group: BaseExceptionGroup[_Error]) -> list[_Error]:
    """The errors inside a group, at any depth, in order."""
    found: list[_Error] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def most_lasting_error(group: BaseExceptionGroup[BaseException]) -> DeliveryError:
    """The most lasting of the errors of a sink's tasks: the one to act on.

    SinkHolds before SinkWaits before the others, the earliest of equals. Raises what else is in the
    group, which matters more than the failure of a sink: a stop, a bug.
    """
    _, rest = group.split(DeliveryError)
    if rest is not None:
        raise rest from None
    found = [error for error in leaves(group) if isinstance(error, DeliveryError)]
    return min(found, key=lambda error: _LASTING.get(type(error), len(_LASTING)))


_LASTING: Final = {SinkHolds: 0, SinkWaits: 1}


def without_traceback(error: _Error) -> _Error:
    """The same error without traceback, cause and context; those in its group and chain alike.

    For an error that is handled and kept. A traceback holds frames and their variables: batches,
    and often the error itself. Such a cycle and the megabytes in it stay until the garbage
    collector runs, which is seldom; checked by
    test_a_sink_that_fails_again_and_again_leaves_nothing_to_the_collector.
    """
    pending = list[BaseException | None]([error])
    while pending:
        each = pending.pop()
        if each is None:
            continue
        pending += (each.__cause__, each.__context__)
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
        each.__traceback__ = each.__cause__ = each.__context__ = None
    return error


class FrameRefused(SiemrelayError):
    """Bytes that break the protocol's framing: close the connection."""
