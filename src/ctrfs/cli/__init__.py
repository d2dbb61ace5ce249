"""The ``ctrfs`` command."""
