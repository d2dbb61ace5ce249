"""The outside world: the Containers service, over HTTP."""
