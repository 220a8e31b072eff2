"""Tokens: what the client shows for one, how long it is used, and what never stands in an error."""

from __future__ import annotations

import json
import time
import traceback
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import load_pem_x509_certificate

from siemrelay.net.oauth import (
    OauthOptions,
    TokenAnswer,
    TokenRefused,
    TokenSource,
    TokenUnavailable,
)

TOKEN_URL = "https://login.example.com/token"


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> str:
    how = encryption or NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode())


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


class Endpoint:
    """A token endpoint; remembers the forms, and names its tokens by number."""

    def __init__(self, life_s: int = 3600) -> None:
        self.forms: list[dict[str, str]] = []
        self.life_s = life_s
        self.answer: TokenAnswer | None = None

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> TokenAnswer:
        assert url == TOKEN_URL
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
        self.forms.append(dict(parse_qsl(body.decode(), strict_parsing=True)))
        token = {"access_token": f"token-{len(self.forms)}", "expires_in": self.life_s}
        return self.answer or TokenAnswer(200, json.dumps(token).encode())


def options(**more: Any) -> OauthOptions:
    return OauthOptions.model_validate({"token_url": TOKEN_URL, "client_id": "client-1", **more})


async def form(**more: Any) -> dict[str, str]:
    endpoint = Endpoint()
    assert await TokenSource(options(**more), endpoint).token() == "token-1"
    return endpoint.forms[0]


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verified(token: str, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token that the key's public half verifies (RFC 7515, RFC 7518)."""
    header, claims, signature = token.split(".")
    signed = f"{header}.{claims}".encode()
    raw = decoded(signature)
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(raw, signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert len(raw) == 64
        halves = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
        key.public_key().verify(encode_dss_signature(*halves), signed, ec.ECDSA(hashes.SHA256()))
    return json.loads(decoded(header)), json.loads(decoded(claims))


async def test_a_secret_is_shown_as_a_parameter() -> None:
    assert await form(client_secret="s3cret", scope="a b") == {
        "grant_type": "client_credentials", "client_id": "client-1", "client_secret": "s3cret",
        "scope": "a b",
    }  # fmt: skip


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
async def test_a_private_key_signs_a_token_about_the_client(key: Any, algorithm: str) -> None:
    sent = await form(private_key=pem(key), key_id="k1", scope="okta.logs.read")
    assertion = sent.pop("client_assertion")
    assert sent == {
        "grant_type": "client_credentials", "client_id": "client-1", "scope": "okta.logs.read",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }  # fmt: skip
    header, claims = verified(assertion, key)
    assert header == {"typ": "JWT", "alg": algorithm, "kid": "k1"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("client-1", "client-1", TOKEN_URL)
    assert claims["iat"] <= time.time() < claims["exp"] <= time.time() + 600


async def test_no_token_of_the_client_is_sent_twice() -> None:
    """RFC 7523, 3: `jti` lets the endpoint refuse a replay."""
    sent = [await form(private_key=pem(EC)) for _ in range(3)]
    assert len({verified(each["client_assertion"], EC)[1]["jti"] for each in sent}) == 3


async def test_a_certificate_is_named_by_its_thumbprint() -> None:
    made = trustme.CA().issue_cert("relay", key_type=trustme.KeyType.RSA)
    text = made.cert_chain_pems[0].bytes().decode()
    sent = await form(private_key=made.private_key_pem.bytes().decode(), certificate=text)
    header = json.loads(decoded(sent["client_assertion"].split(".")[0]))
    expected = load_pem_x509_certificate(text.encode()).fingerprint(hashes.SHA256())
    assert decoded(header["x5t#S256"]) == expected


async def test_a_service_account_acts_for_a_person_by_its_key_file() -> None:
    file = json.dumps({"type": "service_account", "private_key_id": "g1", "private_key": pem(RSA)})
    sent = await form(
        private_key=file, grant="jwt_bearer", subject="admin@example.com", scope="audit.readonly"
    )
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims = verified(sent["assertion"], RSA)
    assert header["kid"] == "g1"
    assert (claims["iss"], claims["sub"]) == ("client-1", "admin@example.com")
    assert claims["scope"] == "audit.readonly"
    assert claims["exp"] - claims["iat"] <= 3600


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("no key at all s3cret", "cannot be read"),
        (pem(RSA, BestAvailableEncryption(b"password")), "without a password"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "RS256 or ES256"),
        ('{"type": "s3cret"}', "JSON without a `private_key`"),
        ("{s3cret", "JSON without a `private_key`"),
    ],
)
async def test_a_key_that_cannot_sign_is_refused_and_not_shown(key: str, words: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        await form(private_key=key)
    assert words in str(caught.value)
    text = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in text
    assert "BEGIN" not in text


async def test_a_token_is_used_until_a_minute_before_its_end(autojump_clock: object) -> None:
    endpoint = Endpoint(life_s=3600)
    tokens = TokenSource(options(client_secret="s"), endpoint)
    found = []
    for _ in range(8):
        found.append(await tokens.token())
        await trio.sleep(1000)
    assert found == ["token-1"] * 4 + ["token-2"] * 4


@pytest.mark.parametrize("life", ["-5", "0", "NaN", "Infinity", "1e308"])
async def test_a_life_that_is_no_time_neither_hammers_the_endpoint_nor_lasts_for_ever(
    autojump_clock: object, life: str
) -> None:
    endpoint = Endpoint()
    endpoint.answer = TokenAnswer(200, b'{"access_token":"t","expires_in":%b}' % life.encode())
    tokens = TokenSource(options(client_secret="s"), endpoint)
    await tokens.token()
    await tokens.token()
    assert len(endpoint.forms) == 1
    await trio.sleep(86400)
    await tokens.token()
    assert len(endpoint.forms) == 2


async def test_many_who_need_a_token_at_once_ask_for_one(autojump_clock: object) -> None:
    endpoint = Endpoint()
    tokens = TokenSource(options(client_secret="s"), endpoint)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(tokens.token)
    assert len(endpoint.forms) == 1


async def test_a_refused_token_is_renewed_unless_it_was_just_made(autojump_clock: object) -> None:
    endpoint = Endpoint()
    tokens = TokenSource(options(client_secret="s"), endpoint)
    await tokens.token()
    assert not tokens.reject()
    await trio.sleep(60)
    assert tokens.reject()
    assert await tokens.token() == "token-2"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (TokenAnswer(401, b'{"error":"invalid_client","error_description":"s3cret no"}'),
         TokenRefused, "invalid_client *** no; check `oauth`"),
        (TokenAnswer(404, b""), TokenRefused, "check `oauth: token_url`"),
        (TokenAnswer(302, b""), TokenRefused, "check `oauth: token_url`"),
        (TokenAnswer(200, b"<html>"), TokenRefused, "has no token"),
        (TokenAnswer(200, b"[" * 100_000), TokenRefused, "has no token"),
        (TokenAnswer(200, b'{"access_token":"a\\nb"}'), TokenRefused, "no header can carry"),
        (TokenAnswer(200, b'{"access_token":"%b"}' % (b"a" * 40_000)), TokenRefused,
         "no header can carry"),
        (TokenAnswer(429, b"", 7.0), TokenUnavailable, "HTTP 429"),
        (TokenAnswer(503, b"busy"), TokenUnavailable, "HTTP 503"),
    ],
)  # fmt: skip
async def test_what_is_no_token_says_who_acts_next(
    answer: TokenAnswer, error: type[Exception], words: str
) -> None:
    endpoint = Endpoint()
    endpoint.answer = answer
    with pytest.raises(error) as caught:
        await TokenSource(options(client_secret="s3cret"), endpoint).token()
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"client_secret": "a", "private_key": "b"}, {"client_secret": "a", "key_id": "k"},
        {"client_secret": "a", "certificate": "c"}, {"client_secret": "a", "grant": "jwt_bearer"},
        {"private_key": "b", "subject": "ada"},
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_a_fault(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="`"):
        options(**given)
