"""The Splunk sink: HTTP Event Collector, confirmed by its answer or by indexer acknowledgement.

A request that Splunk refuses because of one event is sent again without it, in the same exchange.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from siemrelay.core.errors import BatchRefused, DeliveryError, SinkHolds, SinkWaits
from siemrelay.core.options import Secret
from siemrelay.formats.envelopes.splunk_hec import hec_events
from siemrelay.sinks.contract import ProtocolKind, Refusal, Report, Settlement, no_report
from siemrelay.sinks.http.answer import ADVICE, Answer
from siemrelay.sinks.http.client import Client, RequestSink
from siemrelay.sinks.http.exchanges import ExchangeSession, open_exchanges
from siemrelay.sinks.refusal_search import ALL_REFUSED, RefusalSearch
from siemrelay.sinks.splunk_hec.acks import IndexerAcknowledgements
from siemrelay.sinks.splunk_hec.options import (
    CREDENTIAL,
    SplunkHecOptions,
    acknowledgement_url,
    event_url,
    token_remarks,
)
from siemrelay.wire import hec_client as hec
from siemrelay.wire.stream_framing import newline

# Splunk Cloud answers 404 for a while when parts of it are replaced.
_MISSING_S: Final = 300.0

_ELSEWHERE: Final = (
    "what answered is not the HTTP Event Collector: check the port in `url` (8088 by default), and "
    "whether a proxy or a log-in page is in the way"
)
_ELSEWHERE_ADVICE: Final = {
    status: advice if status == 407 else f"{advice}; {_ELSEWHERE}"
    for status, advice in ADVICE.items()
}
"""Status → advice for an answer that is not the collector's."""


class SplunkHecSink(RequestSink):
    """Batches of events POSTed to one collector."""

    def __init__(self, options: SplunkHecOptions) -> None:
        self._raw, self._acknowledge = options.endpoint == "raw", options.indexer_acknowledgement
        # One channel per sink: Splunk keeps each for long, and counts ids within it.
        channel = str(uuid.uuid4())
        self._url, self._ack_url = event_url(options), acknowledgement_url(options, channel)
        if self._raw or self._acknowledge:
            # Only where it is needed: without it, a token with acknowledgement on answers code 10
            # at once to a sink that would not wait for it.
            headers = {**options.headers, "X-Splunk-Request-Channel": Secret(channel)}
            options = options.model_copy(update={"headers": headers})
        super().__init__(options)
        self._options = options
        self._missing_since_s: float | None = None

    @asynccontextmanager
    async def session(self, report: Report = no_report) -> AsyncIterator[ExchangeSession]:
        """See `sinks.contract.Sink`; the first request connects."""
        async with self.client(report) as client:
            requests = trio.CapacityLimiter(self._options.in_flight)

            async def ask(ack_ids: Sequence[int]) -> Mapping[int, bool]:
                return await self._acknowledged(client, ack_ids)

            acknowledgements = IndexerAcknowledgements(ask)

            async def exchange(messages: Sequence[bytes]) -> Settlement:
                async with requests:
                    refusals, ack_ids = await self._deliver(client, messages)
                if self._acknowledge:
                    await acknowledgements.wait(ack_ids)
                return refusals

            batches = self._options.limits().in_flight_batches or self._options.in_flight
            async with open_exchanges(
                exchange, in_flight=batches, beside=acknowledgements.poll
            ) as session:
                yield session

    async def _deliver(
        self, client: Client, messages: Sequence[bytes]
    ) -> tuple[list[Refusal], list[int]]:
        """Send all events; returns the refusals, and the acknowledgement ids of the rest.

        Splunk does not document whether it keeps the events before a refused one. They are sent
        again, so they may arrive twice, but they do arrive.
        """
        answers = list[hec.HecAnswer]()
        search = RefusalSearch(len(messages))
        while (part := search.next()) is not None:
            try:
                answers.append(await self._post(client, messages[slice(*part)]))
            except hec.EventRefused as why:
                search.refuse(why)
                if not answers and ALL_REFUSED <= len(search.refusals) < len(messages):
                    # The delivery knows whether Splunk ever took any, and goes on in larger parts.
                    raise BatchRefused(code=why.code, reason=why.reason) from why
            else:
                search.take()
        return search.refusals, [each.ack_id for each in answers if each.ack_id is not None]

    async def _post(self, client: Client, messages: Sequence[bytes]) -> hec.HecAnswer:
        # Events are concatenated JSON objects, between which Splunk ignores white space; raw events
        # are lines.
        kind = "text/plain" if self._raw else "application/json"
        answer = await client.post(self._url, newline(messages), kind)
        found = hec.read_answer(answer.body)
        if error := self._failure(answer, found):
            raise error
        if found is None or found.code not in hec.CONFIRMING:
            raise SinkHolds(str(answer), advice=_ELSEWHERE)
        if self._acknowledge and found.ack_id is None:
            raise SinkHolds(
                "Splunk took the events without an acknowledgement id",
                advice=hec.ENABLE_ACKNOWLEDGEMENT,
            )
        return found

    async def _acknowledged(self, client: Client, ack_ids: Sequence[int]) -> Mapping[int, bool]:
        answer = await client.post(
            self._ack_url, hec.ack_query(ack_ids), "application/json", compress=False
        )
        found = hec.read_ack_results(answer.body)
        error = self._failure(answer, hec.read_answer(answer.body))
        if error is None and found is not None:
            return found
        # Nothing is confirmed without the acknowledgement that was asked for.
        if error is None or isinstance(error, BatchRefused):
            raise SinkHolds(
                f"Splunk answered a question about acknowledgements with {answer}",
                advice="does `url` lead to Splunk itself? Else set `indexer_acknowledgement: no`",
            )
        raise error

    def _failure(self, answer: Answer, found: hec.HecAnswer | None) -> DeliveryError | None:
        """The error to raise for an answer that is no success; `found` is its body as Splunk's."""
        if answer.status != 404:
            self._missing_since_s = None
        if found and (error := hec.error_for(found, answer.status, answer.retry_after_s)):
            return error
        if 200 <= answer.status < 300:
            return None
        advice = ADVICE if found is not None else _ELSEWHERE_ADVICE
        if answer.status == 404 and self._missing_for_s() < _MISSING_S:
            return SinkWaits(f"{answer}; {advice[404]}")
        error = answer.error(advice)
        if found is None and isinstance(error, BatchRefused) and answer.status != 413:
            # The collector gives a code when it refuses an event; this is another server.
            return SinkHolds(str(answer), advice=_ELSEWHERE)
        return error

    def _missing_for_s(self) -> float:
        now_s = trio.current_time()
        if self._missing_since_s is None:
            self._missing_since_s = now_s
        return now_s - self._missing_since_s


SPLUNK_HEC: Final = ProtocolKind(
    SplunkHecOptions, SplunkHecSink, "json",
    "Splunk's HTTP Event Collector, confirmed by its answer or by the indexers",
    port=8088, limits=lambda options: options.limits(), wrap=hec_events,
    credential=CREDENTIAL, remarks=token_remarks,
)  # fmt: skip
