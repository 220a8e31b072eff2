"""Presets (`siem:` on a sink): one row of defaults for each SIEM.

A preset fills in what the sink does not set; the file always wins. The limits were compared with
the vendors' pages, or with the receivers' own source, in November 2026; a row says which of them
could not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class Preset(msgspec.Struct, frozen=True):
    """`defaults` are sink keys with their values as the file writes them.

    `also` has other protocols over which this SIEM takes the same format: if the file chooses one
    of them, the preset's format, header, map and message size still apply, except those given
    there. `page` is the vendor's page with the facts of the row, and with limits that no key here
    sets. `credential` is advice for a sink without a credential, beside that of the protocol.
    `search` finds the word `{mark}` there.
    """

    summary: str
    page: str
    defaults: Mapping[str, Any] = msgspec.field(default_factory=dict)
    also: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    credential: str = ""
    search: str = "search for {mark}"


_SYSLOG_TCP: Final = {"protocol": "tcp", "port": 514, "framing": "newline"}
_OTHER_SYSLOG: Final[Mapping[str, Mapping[str, Any]]] = {"udp": {}, "tls": {}}

PRESETS: Final[Mapping[str, Preset]] = {
    "generic": Preset("no SIEM in particular", ""),
    "splunk": Preset(
        "Splunk, Enterprise and Cloud: HTTP Event Collector",
        # A request has at most `max_content_length` bytes: 838,860,800 ([http_input]). The page
        # could not be read again; OpenTelemetry's splunkhecexporter states the same bound.
        "https://docs.splunk.com/Documentation/Splunk/latest/Admin/Limitsconf",
        {"protocol": "splunk-hec", "format": "json", "compression": "gzip"},
        search="search index=* {mark}",
    ),
    "elastic": Preset(
        "Elasticsearch and Elastic Security: a data stream of ECS documents",
        # A request has at most `http.max_content_length`: 100mb (HttpTransportSettings).
        "https://www.elastic.co/docs/reference/elasticsearch/configuration-reference/"
        "networking-settings",
        {"protocol": "elasticsearch", "format": "ecs", "compression": "gzip"},
        search="in Discover: message : {mark}",
    ),
    "opensearch": Preset(
        "OpenSearch: a data stream of ECS documents",
        # A request has at most `http.max_content_length`: 100mb (HttpTransportSettings).
        "https://docs.opensearch.org/latest/install-and-configure/configuring-opensearch/"
        "network-settings/",
        {"protocol": "elasticsearch", "format": "ecs", "compression": "gzip"},
        search="in Discover: message : {mark}",
    ),
    "sentinel": Preset(
        "Microsoft Sentinel: Logs Ingestion API",
        # A call has at most 1 MB, compressed or not (the protocol's own limit here); a value over
        # 64 KB is truncated. 12,000 requests and 2 GB a minute for a rule, then Retry-After.
        "https://learn.microsoft.com/azure/azure-monitor/fundamentals/service-limits",
        {"protocol": "sentinel", "format": "json"},
        search='in Logs: search "{mark}"',
    ),
    "qradar": Preset(
        "IBM QRadar: LEEF 2.0 behind a syslog header",
        # Max TCP Syslog Payload Length is 4,096 by default, Max UDP Syslog Payload Length 1,024.
        # The figures are from an earlier reading of the page and could not be read again; a file
        # for a QRadar with other settings has its own `max_message_size`.
        "https://www.ibm.com/docs/en/qsip/7.5?topic=tasks-configuring-system-settings",
        {**_SYSLOG_TCP, "format": "leef", "header": "rfc3164", "max_message_size": "4096B"},
        {"udp": {"max_message_size": "1024B"}, "tls": {}},
        search="AQL: SELECT UTF8(payload) FROM events WHERE UTF8(payload) ILIKE '%{mark}%' "
        "LAST 1 HOURS",
    ),
    "arcsight": Preset(
        "ArcSight SmartConnector (syslog daemon): CEF behind a syslog header",
        # It states a length for each CEF key (msg: 1,023), none for a message. Not read again.
        "https://www.microfocus.com/documentation/arcsight/arcsight-smartconnectors-8.4/"
        "cef-implementation-standard/",
        {**_SYSLOG_TCP, "format": "cef", "header": "rfc3164"},
        _OTHER_SYSLOG,
    ),
    "graylog": Preset(
        "Graylog: a GELF input, over TCP, UDP or TLS",
        # A TCP input takes messages up to its `max_message_size`: 2,097,152 bytes by default
        # (TcpTransport.java).
        "https://go2docs.graylog.org/current/getting_in_log_data/gelf.html",
        {
            "protocol": "tcp",
            "port": 12201,
            "framing": "nul",
            "format": "gelf",
            "max_message_size": "2MiB",
        },
        _OTHER_SYSLOG,
        search='search "{mark}"',
    ),
    "logrhythm": Preset(
        "LogRhythm System Monitor: CEF behind a syslog header",
        # It states no length of a message. Not read again.
        "https://docs.logrhythm.com/lrsiem/docs/syslog-collection",
        {**_SYSLOG_TCP, "format": "cef", "header": "rfc3164"},
        _OTHER_SYSLOG,
    ),
    "sumologic": Preset(
        "Sumo Logic: an HTTP source, whose `url` holds the key",
        # A request has at most 1 MB before compression. A message over 64 KB is cut into slices
        # that stay together (sumologic.com/help/docs/send-data/reference-information/
        # collect-multiline-logs), so it is not truncated here. A wrong address is answered with
        # 401, a quota with 429 (…/http-source/troubleshooting).
        "https://www.sumologic.com/help/docs/send-data/hosted-collectors/http-source/logs-metrics/",
        {
            "protocol": "http",
            "format": "json",
            "compression": "gzip",
            "batch": {"encoding": "ndjson", "max_bytes": "1MB"},
        },
        search='search "{mark}"',
        credential="Sumo Logic knows a source by the key in its address: copy the whole `url`",
    ),
    "datadog": Preset(
        "Datadog logs intake; `authorization` is the API key itself",
        # A log has at most 1 MB (a longer one is truncated there), a request 5 MB uncompressed and
        # 1,000 logs; 202 confirms; times of up to 18 hours ago are taken. The time is read from
        # `timestamp`; a number in `status`, or else in `severity`, counts as syslog's
        # (docs.datadoghq.com/logs/log_configuration/processors/log_status_remapper/).
        "https://docs.datadoghq.com/api/latest/logs/send-logs/",
        {
            "protocol": "http",
            "url": "https://http-intake.logs.datadoghq.com/api/v2/logs",
            "authorization_header": "DD-API-KEY",
            "format": "json",
            "compression": "gzip",
            "map": {
                "timestamp": "time",
                "time": None,
                "status": "syslog_severity",
                "event_severity": "severity",
                "severity": None,
            },
            "max_message_size": "1MB",
            "batch": {"encoding": "array", "max_events": 1000, "max_bytes": "4MB"},
        },
        search="in the Log Explorer: {mark}",
        credential="Datadog takes no logs without a key: set `authorization` to the API key",
    ),
    "chronicle": Preset(
        "Google SecOps (Chronicle): an HTTPS push feed; `authorization` is the feed's secret key",
        # A request has at most 4 MB, the line feed behind its last message included. Objects on
        # lines are called application/json there.
        "https://docs.cloud.google.com/chronicle/docs/ingestion/setup-siem-webhook",
        {
            "protocol": "http",
            "authorization_header": "X-Webhook-Access-Key",
            "headers": {"Content-Type": "application/json"},
            "format": "json",
            "max_message_size": "3999kB",
            "batch": {"encoding": "ndjson", "max_bytes": "4MB"},
        },
        search='raw log search: raw = "{mark}"',
        credential="the feed takes no events without its secret: set `authorization` to it, and "
        "`headers: {X-goog-api-key: …}`",
    ),
    "otlp": Preset(
        "any OpenTelemetry collector: OTLP over HTTP",
        # A request has at most `max_request_body_size`: 20 MiB by default. Not read again.
        "https://github.com/open-telemetry/opentelemetry-collector/blob/main/config/confighttp/"
        "README.md",
        {"protocol": "otlp", "format": "json"},
    ),
    "rsyslog": Preset(
        "rsyslog with imrelp: RFC 5424 over RELP, each message acknowledged",
        # A message has at most global(maxMessageSize=): 8k by default, which is 8,096 bytes
        # (tried with rsyslogd).
        "https://www.rsyslog.com/doc/rainerscript/global.html",
        {"protocol": "relp", "port": 2514, "format": "syslog", "max_message_size": "8096B"},
        {"tcp": {}, **_OTHER_SYSLOG},
    ),
}
"""The value of `siem:` → its row."""


def search_text(siem: str, mark: str) -> str:
    """The search that finds the message with this word in that SIEM."""
    return PRESETS[siem].search.format(mark=mark)
