"""The part of the load that goes past the mount: another client of the same service."""

from __future__ import annotations

import http.client
import os
import time
import urllib.parse
from contextlib import closing
from typing import Final

from scripts.soak.hands import Hands
from scripts.soak.ledger import ABSENT, digest_of
from tests.support.mounting import pause
from tests.support.service import ServiceControl, ServiceError
from typing_extensions import override

URL_VARIABLE: Final = "SOAK_SERVICE_URL"
KEY_VARIABLE: Final = "SOAK_SERVICE_KEY"
# The mount's max_stale, plus what listings take while they fail.
SEEN_WITHIN_S: Final = 60.0
_TIMEOUT_S: Final = 30


class ServiceAt(ServiceControl):
    """A service that another process has started."""

    def __init__(self, base_url: str, key: str) -> None:
        self._address = urllib.parse.urlsplit(base_url)
        self._key = key

    @override
    def request(
        self, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": content_type}
        host, port = self._address.hostname or "", self._address.port
        with closing(http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)) as connection:
            connection.request(method, "/v1" + path, body or None, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise ServiceError(f"{answer.status}")
            return answer.read()


def add_and_remove_through_the_api(hands: Hands) -> None:
    """Add a file behind the mount's back, wait until it shows, read it, remove it likewise."""
    service = ServiceAt(os.environ[URL_VARIABLE], os.environ[KEY_VARIABLE])
    path = f"made {hands.chance.randrange(5)}.csv"
    try:
        container = os.getxattr(hands.top, "user.ctrfs.id").decode()
        if path not in hands.ledger.present():
            content = hands.content(bytes_max=30_000)
            file_id = service.plant(container, f"/mnt/data/{path}", content)
            hands.done["added through the API"] += 1
            hands.ledger.settle(path, digest_of(content))
            _wait_until_seen(hands, path, is_there=True)
            hands.check(path)
            _delete_surely(service, container, file_id)
            hands.ledger.settle(path, ABSENT)
            _wait_until_seen(hands, path, is_there=False)
            hands.done["removed through the API"] += 1
        else:
            # An earlier round was cut off before it could remove it: the mount can.
            hands.delete(path)
    except (ServiceError, OSError, http.client.HTTPException) as error:
        hands.ledger.doubt(path, ABSENT)
        hands.failed[f"api: {type(error).__name__}"] += 1


def _delete_surely(service: ServiceControl, container: str, file_id: str) -> None:
    """Delete a file though requests fail; one left behind would show under the next one's name.

    Raises:
        ServiceError: It failed all the time.
    """
    deadline_s = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            service.delete_file(container, file_id)
        except (ServiceError, OSError, http.client.HTTPException) as error:
            if str(error) == "404":
                return
            if time.monotonic() > deadline_s:
                raise ServiceError(f"cannot delete: {error}") from error
            pause(0.5)
        else:
            return


def _wait_until_seen(hands: Hands, path: str, *, is_there: bool) -> None:
    started_s = time.monotonic()
    while time.monotonic() - started_s < SEEN_WITHIN_S:
        try:
            if (hands.top / path).exists() is is_there:
                return
        except OSError:  # the listing failed; the next one may not
            hands.failed["look: failed"] += 1
        pause(0.2)
    hands.complain(f"{path}: not seen {'' if is_there else 'to be gone '}within {SEEN_WITHIN_S} s")
