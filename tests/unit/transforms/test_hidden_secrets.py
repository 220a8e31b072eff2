"""Secrets behind encodings and odd characters are found, and what is harmless stays as it is."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from html import unescape
from typing import Any
from urllib.parse import unquote

import pytest

from siemrelay.config.load import load_text
from siemrelay.core.event import Batch, Selection
from siemrelay.relay.assembly import Assembly
from siemrelay.sources.contract import Records
from siemrelay.transforms.redaction.hidden import may_hide
from tests.support.growth import grows_with_its_input

RULES = [{"kind": ["email", "card", "iban", "token", "password"]}]
CARD, IBAN, MAIL = "4111111111111111", "DE89370400440532013000", "ada@example.com"


def b64(text: str) -> str:
    return b64encode(text.encode()).decode()


HIDDEN = {
    "base64 of a card": f"blob {b64('paid with ' + CARD)} end",
    "base64 of an e-mail": f"blob={b64('mail to ' + MAIL)}",
    "base64 for URLs of a password": f"x {urlsafe_b64encode(b'password=hunter2>>??').decode()} y",
    "base64 without padding": f"x {b64('the password is hunter2').rstrip('=')} y",
    "entities of an e-mail": "mail ada&#64;example&#46;com now",
    "hexadecimal entities of a card": "card " + "".join(f"&#x{ord(c):x};" for c in CARD) + " now",
    "named entity of an e-mail": "mail ada&commat;example.com now",
    "%-encoded card": "card " + "".join(f"%{ord(c):02x}" for c in CARD) + " now",
    "%-encoded password": "q=password%3Dhunter2&x=1",
    "%-encoded letters of an e-mail": "mail %61da%40example.com now",
    "zero-width characters in a card": "card " + "\u200b".join(CARD) + " now",
    "soft hyphens in an e-mail": "mail a\u00adda@exam\u00adple.com now",
    "zero-width in a password's name": "pass\u200bword=hunter2",
    "full-width digits": "card " + CARD.translate({48 + i: 0xFF10 + i for i in range(10)}) + " now",
    "Arabic digits": "card " + CARD.translate({48 + i: 0x660 + i for i in range(10)}) + " now",
    "mathematical digits": "card " + CARD.translate({48 + i: 0x1D7CE + i for i in range(10)}),
    "full-width e-mail": "mail ada\uff20example\uff0ecom now",
    "Cyrillic letters in an IBAN": f"to D\u0415{IBAN[2:]} now",
    "Cyrillic letters in bearer": "Authorization: B\u0435arer abcdefgh12345678",
}
LEAKS = (CARD, IBAN, IBAN[2:], MAIL, "hunter2", "abcdefgh12345678")


def unhidden(text: str) -> str:
    """As whoever receives it could read it."""
    for piece in ("\u200b", "\u00ad"):
        text = text.replace(piece, "")
    digits = {0xFF10 + i: 48 + i for i in range(10)} | {0x660 + i: 48 + i for i in range(10)}
    digits |= {0x1D7CE + i: 48 + i for i in range(10)} | {0xFF20: 64, 0xFF0E: 46}
    return unescape(unquote(text)).translate(digits)


@pytest.mark.parametrize("decoder", ["json", "text", "syslog"])
@pytest.mark.parametrize("how", HIDDEN)
def test_a_hidden_secret_is_neither_stored_nor_sent(how: str, decoder: str) -> None:
    text = HIDDEN[how]
    record = json.dumps({"type": "x", "message": text, "note": text}, ensure_ascii=False)
    record = {"json": record, "text": text, "syslog": f"<13>Feb 18 06:42:17 h app: {text}"}[decoder]
    for at in ("sources", "sinks"):
        config: dict[str, dict[str, dict[str, Any]]] = {
            "sources": {"s": {"type": "stdin", "decoder": decoder}},
            "sinks": {name: {"server": "a", "format": name} for name in ("json", "raw", "cef")},
        }
        for part in config[at].values():
            part["redact"] = RULES
        made = Assembly(load_text(json.dumps(config), "f.yaml", {}).config)
        payload, mark = record.encode() + b"\n", None
        if (source_filter := made.source_filter("s")) is not None:
            (stored,) = source_filter.apply(Records(payload, 1)).pieces()
            payload, mark = stored.payload, stored.part
        seen = [payload] if at == "sources" else []
        for name in config["sinks"]:
            parts = made.sink(name)
            decoded = made.decoder("s", [parts]).decode(Batch(1, 1, "s", 1.7e9, payload, mark))
            selection = Selection(decoded)
            if parts.transform is not None:
                selection, _ = parts.transform.apply(selection)
            seen += parts.format.encode(selection)
        for message in seen:
            text_of_it = message.decode()
            for leak in LEAKS:
                assert leak not in unhidden(text_of_it), text_of_it
                assert b64(leak)[:12] not in text_of_it
            assert "blob" not in how or "***" in text_of_it


HARMLESS = [
    "GET /a%20b?x=%2F HTTP/1.1", "a &amp; b &lt;c&gt;", "5f4dcc3b5aa765d61d8327deb882cf99e2a1",
    "Пользователь вошёл в систему", "Ωmega 5 µm", b64("nothing that anybody hides here"),
    "/usr/local/share/something/else", "550e8400-e29b-41d4-a716-446655440000", "naïve café \uff15",
    b64(bytes(range(200)).decode("latin-1")),
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_what_hides_nothing_stays_to_the_letter(text: str) -> None:
    text_config = json.dumps({
        "sources": {"s": {"type": "stdin", "decoder": "text", "redact": RULES}},
        "sinks": {"siem": {"server": "a"}},
    })  # fmt: skip
    source_filter = Assembly(load_text(text_config, "f.yaml", {}).config).source_filter("s")
    assert source_filter is not None
    assert source_filter.apply(Records(text.encode() + b"\n", 1)).records.payload == (
        text.encode() + b"\n"
    )


@pytest.mark.parametrize(
    "piece", ["&", "&#6", "%", "%4", "A", "Aa+/", "=", "\u0435", "\u200b", "A "]
)
def test_to_look_for_what_is_hidden_takes_time_linear_in_the_text(piece: str) -> None:
    grows_with_its_input(lambda: may_hide(piece * 500), lambda: may_hide(piece * 1000))
