"""``python -m ctrfs``: the same program as ``ctrfs``."""

from __future__ import annotations

from ctrfs.cli.main import main

if __name__ == "__main__":
    main()
