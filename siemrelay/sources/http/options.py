"""The base of webhooks and HEC (the address, the limits, the server); the options of webhooks."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple

import structlog
import trio
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from siemrelay.core.options import Duration, HeaderName, NonEmpty, Secret, Size
from siemrelay.net.http_application import Application, HttpLimits
from siemrelay.net.http_server import HttpServer
from siemrelay.net.listener_options import (
    ConnectionCount,
    ListenerOptions,
    port_as_text,
    split_address,
    without_scheme,
)
from siemrelay.net.listening_sockets import BindAddress
from siemrelay.net.peers import is_loopback
from siemrelay.net.rejection_log import RejectionLog
from siemrelay.net.tls_server import TlsServer
from siemrelay.sources.contract import Intake
from siemrelay.sources.http.auth import SignatureOptions
from siemrelay.wire.framing.contract import MAX_WHOLE_BYTES
from siemrelay.wire.handshakes import HANDSHAKES

_log = structlog.get_logger()

STORE_S: Final = 5.0
"""A sender waits this long for its records to be stored, then gets 503: better than silence. A
commit takes milliseconds; only a full or failing disk takes longer."""

# A client connects when it has a request. One that has none takes a slot from others.
_FIRST_S: Final = 10.0

# Visible ASCII without the characters that end the path of a URL.
_PATH: Final = re.compile(r"(/[!\"$-.0->@-~]*)*")


class ListenAddress(NamedTuple):
    """The parts of a `listen` URL."""

    tls: bool
    host: str
    port: int
    path: str

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def parse_listen(listen: str) -> ListenAddress:
    """The parts of `https://0.0.0.0:8443/events`. Raises ValueError with an example."""
    example = "write http(s)://HOST:PORT/PATH, like https://0.0.0.0:8443/events"
    if place := without_scheme(listen):
        raise ValueError(f"with TLS or without? write https://{place} or http://{place}")
    parts = split_address(listen, example)
    port = parts.port
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ValueError(example)
    if parts.username is not None or parts.query or parts.fragment or not _PATH.fullmatch(
        parts.path
    ):  # fmt: skip
        raise ValueError(f"only scheme, address, port and path belong here; {example}")
    return ListenAddress(parts.scheme == "https", parts.hostname, port, parts.path or "/")


def _listen(value: str) -> str:
    parse_listen(value)
    return value


Listen = Annotated[
    str, BeforeValidator(port_as_text, json_schema_input_type=str), AfterValidator(_listen)
]


class HttpListenOptions(ListenerOptions):
    """Options of the sources that receive HTTP requests."""

    tls_schemes = ("https",)
    tls_alternative = "; without them listen on http://127.0.0.1:PORT behind a TLS proxy"

    listen: Listen = Field(
        description="address to listen on, like https://0.0.0.0:8443/events; port 0 takes any "
        "free one"
    )
    max_body: Annotated[Size, Field(ge=1024, le=MAX_WHOLE_BYTES)] = Field(
        10 << 20,
        description="the largest request body, also after decompression; larger ones get 413",
    )
    max_records: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20_000,
        description="the most records in one request; one with more gets 413. A body of a few KiB "
        "can hold millions after decompression",
    )
    max_connections_per_address: ConnectionCount | None = Field(
        None,
        description="of them, those of one address (in IPv6, of one /64 network); half of "
        "`max_connections` by default, or all of them where `listen` is a loopback address and a "
        "proxy stands for many senders",
    )
    idle_timeout: Annotated[Duration, Field(gt=0)] = Field(
        75.0,
        description="how long a connection may be silent between two requests; at most 10 s before "
        "the first one",
    )
    request_timeout: Annotated[Duration, Field(gt=0)] = Field(
        60.0,
        description="how long one request may take to arrive, and its answer to be read",
    )

    @property
    def address(self) -> ListenAddress:
        """The address in `listen`."""
        return parse_listen(self.listen)

    @property
    def binds(self) -> list[BindAddress]:
        """See `net.listening_sockets.Listening`."""
        return [BindAddress(False, self.address.host, self.address.port)]


_AUTHORIZATION: Final = "Authorization"


class WebhookOptions(HttpListenOptions):
    """Options of `type: http`."""

    authorization_header: HeaderName = Field(
        _AUTHORIZATION,
        description="the header that has `authorization`, where a sender uses another one",
    )
    authorization: Secret | None = Field(
        None,
        description='the `Authorization` that senders must have, word for word: "Bearer TOKEN", '
        '"Basic USER:PASSWORD" (encoded for you), or a secret alone where a sender puts no scheme '
        "before it (Okta, Auth0)",
    )
    signature: SignatureOptions | None = Field(
        None, description="the HMAC over the body that each request must have"
    )
    verify_token: Secret | None = Field(
        None, description="with `handshake: meta`: the token that the sender shows"
    )
    handshake: Literal[
        "okta", "slack", "zoom", "event_grid", "graph", "google", "cloudevents", "meta"
    ] | None = Field(
        None,
        description="how the sender makes sure that this address expects its events; such a "
        "request is answered and not stored",
    )  # fmt: skip
    event_type_header: HeaderName | None = Field(
        None,
        description="a header that names the type of the event, put into the record under its own "
        "name (`X-GitHub-Event`)",
    )
    delivery_header: HeaderName | None = Field(
        None,
        description="a header with the id of a delivery, put into the record under its own name "
        "(`X-GitHub-Delivery`); a delivery that is sent again is stored once",
    )
    delivery_field: NonEmpty | None = Field(
        None,
        description="a field at the top of the JSON with the id of a delivery (Slack's "
        "`event_id`); a delivery that is sent again is stored once",
    )
    form_field: NonEmpty | None = Field(
        None,
        description="the field with the JSON of a form (`application/x-www-form-urlencoded`), like "
        "`payload`; without it forms are refused. JSON that is only called a form is taken anyway",
    )

    @property
    def lacks_scheme(self) -> bool:
        """Whether senders must show a secret alone in `Authorization`, though most name a scheme.

        Okta sends the secret of an event hook as its administrator wrote it.
        """
        header, secret = self.authorization_header, self.authorization
        usual = header.casefold() == _AUTHORIZATION.casefold() and self.handshake != "okta"
        return usual and secret is not None and " " not in secret.strip()

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches the address can write audit events."""
        certified = self.tls is not None and self.tls.client_ca is not None
        return self.authorization is None and self.signature is None and not certified

    @field_validator("handshake")
    @classmethod
    def _has_its_secret(cls, value: str | None, info: ValidationInfo) -> str | None:
        asked = HANDSHAKES[value] if value else None
        if asked is not None and asked.signed and info.data.get("signature") is None:
            raise ValueError(f"`{value}` is answered with the secret of `signature`: give it one")
        if asked is not None and asked.token and info.data.get("verify_token") is None:
            raise ValueError(f"`{value}` needs `verify_token`, the token that the sender shows")
        return value


