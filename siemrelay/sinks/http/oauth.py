"""OAuth 2.0 client credentials (RFC 6749, 4.4): a token, used until shortly before it expires."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final
from urllib.parse import urlencode

import trio
from pydantic import Field

from siemrelay.core.errors import SinkHolds
from siemrelay.core.options import Options, Secret, is_header_value
from siemrelay.net.url import Url
from siemrelay.sinks.http.answer import Answer

# A token is renewed so long before its expiry that it does not expire during a request.
_EARLY_S: Final = 60.0

# RFC 6749 only recommends `expires_in`; without it a token is used for this long.
_UNKNOWN_LIFE_S: Final = 300.0

# A token that is refused so soon after it was issued was never valid: another would not help.
_NEVER_GOOD_S: Final = 10.0


class OauthOptions(Options):
    """Options about the token endpoint."""

    token_url: Url = Field(description="the token endpoint")
    client_id: str = Field(min_length=1, description="the client's id")
    client_secret: Secret = Field(description="the client's secret")
    scope: str | None = Field(None, description="the scope to ask for")
    audience: str | None = Field(None, description="the audience to ask for, where one is needed")

    advice: ClassVar[str] = "check `oauth`: client_id, client_secret and scope"
    """Advice when the token endpoint refuses; a sink with other keys has its own."""


class TokenSource:
    """Provides the current token, and asks for a new one when it is about to expire."""

    def __init__(
        self,
        options: OauthOptions,
        exchange: Callable[[str, bytes, Mapping[str, str]], Awaitable[Answer]],
    ) -> None:
        """`exchange` POSTs a body with headers to a URL and returns the answer."""
        self._options, self._exchange = options, exchange
        self._token, self._made_at, self._ends_at = "", 0.0, 0.0
        self._asking = trio.Lock()

    async def token(self) -> str:
        """The token for the next request. Raises SinkWaits or SinkHolds when there is none."""
        async with self._asking:
            if trio.current_time() >= self._ends_at:
                await self._ask()
            return self._token

    def reject(self) -> bool:
        """The receiver refused the token; returns whether a new one may help."""
        self._ends_at = 0.0
        return trio.current_time() - self._made_at > _NEVER_GOOD_S

    async def _ask(self) -> None:
        options = self._options
        form = {
            "grant_type": "client_credentials",
            "client_id": options.client_id,
            "client_secret": str(options.client_secret),
        }
        form |= {"scope": options.scope} if options.scope else {}
        form |= {"audience": options.audience} if options.audience else {}
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        answer = await self._exchange(options.token_url, urlencode(form).encode(), headers)
        if answer.status in (400, 401, 403):
            # RFC 6749, 5.2: the fault is in these options.
            raise SinkHolds(
                f"the token endpoint answered HTTP {answer.status} {self._message(answer)}".strip(),
                advice=options.advice,
            )
        if answer.status != 200:
            raise answer.error()
        try:
            found = json.loads(answer.body)
            self._token = str(found["access_token"])
            life_s = float(found.get("expires_in", _UNKNOWN_LIFE_S))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SinkHolds(
                "the token endpoint's answer has no token", advice="check `oauth: token_url`"
            ) from error
        if not is_header_value(self._token):
            raise SinkHolds(
                "the token endpoint's answer has a token that no header can carry",
                advice="check `oauth: token_url`",
            )
        self._made_at = trio.current_time()
        self._ends_at = self._made_at + max(life_s - _EARLY_S, life_s / 2)

    def _message(self, answer: Answer) -> str:
        """The error's name and description (RFC 6749, 5.2): the rest may repeat the secret."""
        try:
            found = json.loads(answer.body)
            message = f"{found.get('error', '')} {found.get('error_description', '')}".strip()
        except (ValueError, AttributeError):
            return ""
        return message.replace(str(self._options.client_secret), "***")
