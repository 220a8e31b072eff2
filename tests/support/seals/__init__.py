"""Sealed streams as an auditor gets them: made without a relay, and exported from SIEMs."""
