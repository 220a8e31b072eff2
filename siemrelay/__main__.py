"""`siemrelay` and `python -m siemrelay`."""

from siemrelay.cli.commands import main

if __name__ == "__main__":
    main()
