"""Records of the demo's two products: one line of JSON for any event type. Pure."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from siemrelay.core.event_types import EventType
from siemrelay.products.product import BUILT_IN

KINDS: Final = (*BUILT_IN["alm"].types, *BUILT_IN["lightrun"].types)
"""Every type that the demo writes; a record's kind is its index in this table."""

# The scale of severities: the rarer, the graver, and none so rare that 20 s would not show it.
_TOP_SEVERITY: Final = 10
_WEIGHTS: Final = tuple(_TOP_SEVERITY - known.severity for known in KINDS)

_PEOPLE: Final = (
    "ada.baker", "alan.foster", "asa.oberg", "grace.moore", "hedy.parker", "ivan.petrov",
    "jose.nunez", "katherine.owens", "ken.watanabe", "margaret.quinn", "radia.smith", "zoe.muller",
)  # fmt: skip
_TARGETS: Final = {
    "alm": ("svc-payroll", "svc-backup", "svc-web-frontend", "svc-ci-runner", "svc-reports",
            "svc-ldap-sync", "svc-mail-gateway"),
    "lightrun": ("checkout-service", "pricing-api", "prod-agents", "staging-agents", "sso-okta",
                 "splunk-feed", "orders-worker"),
}  # fmt: skip
_FAILED: Final = ("failed", "failure", "error")
_encode: Final = msgspec.json.Encoder().encode


def pick(rng: random.Random, product: str) -> int:
    """A kind of that product, ordinary ones more often than grave ones."""
    start, end = _SPANS[product]
    return rng.choices(range(start, end), _WEIGHTS[start:end])[0]


def _span(product: str) -> tuple[int, int]:
    indices = [index for index, known in enumerate(KINDS) if known.product == product]
    return indices[0], indices[-1] + 1


_SPANS: Final = {product: _span(product) for product in ("alm", "lightrun")}


def record(kind: int, identity: str, time: str, rng: random.Random) -> bytes:
    """One line, LF included, as the kind's product spells its audit records."""
    known = KINDS[kind]
    shape = _alm if known.product == "alm" else _lightrun
    return _encode(shape(known, identity, time, rng)) + b"\n"


def _outcome(known: EventType) -> str:
    text = f"{known.name} {known.description}".casefold()
    return "failure" if any(word in text for word in _FAILED) else "success"


def _address(rng: random.Random) -> str:
    return f"10.{rng.randrange(20, 40)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def _alm(known: EventType, identity: str, time: str, rng: random.Random) -> dict[str, Any]:
    actor, target = rng.choice(_PEOPLE), rng.choice(_TARGETS["alm"])
    return {
        "id": identity,
        "auditDate": time,
        "auditType": known.name,
        "outcome": _outcome(known),
        "actor": {"name": actor, "ip": _address(rng)},
        "target": {"type": known.category, "name": target, "id": rng.randrange(1000, 9999)},
        "message": f"{known.description}: {target}, by {actor}",
        "attributes": {"environment": "production", "ticket": f"CHG-{rng.randrange(10000, 99999)}"},
    }


def _lightrun(known: EventType, identity: str, time: str, rng: random.Random) -> dict[str, Any]:
    actor, resource = rng.choice(_PEOPLE), rng.choice(_TARGETS["lightrun"])
    return {
        "id": identity,
        "timestamp": time,
        "eventType": known.name,
        "result": _outcome(known),
        "userEmail": f"{actor}@example.com",
        "sourceIp": _address(rng),
        "resourceType": known.category,
        "resourceName": resource,
        "description": f"{known.description}: {resource}",
        "company": "Example Corp",
    }
