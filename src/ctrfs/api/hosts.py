"""Which hosts are this machine: what is sent there needs no encryption, and no proxy."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Return whether ``host``, a name or an address without brackets, is this machine.

    Source: RFC 6761, 6.3: names that end in ``.localhost`` are.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
