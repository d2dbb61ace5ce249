"""The outside world: the local disk."""
