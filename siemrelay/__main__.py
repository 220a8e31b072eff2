"""`siemrelay` and `python -m siemrelay`."""

import gc

# Events live for a batch and hold no cycles, and loading drops hardly any: the collector, which by
# default looks at every 700 new objects, finds nothing there and takes a twentieth of a start.
GC_THRESHOLD = 50_000
gc.set_threshold(GC_THRESHOLD)

from siemrelay.cli.commands import main  # noqa: E402  (loading is what this is about)

if __name__ == "__main__":
    main()
