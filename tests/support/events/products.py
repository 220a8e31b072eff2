"""The built-in products, as tests need them most."""

from __future__ import annotations

from typing import Final

from siemrelay.core.event_types import Catalogue
from siemrelay.decoders.fields import Spellings
from siemrelay.products.product import BUILT_IN

GENERIC: Final[Spellings] = BUILT_IN["generic"].spellings
"""The spellings in common use."""

CATALOGUE: Final[Catalogue] = BUILT_IN.catalogue(["generic"])
"""The event types that a relay knows whose sources name no product."""
