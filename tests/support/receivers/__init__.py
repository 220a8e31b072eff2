"""Receivers on loopback for the relay to send to: sockets, and stand-ins for SIEMs' services."""
