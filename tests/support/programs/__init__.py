"""Real programs from Debian and PyPI, run for a test in a directory of their own."""
