"""How long the fuzz suites look: a moment by default, as long as ``CTRFS_FUZZ`` says else.

``CTRFS_FUZZ=50`` gives each property fifty times the usual number of examples.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

EFFORT = int(os.environ.get("CTRFS_FUZZ", "1"))

settings.register_profile(
    "fuzz",
    max_examples=100 * EFFORT,
    # A machine under load is no bug; what hangs is ended by the limit of the test.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def nothing_is_logged() -> Iterator[None]:
    """Thousands of complaints about nonsense help nobody."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