async def serve(
    name: str, options: HttpListenOptions, application: Application, intake: Intake, *,
    open_to_all: bool, drain: bool,
) -> None:  # fmt: skip
    """Listen and answer until cancelled, or with `drain` until nothing has come for a second.

    With `open_to_all` no sender has shown a credential: a warning says so. Raises
    ListenRefused when the address cannot be taken, TlsFilesUnusable when a TLS file is unusable.
    """
    tls = TlsServer(options.tls) if options.tls is not None else None
    if tls is not None:
        await tls.prepare()
    listeners = await _listeners(name, options, intake, open_to_all=open_to_all)
    rejections = RejectionLog(_log.bind(source=name), options.listen, intake.refused)
    # Behind a proxy on this machine, all senders have its address.
    connections = options.limiter(rejections, proxied=options.address.is_loopback)
    limits = HttpLimits(
        options.max_body, min(_FIRST_S, options.idle_timeout), options.idle_timeout,
        options.request_timeout, authenticates=not open_to_all,
    )  # fmt: skip
    server = HttpServer(application, intake, limits, tls, connections, rejections)
    await server.run(listeners, drain=drain)


async def _listeners(
    name: str, options: HttpListenOptions, intake: Intake, *, open_to_all: bool
) -> list[trio.SocketListener]:
    address = options.address
    if open_to_all and not address.is_loopback:
        _log.warning(
            "everybody who reaches this address can write audit events", source=name,
            listen=options.listen,
            advice="set `authorization`, `signature` or `tls: {client_ca: FILE}`, or listen on "
            "127.0.0.1",
        )  # fmt: skip
    (bind,) = options.binds
    listeners = [trio.SocketListener(sock) for sock in await intake.sockets.take(name, bind)]
    port = listeners[0].socket.getsockname()[1]
    _log.info("listening", source=name, listen=options.listen, port=port)
    return listeners
