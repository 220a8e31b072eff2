"""Stand-ins for the audit APIs that the HTTP poll source asks."""
