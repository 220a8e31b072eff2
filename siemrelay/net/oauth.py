"""OAuth 2.0 access tokens for this side's own requests, used until shortly before they expire.

The client shows a secret, or a token of its own that it signs with a private key (RFC 7523); with
the grant `jwt_bearer` that token names the person whom the service account acts for.
"""

from __future__ import annotations

import json
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Literal
from urllib.parse import urlencode

import msgspec
import trio
from pydantic import Field, model_validator

from siemrelay.core.errors import SiemrelayError
from siemrelay.core.options import Options, Secret, is_header_value
from siemrelay.net.url import Url

# A token is renewed so long before its expiry that it does not expire during a request.
_EARLY_S: Final = 60.0

# RFC 6749 only recommends `expires_in`; without it a token is used for this long.
_UNKNOWN_LIFE_S: Final = 300.0

# A longer life is not believed, nor one that is no time; a longer token is none.
_LONGEST_LIFE_S: Final = 86400.0
_TOKEN_CHARACTERS: Final = 32 * 1024

# A token that is refused so soon after it was issued was never valid: another would not help.
_NEVER_GOOD_S: Final = 10.0

# A token of our own is used at once. It begins a little in the past: clocks differ.
_ASSERTION_S: Final = 300
_CLOCKS_DIFFER_S: Final = 30

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_LEAST_RSA_BITS: Final = 2048
_P256_BYTES: Final = 32


class OauthOptions(Options):
    """Options about the token endpoint."""

    token_url: Url = Field(description="the token endpoint")
    client_id: str = Field(
        min_length=1, description="the client's id; of a Google service account, its address"
    )
    client_secret: Secret | None = Field(None, description="the client's secret")
    private_key: Secret | None = Field(
        None, description="instead of `client_secret`: the key that signs the client's own token, "
        "PEM of an RSA key (RS256) or of an EC key on P-256 (ES256), without a password; or the "
        "JSON file of a Google service account",
    )  # fmt: skip
    key_id: str | None = Field(
        None, min_length=1, description="with `private_key`: the name by which the endpoint knows "
        "the key (`kid`)",
    )  # fmt: skip
    certificate: str | None = Field(
        None, min_length=1, description="with `private_key`: the certificate of the key (PEM), "
        "where the endpoint knows it by that (Entra)",
    )  # fmt: skip
    grant: Literal["client_credentials", "jwt_bearer"] = Field(
        "client_credentials",
        description="`jwt_bearer`: the signed token itself is the grant, as with Google's service "
        "accounts",
    )
    subject: str | None = Field(
        None, min_length=1,
        description="with `jwt_bearer`: the user whom the service account acts for",
    )  # fmt: skip
    scope: str | None = Field(None, description="the scope to ask for")
    audience: str | None = Field(None, description="the audience to ask for, where one is needed")

    advice: ClassVar[str] = "check `oauth`: client_id, client_secret or private_key, and scope"
    """Advice when the token endpoint refuses; a sink with other keys has its own."""

    @model_validator(mode="after")
    def _one_proof(self) -> OauthOptions:
        if (self.client_secret is None) == (self.private_key is None):
            raise ValueError("give one of `client_secret` and `private_key`")
        if self.private_key is None:
            for key in ("key_id", "certificate"):
                if getattr(self, key) is not None:
                    raise ValueError(f"`{key}` needs `private_key`")
            if self.grant == "jwt_bearer":
                raise ValueError("`grant: jwt_bearer` needs `private_key`")
        if self.subject is not None and self.grant != "jwt_bearer":
            raise ValueError("`subject` needs `grant: jwt_bearer`")
        return self


class TokenAnswer(msgspec.Struct, frozen=True):
    """The token endpoint's answer; `retry_after_s` is the pause that it asks for, if it does."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class TokenRefused(SiemrelayError):
    """The endpoint gives no token until a person has followed `advice`."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}; {advice}")
        self.reason, self.advice = reason, advice


