"""The Elasticsearch and OpenSearch sink: documents created by the bulk API, each with a result.

The action is `create` with the record's id as `_id`: a document without an answer is sent again,
and if it was stored after all, the result is a conflict (409). Documents for which the cluster has
no room now (429), or whose shard is away (5xx), are sent again without the others. Documents in
the data stream's failure store are refused, unless the options accept that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import trio
from msgspec.structs import replace
from pydantic import AfterValidator, Field

from siemrelay.core.errors import BatchRefused, SinkHolds, SinkWaits
from siemrelay.core.options import Size
from siemrelay.formats.envelopes.bulk import bulk_documents
from siemrelay.net.url import Url, url_below
from siemrelay.sinks.contract import ProtocolKind, Refusal, Remark, Settlement
from siemrelay.sinks.http.answer import ADVICE, Answer, passing_fault_advice
from siemrelay.sinks.http.client import Client, ExchangeSink
from siemrelay.sinks.http.options import RequestOptions
from siemrelay.sinks.http.sink import BatchOptions
from siemrelay.wire.elasticsearch import (
    FILTER_PATH,
    ItemResult,
    NotABulkResponse,
    failed_items,
    read_error,
)
from siemrelay.wire.stream_framing import newline

# The code of a refusal of which the cluster kept the document, outside the data stream.
_FAILURE_STORE: Final = "failure_store"

# The pause before items that a busy cluster rejected are sent again: its queues empty in fractions
# of a second. If none of them is taken then, the sink waits.
RETRY_DOCUMENTS_S: Final = 0.5

# While every document goes into the failure store, each attempt adds its documents there: so few of
# them try first, and now and then all, as these few may be bad by themselves.
_TRIAL_DOCUMENTS: Final = 10
_ALL_EVERY: Final = 15

# Elasticsearch's rules for names of indices and data streams: not these characters, no upper case,
# no `-`, `_`, `+` or `.` in front (hidden ones begin with a dot, but those are not for events).
_NO_INDEX: Final = re.compile(r'[-_+.].*|.*[\\/*?"<>| ,#:\x00-\x20].*', re.DOTALL)
_INDEX_BYTES: Final = 255


def _index_name(value: str) -> str:
    if _NO_INDEX.fullmatch(value) or value != value.lower() or len(value.encode()) > _INDEX_BYTES:
        raise ValueError(
            'write a name in lower case without spaces or any of \\ / * ? " < > | , # :, '
            "like logs-siemrelay-default"
        )
    return value


class BulkOptions(BatchOptions):
    """Options about filling bulk requests."""

    max_bytes: Size = Field(
        5 * 1024 * 1024, ge=1024, description="the most bytes in one request, before gzip"
    )


class ElasticsearchOptions(RequestOptions):
    """Options of `protocol: elasticsearch`."""

    url: Url = Field(
        description="the cluster, with its port: https://elastic.example.com:9200; a path before "
        "that of the API is kept"
    )
    index: Annotated[str, Field(min_length=1), AfterValidator(_index_name)] = Field(
        "logs-siemrelay-default", description="the data stream, index or write alias"
    )
    index_in: Literal["url", "action"] = Field(
        "url",
        description="`url`: requests go to /INDEX/_bulk; `action`: to /_bulk, and each document's "
        "line names the index, for receivers that have no other path (Fluent Bit, Cribl)",
    )
    pipeline: str | None = Field(
        None, min_length=1, description="the ingest pipeline that documents go through"
    )
    failure_store: Literal["refuse", "accept"] = Field(
        "refuse",
        description="what a document counts as that the cluster put into the data stream's failure "
        "store: `refuse`: as refused, and it is kept as a dead letter; `accept`: as delivered",
    )
    batch: BulkOptions = Field(default_factory=BulkOptions, description="how requests are filled")


_LINES: Final = frozenset({"cef", "leef", "leef1", "syslog", "rfc3164"})


def _remarks(sink: Any) -> Iterator[Remark]:
    if sink.format in _LINES:
        yield (
            "format",
            f"the cluster stores a {sink.format} line as one text in `message`, without fields to "
            "search; `ecs` has them all",
        )


class ElasticsearchSink(ExchangeSink):
    """Batches of documents created in one data stream."""

    def __init__(self, options: ElasticsearchOptions) -> None:
        super().__init__(options)
        self._options = options
        query = {"pipeline": options.pipeline} if options.pipeline else {}
        in_url = options.index_in == "url"
        path = f"/{quote(options.index, safe='')}/_bulk" if in_url else "/_bulk"
        self._url = url_below(options.url, path, filter_path=FILTER_PATH, **query)
        self._advice = _advice(options.index)
        self._accepts_failure_store = options.failure_store == "accept"
        self._in_failure_store = self._trials = 0

    async def exchange(self, client: Client, messages: Sequence[bytes]) -> Settlement:
        """See `ExchangeSink`; documents that were not stored for now are sent again here."""
        trial = messages[:_TRIAL_DOCUMENTS]
        if self._in_failure_store < len(trial) or len(trial) == len(messages):
            return self._noted(await self._create(client, messages), len(messages))
        self._trials += 1
        refusals: list[Refusal] = []
        if self._trials % _ALL_EVERY:
            refusals = self._noted(await self._create(client, trial), len(trial))
            if len(refusals) == len(trial):
                raise SinkHolds(
                    f"each of {len(trial)} documents: {refusals[-1].reason}",
                    advice="change the mapping or the pipeline of the data stream so that it takes "
                    "them, or set `failure_store: accept`",
                )
        else:
            trial = []
        rest = self._noted(await self._create(client, messages[len(trial) :]), len(messages))
        return refusals + [replace(each, index=each.index + len(trial)) for each in rest]

    def _noted(self, refusals: list[Refusal], of: int) -> list[Refusal]:
        stored = sum(each.code == _FAILURE_STORE for each in refusals)
        self._in_failure_store = self._in_failure_store + stored if stored == of else 0
        return refusals

    async def _create(self, client: Client, messages: Sequence[bytes]) -> list[Refusal]:
        refusals: list[Refusal] = []
        left: Sequence[int] = range(len(messages))
        sent_before = False
        while True:
            body = newline([messages[index] for index in left])
            answer = await client.post(self._url, body, "application/x-ndjson")
            answer.raise_for_status(self._advice, message=str(read_error(answer.body)) or None)
            again: list[int] = []
            why, throttled = "", False
            for at, item in self._items(answer, len(left)):
                if item.verdict == "conflict":
                    # After an answer of 5xx the document may have been stored all the same.
                    if not sent_before:
                        refusals.append(Refusal(left[at], "409", str(item.error), duplicate=True))
                elif item.verdict == "retry":
                    again.append(left[at])
                    why = f"{_failed(item)}; {passing_fault_advice(item.status)}"
                    throttled = item.status == 429
                elif item.verdict == "refused":
                    if not (item.in_failure_store and self._accepts_failure_store):
                        refusals.append(self._refusal(left[at], item))
                elif item.verdict == "held":
                    raise SinkHolds(_failed(item), advice=self._advice_about(item))
            if not again:
                return sorted(refusals, key=lambda refusal: refusal.index)
            if len(again) == len(left):
                # No progress. Documents that were stored will be conflicts the next time.
                raise SinkWaits(why, throttled=throttled)
            left, sent_before = again, True
            await trio.sleep(RETRY_DOCUMENTS_S)

    def _items(self, answer: Answer, count: int) -> Sequence[tuple[int, ItemResult]]:
        try:
            return failed_items(answer.body, count)
        except NotABulkResponse as error:
            if count > 1 and answer.body.lstrip().startswith(b"{"):
                # Perhaps the answer is too long, with too many errors: fewer documents have fewer.
                raise BatchRefused(code="answer", reason=f"not understood: {error}") from error
            raise SinkHolds(
                f"HTTP {answer.status}, but no bulk answer: {answer.text or 'it is empty'}",
                advice="is `url` the address of Elasticsearch or OpenSearch itself?",
            ) from error

    def _refusal(self, index: int, item: ItemResult) -> Refusal:
        reason = str(item.error)
        if item.in_failure_store:
            store = f"{self._options.index}::failures"
            # The answer about such a document has no error: it is kept with the document.
            why = reason or f"search `{store}` for its error"
            return Refusal(index, _FAILURE_STORE, f"it is not in the data stream; {why}")
        return Refusal(index, str(item.status), reason or "no reason given")

    def _advice_about(self, item: ItemResult) -> str:
        index, kind = self._options.index, item.error.type
        if kind == "cluster_block_exception":
            return f"writing to `{index}` is blocked in the cluster: lift the block"
        if item.error.reason.startswith("pipeline with id ["):
            return "create that ingest pipeline, or change `pipeline`"
        if kind == "index_closed_exception":
            return f"open the index `{index}`, or name another one in `index`"
        if item.status == 404 or kind == "index_not_found_exception":
            return (
                f"create the data stream or index `{index}`, let the credentials create it "
                "(auto_configure), or check `index`"
            )
        return self._advice.get(item.status, "check `index`")


def _failed(item: ItemResult) -> str:
    return f"HTTP 200, but items with {item.status} {item.error}".strip()


def _advice(index: str) -> dict[int, str]:
    return ADVICE | {
        401: 'set `authorization: "ApiKey …"` (the encoded key) or `basic` to credentials that the '
        "cluster knows",
        403: f"give the credentials the privileges create_doc and auto_configure on `{index}` "
        "(OpenSearch: indices:data/write/bulk and indices:admin/create)",
        404: "nothing takes bulk requests there: check `url` (the cluster's root, without /_bulk) "
        "and `index`",
        405: "`url` must be the cluster's root, without /_bulk",
        406: "what answers there is no Elasticsearch or OpenSearch API: check `url`",
    }


ELASTICSEARCH: Final = ProtocolKind(
    ElasticsearchOptions, ElasticsearchSink, "ecs",
    "Elasticsearch and OpenSearch: bulk requests, each document confirmed by its own answer",
    port=9200, limits=lambda options: options.batch.limits(options.in_flight),
    wrap=bulk_documents, remarks=_remarks,
    credential="a cluster with security refuses documents without a credential: set "
    "`authorization: \"ApiKey …\"` or `basic`",
)  # fmt: skip
