"""Which entries exist, and under which names."""
