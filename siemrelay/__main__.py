"""`siemrelay` and `python -m siemrelay`."""

import gc
import os
import sys

# Loading drops hardly anything: the collector would find nothing there and take a twentieth of a
# start. The relay has it look again.
gc.set_threshold(1_000_000)

# Plugins that other packages bring for pydantic have no business with this configuration, and
# looking for them takes another twentieth.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


# structlog loads rich and pygments where it finds them, for tracebacks that show local variables.
# The log has plain ones, and these packages are another tenth.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # "it is not there" (the import system)
    import structlog  # noqa: F401  (loading is what this is about)

    del sys.modules["rich"]

from siemrelay.cli.commands import main  # noqa: E402  (as above)

if __name__ == "__main__":
    main()