class TokenUnavailable(SiemrelayError):
    """The endpoint has a fault that passes: ask again, after `after_s` if it is given."""

    def __init__(self, reason: str, after_s: float | None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class TokenSource:
    """Provides the current token, and asks for a new one when it is about to expire."""

    def __init__(
        self,
        options: OauthOptions,
        exchange: Callable[[str, bytes, Mapping[str, str]], Awaitable[TokenAnswer]],
    ) -> None:
        """`exchange` POSTs a body with headers to a URL and returns the answer."""
        self._options, self._exchange = options, exchange
        self._token, self._made_at, self._ends_at = "", 0.0, 0.0
        self._asking = trio.Lock()

    async def token(self) -> str:
        """The token for the next request.

        Raises TokenRefused or TokenUnavailable when there is none, and what `exchange` raises.
        """
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
        # Reading a key checks its primes: tens of milliseconds.
        form = await trio.to_thread.run_sync(partial(_form, options, time.time()))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        answer = await self._exchange(options.token_url, urlencode(form).encode(), headers)
        if answer.status != 200:
            raise self._error(answer)
        try:
            found = json.loads(answer.body)
            self._token = str(found["access_token"])
            life_s = float(found.get("expires_in", _UNKNOWN_LIFE_S))
            life_s = min(life_s, _LONGEST_LIFE_S) if life_s > 0 else _UNKNOWN_LIFE_S
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TokenRefused(
                "the token endpoint's answer has no token", "check `oauth: token_url`"
            ) from error
        if len(self._token) > _TOKEN_CHARACTERS or not is_header_value(self._token):
            raise TokenRefused(
                "the token endpoint's answer has a token that no header can carry",
                "check `oauth: token_url`",
            )
        self._made_at = trio.current_time()
        self._ends_at = self._made_at + max(life_s - _EARLY_S, life_s / 2)

    def _error(self, answer: TokenAnswer) -> TokenRefused | TokenUnavailable:
        status = answer.status
        reason = f"the token endpoint answered HTTP {status} {self._message(answer)}".strip()
        if status in (408, 425, 429) or (status >= 500 and status != 501):
            return TokenUnavailable(reason, answer.retry_after_s)
        if status in (400, 401, 403):
            # RFC 6749, 5.2: the fault is in these options.
            return TokenRefused(reason, self._options.advice)
        return TokenRefused(reason, "check `oauth: token_url`")

    def _message(self, answer: TokenAnswer) -> str:
        """The error's name and description (RFC 6749, 5.2): the rest may repeat the secret."""
        try:
            found = json.loads(answer.body)
            message = f"{found.get('error', '')} {found.get('error_description', '')}".strip()
        except (ValueError, AttributeError, RecursionError):
            return ""
        secret = self._options.client_secret
        return message.replace(str(secret), "***") if secret else message


def _form(options: OauthOptions, now_s: float) -> dict[str, str]:
    """The parameters of a token request (RFC 6749, 4.4.2; RFC 7523, 2)."""
    form: dict[str, str] = {"grant_type": options.grant}
    if options.grant == "jwt_bearer":
        return {"grant_type": _JWT_BEARER, "assertion": _assertion(options, now_s)}
    if options.private_key is not None:
        form |= {
            "client_id": options.client_id,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": _assertion(options, now_s),
        }
    else:
        form |= {"client_id": options.client_id, "client_secret": str(options.client_secret)}
    form |= {"scope": options.scope} if options.scope else {}
    form |= {"audience": options.audience} if options.audience else {}
    return form


# -- the client's own token -------------------------------------------------


def _assertion(options: OauthOptions, now_s: float) -> str:
    """A JSON Web Token about the client for the token endpoint (RFC 7523, 3; RFC 7515)."""
    from cryptography.hazmat.primitives import hashes  # only signed requests need it
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    pem, key_id = _pem_of(options)
    key = _private_key(pem)
    header = {"typ": "JWT", "alg": "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"}
    header |= {"kid": key_id} if key_id else {}
    if options.certificate is not None:
        header["x5t#S256"] = _base64url(_thumbprint(options.certificate))
    claims: dict[str, Any] = {
        "iss": options.client_id, "aud": options.token_url, "jti": str(uuid.uuid4()),
        "iat": int(now_s) - _CLOCKS_DIFFER_S, "exp": int(now_s) + _ASSERTION_S,
    }  # fmt: skip
    if options.grant == "jwt_bearer":
        claims |= {"sub": options.subject} if options.subject else {}
        claims |= {"scope": options.scope} if options.scope else {}
    else:
        claims["sub"] = options.client_id
    signed = ".".join(_base64url(msgspec.json.encode(part)) for part in (header, claims)).encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
    return f"{signed.decode()}.{_base64url(signature)}"


def _pem_of(options: OauthOptions) -> tuple[str, str | None]:
    """The key as PEM and its id; both may stand in the JSON file of a service account."""
    text = str(options.private_key).strip()
    if not text.startswith("{"):
        return text, options.key_id
    try:
        found = json.loads(text)
        key_id = options.key_id or str(found.get("private_key_id") or "") or None
        return str(found["private_key"]), key_id
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Without the cause: its text quotes the file.
        raise TokenRefused(
            "`oauth: private_key` is JSON without a `private_key`",
            "give the key file of the service account as Google made it, or a PEM key",
        ) from None


def _private_key(pem: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TokenRefused(
            "`oauth: private_key` cannot be read",
            "give a private key in PEM without a password: `${file:/PATH}`, `${credential:NAME}`",
        ) from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise TokenRefused(
        "`oauth: private_key` is not a key for RS256 or ES256",
        f"make an RSA key of {_LEAST_RSA_BITS} bits or more, or an EC key on P-256",
    )


def _thumbprint(certificate: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(certificate.encode()).fingerprint(SHA256())
    except ValueError:
        raise TokenRefused(
            "`oauth: certificate` cannot be read", "give the certificate in PEM, `${file:/PATH}`"
        ) from None


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
