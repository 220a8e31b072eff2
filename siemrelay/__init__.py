"""siemrelay: forwards audit events to SIEMs through a durable disk buffer."""

__version__ = "0.1.0"
