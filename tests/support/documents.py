"""What tests do with the commands that a document shows."""

from __future__ import annotations


def without_endpoint(script: str) -> str:
    """The script, whose configuration gets one line more: another test's relay or one that runs on
    this machine may have the endpoint's usual port.
    """
    assert script.count("\nsinks:\n") == 1, script
    return script.replace("\nsinks:\n", "\nendpoint: {listen: off}\nsinks:\n")
