"""Commands that prepare a machine: the service, the first configuration."""
