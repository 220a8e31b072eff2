"""What a configuration needs of this machine and does not find: PEM files, packages.

No reason for `load` to refuse: a file may be missing for a while, and then a part by itself waits
for it; the others run. `siemrelay check` refuses it, a relay tells of it and starts.
"""

from __future__ import annotations

from siemrelay.config.document import in_order
from siemrelay.config.load import Loaded
from siemrelay.config.needs import missing
from siemrelay.errors import Fault


def lacking(loaded: Loaded) -> tuple[list[Fault], list[Fault]]:
    """What is certainly missing or wrong here, and what only this user cannot judge.

    Each at its place in the file. Of enabled sinks and of all sources; reads the files they name.
    """
    faults, doubts = missing(loaded.document, loaded.config.sources, loaded.config.sinks)
    return in_order(faults), in_order(doubts)
