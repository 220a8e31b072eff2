"""Splunk's indexer acknowledgement: a request is confirmed only when the indexers have it.

Splunk answers `true` once and then forgets the id; `false` means pending, lost, or the wrong
indexer. So an id is asked for repeatedly, and a request without `true` after five minutes is sent
again. Source: Splunk, "About HTTP Event Collector Indexer Acknowledgment".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from siemrelay.core.errors import DeliveryError, SinkWaits

LOST_AFTER_S: Final = 300.0
"""Indexing may take two minutes behind a full queue; a request that takes so long is lost."""

# Indexing takes seconds; each question is a small request.
_FIRST_ASK_S: Final = 0.5
_LONGEST_ASK_S: Final = 8.0

Ask = Callable[[Sequence[int]], Awaitable[Mapping[int, bool]]]
"""Asks for ids. Raises SinkWaits if there is no answer now, SinkHolds if there will be none."""


class IndexerAcknowledgements:
    """The ids that one session waits for. Run `poll` as a task beside those that `wait`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._pending: dict[int, trio.Event] = {}
        self._wanted = trio.Event()
        self._failed: DeliveryError | None = None
        self._trouble = ""

    async def wait(self, ack_ids: Sequence[int]) -> None:
        """Wait until the indexers have acknowledged all of these.

        Raises: SinkWaits after `LOST_AFTER_S` or for an ambiguous id (send again), or the error
        with which asking failed.
        """
        events = {ack_id: trio.Event() for ack_id in ack_ids}
        if len(events) < len(ack_ids) or not self._pending.keys().isdisjoint(events):
            # Invariant: a `true` is never taken for another request's. Splunk counts ids from 0
            # again after a restart, and each indexer behind a load balancer counts its own; checked
            # by test_neither_of_two_requests_with_one_acknowledgement_id_is_confirmed.
            self._fail(SinkWaits(
                "Splunk gave two requests the same acknowledgement id: it was restarted, or a load "
                "balancer in front of several indexers does not keep this client at one of them"
            ))  # fmt: skip
        if self._failed is not None:
            raise self._failed
        self._pending |= events
        self._wanted.set()
        try:
            with trio.fail_after(LOST_AFTER_S):
                for event in events.values():
                    await event.wait()
        except trio.TooSlowError as error:
            why = self._trouble or "its answer was always: not yet"
            raise SinkWaits(
                f"Splunk did not acknowledge within {LOST_AFTER_S / 60:.0f} minutes ({why}); "
                "sending again"
            ) from error
        finally:
            for ack_id, event in events.items():
                if self._pending.get(ack_id) is event:
                    del self._pending[ack_id]
        # Read again: it may have been set while waiting.
        failed: DeliveryError | None = self._failed
        if failed is not None:
            raise failed

    async def poll(self) -> None:
        """Ask for the pending ids, until asking fails for good: then every `wait` fails."""
        pause_s = _FIRST_ASK_S
        while True:
            await self._wanted.wait()
            await trio.sleep(pause_s)
            asked = list(self._pending)
            if not asked:
                self._wanted, pause_s = trio.Event(), _FIRST_ASK_S
                continue
            pause_s = min(pause_s * 2, _LONGEST_ASK_S)
            try:
                answers = await self._ask(asked)
            except SinkWaits as error:
                # Ask again; sending again would only duplicate the events.
                self._trouble = error.reason
                pause_s = max(pause_s, min(error.after_s or 0.0, LOST_AFTER_S))
                continue
            except DeliveryError as error:
                self._fail(error)
                return
            self._trouble = ""
            for ack_id in asked:
                event = self._pending.pop(ack_id, None) if answers.get(ack_id) else None
                if event is not None:
                    event.set()
                    pause_s = _FIRST_ASK_S

    def _fail(self, error: DeliveryError) -> None:
        self._failed = error
        for event in self._pending.values():
            event.set()
