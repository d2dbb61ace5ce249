"""Finding the one container that a user means by its name or id."""

from __future__ import annotations

from ctrfs.api.models import Container, ContainerId
from ctrfs.api.protocol import ContainersApi
from ctrfs.errors import MountError, RemoteInvalidError, RemoteNotFoundError, RemoteReadOnlyError


async def container_named(api: ContainersApi, name_or_id: str) -> Container:
    """Return the container of that id, else the oldest alive one of that name.

    Takes one request where the service lists the container, two where it does not.

    Raises:
        MountError: There is none, or it has expired.
        RemoteError: The service did not answer as it should.
    """
    try:
        listed = (await api.list_containers()).items
    except RemoteReadOnlyError:
        listed = ()  # some servers have no list of containers, only the containers
    alive = [container for container in listed if container.is_alive]
    for container in alive:
        if container.id == name_or_id:
            return container
    for container in alive:
        if container.name == name_or_id:
            return container
    try:
        container = await api.retrieve_container(ContainerId(name_or_id))
    except (RemoteNotFoundError, RemoteInvalidError) as error:
        raise MountError(f"no container has the name or id {name_or_id!r}") from error
    if not container.is_alive:
        raise MountError(f"container {name_or_id!r} is {container.status}")
    return container
