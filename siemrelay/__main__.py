"""`siemrelay` and `python -m siemrelay`."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

# Loading drops hardly anything: the collector would find nothing there and take a twentieth of a
# start. The relay has it look again.
gc.set_threshold(1_000_000)

# Plugins that other packages bring for pydantic have no business with this configuration, and
# looking for them takes another twentieth.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


@contextmanager
def _replaced(**replacements: Any) -> Iterator[None]:
    """Have structlog and pydantic, loaded meanwhile, find these instead of modules not needed.

    `a__b` stands for a.b. A module that is loaded already is kept. A release that needs more of
    them than this one is loaded again, in the usual way, by the next import.
    """
    names = {name.replace("__", "."): stands_in for name, stands_in in replacements.items()}
    missing = {name: stands_in for name, stands_in in names.items() if name not in sys.modules}
    sys.modules.update(missing)
    try:
        yield
    except Exception:  # noqa: BLE001  (a release to come may fail in any way)
        for name in [*sys.modules]:
            if name.partition(".")[0] in ("structlog", "pydantic"):
                del sys.modules[name]
    finally:
        for name in missing:
            del sys.modules[name]


# structlog loads rich and pygments where it finds them, for tracebacks that show local variables.
# The log has plain ones, and these packages are another tenth. It loads asyncio for log calls that
# are awaited. pydantic loads importlib.metadata, and with it email and zipfile, to find plugins.
with _replaced(
    rich=None, asyncio=ModuleType("asyncio"), importlib__metadata=SimpleNamespace(entry_points=None)
):
    import structlog  # noqa: F401  (loading is what this is about)

    with suppress(ImportError):  # a part of pydantic that may move
        import pydantic.plugin._loader  # noqa: F401  (as above)

from siemrelay.cli.commands import main  # noqa: E402  (as above)

if __name__ == "__main__":
    main()
