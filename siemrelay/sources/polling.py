"""GET requests of a poll: bounded answers, and errors by what a person can do about them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import show_seconds
from siemrelay.formats.writing.text import harmless

if TYPE_CHECKING:
    import httpx2

# A page of an API; what is larger is the wrong address, or needs a page size in its query.
_BODY_BYTES: Final = 32 * 1024 * 1024

# What an API may ask for by Retry-After.
_LONGEST_ASKED_S: Final = 3600.0

_WORDS_CHARACTERS: Final = 200

_ADVICE: Final = {
    401: "check `authorization`", 403: "check what the token in `authorization` may read",
    404: "check the path in `url`", 407: "the proxy wants a password (HTTPS_PROXY)",
}  # fmt: skip


class PollRefused(SiemrelayError):
    """No answer to be used: ask again after `after_s`, or later if it is `lasting`."""

    def __init__(self, reason: str, *, lasting: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.lasting, self.after_s = lasting, after_s


class Page(msgspec.Struct, frozen=True):
    """One answer; `link` is what its Link header names as the next page."""

    body: bytes
    link: str | None


class Ask:
    """Asks for pages."""

    def __init__(self, client: httpx2.AsyncClient, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s

    async def get(self, url: str) -> Page:
        """One page. Raises PollRefused."""
        import httpx2

        try:
            with trio.fail_after(self._timeout_s):
                async with self._client.stream("GET", url) as answer:
                    body = bytearray()
                    async for part in answer.aiter_bytes():
                        body += part
                        if len(body) > _BODY_BYTES:
                            raise PollRefused(
                                "an answer larger than 32 MiB; ask for smaller pages in `url`",
                                lasting=True,
                            )
                    if answer.status_code != 200:
                        raise _refused(answer.status_code, bytes(body), answer.headers)
                    link = answer.links.get("next", {}).get("url")
                    return Page(bytes(body), link)
        except trio.TooSlowError as error:
            limit = show_seconds(self._timeout_s)
            raise PollRefused(f"no answer within {limit} (`timeout`)") from error
        except httpx2.LocalProtocolError:
            # The library's words would show the header, and with it the credentials.
            raise PollRefused(
                "a request cannot be made of `authorization` and `headers`: no line breaks, "
                "control characters or spaces at an end", lasting=True,
            ) from None  # fmt: skip
        except httpx2.HTTPError as error:
            said = str(error).rstrip(".") or type(error).__name__
            raise PollRefused(f"{said}; is the address right and the API up?") from error


def _refused(status: int, body: bytes, headers: Mapping[str, str]) -> PollRefused:
    words = harmless(" ".join(body.decode("utf-8", "replace").split()), _WORDS_CHARACTERS)
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    asked = headers.get("retry-after", "")
    after_s = min(float(asked), _LONGEST_ASKED_S) if asked.isascii() and asked.isdigit() else 0.0
    lasting = 300 <= status < 500 and status not in (408, 429)
    return PollRefused(f"HTTP {status} {words}".rstrip() + advice, lasting=lasting, after_s=after_s)


@asynccontextmanager
async def opened(
    authorization: str | None, headers: Mapping[str, str], ca: Path | None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with these headers; redirects are not followed, proxies are the environment's."""
    import httpx2  # slow to import, and only this source needs it

    try:
        context = await trio.to_thread.run_sync(lambda: ssl.create_default_context(cafile=ca))
    except (OSError, ssl.SSLError) as error:
        raise PollRefused(f"cannot use `ca: {ca}`: {error}", lasting=True) from error
    sent = {"User-Agent": "siemrelay", "Accept": "application/json", "Accept-Encoding": "identity"}
    sent |= {name: str(value) for name, value in headers.items()}
    if authorization is not None:
        sent["Authorization"] = str(authorization)
    async with httpx2.AsyncClient(verify=context, headers=sent, follow_redirects=False) as client:
        yield client
