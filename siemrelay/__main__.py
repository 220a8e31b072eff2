"""`siemrelay` and `python -m siemrelay`."""

import gc
import os

# Loading drops hardly anything: the collector would find nothing there and take a twentieth of a
# start. The relay has it look again.
gc.set_threshold(1_000_000)

# Plugins that other packages bring for pydantic have no business with this configuration, and
# looking for them takes another twentieth.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from siemrelay.cli.commands import main  # noqa: E402  (loading is what this is about)

if __name__ == "__main__":
    main()
