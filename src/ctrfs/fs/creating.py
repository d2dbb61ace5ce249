"""New entries: containers, folders, files."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

import trio

from ctrfs.api.models import Container, ContainerId, ContainerRequest
from ctrfs.errors import (
    EntryExistsError,
    NameTooLongError,
    NotPermittedError,
    RemoteError,
    RemoteUncertainError,
)
from ctrfs.fs.attributes import default_permissions
from ctrfs.fs.parts import Parts, is_outside
from ctrfs.tree.container_tree import CONTROL_NAME
from ctrfs.tree.names import (
    DEPTH_MAX,
    NAME_BYTES_MAX,
    component_from_entry,
    container_name_from_entry,
)
from ctrfs.tree.nodes import (
    ROOT_INODE,
    ContainerDirectory,
    Directory,
    File,
    Folder,
    Parent,
    Root,
    path_in_container,
)

# A file manager that cannot make its trash folder offers to delete for good instead.
TRASH_NAME = b".Trash"
# Before each look for a container whose creation was not answered: listings may lag, and the
# whole must stay well within the deadline of a request.
LOOK_PAUSES_S: Final = (0.0, 2.0, 5.0)

log = logging.getLogger(__name__)


class Creator:
    """Mkdir and create; the caller holds the lock of the directory and knows the name is free."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def create_container(self, root: Root, name: bytes) -> ContainerDirectory:
        """Create a container with the mount's defaults.

        Raises:
            NotPermittedError: The name is that of a trash folder.
            RemoteError: The service refused.
        """
        if name == TRASH_NAME or name.startswith(TRASH_NAME + b"-"):
            raise NotPermittedError("a trash folder would be a container, and billed")
        defaults = self._parts.config.defaults
        policy = defaults.network_policy
        request = ContainerRequest(
            name=container_name_from_entry(name),
            expires_after_minutes=defaults.expires_after_minutes,
            memory_limit=defaults.memory_limit,
            network_disabled=policy == "disabled",
            allowed_domains=tuple(policy.split()) if policy and policy != "disabled" else (),
        )
        known = frozenset(child.container.id for child in root.children.values())
        try:
            container = await self._parts.api.create_container(request)
        except RemoteUncertainError as error:
            container = await self._created_unseen(root, request.name, known, error)
        directory = self._parts.namespace.created_container(container, name)
        root.mtime_ns = self._parts.clock.wall_ns()
        return directory

    async def _created_unseen(
        self,
        root: Root,
        name: str,
        known: Collection[ContainerId],
        uncertain: RemoteUncertainError,
    ) -> Container:
        """Return the container whose creation has not been answered.

        Raises:
            RemoteUncertainError: It is not listed; the next look at the root asks anew.
        """
        try:
            for pause_s in LOOK_PAUSES_S:
                await trio.sleep(pause_s)
                listing = await self._parts.api.list_containers(name=name)
                for container in reversed(listing.items):  # newest first
                    is_new = container.id not in known and not container.is_expired
                    is_deleted = self._parts.namespace.is_removed(container.id)
                    if container.name == name and is_new and not is_deleted:
                        return container
        except RemoteError as error:
            log.info("cannot see whether the container %r was created: %s", name, error)
        self._parts.namespace.suspect(root)
        raise uncertain

    def create_folder(self, parent: Folder, name: bytes, permissions: int) -> Directory:
        """Make a folder that lasts on this machine, and on the service once a file is in it."""
        folder = self._parts.tree.new_folder(parent, name)
        if permissions != default_permissions(self._parts.config, is_file=False):
            folder.mode = permissions
            self._parts.keep_facts(folder)
        self._parts.touch(parent)
        return folder

    def create_file(self, parent: Folder, name: bytes, permissions: int) -> File:
        """Make an empty file that the service will hear of at the first flush."""
        file = self._parts.tree.new_file(parent, name)
        if permissions != default_permissions(self._parts.config, is_file=True):
            file.mode = permissions
        file.is_local_only = self._parts.local_only.match(path_in_container(file))
        self._parts.touch(parent)
        return file


def check_name(parent: Parent, name: bytes, *, is_folder: bool) -> None:
    """Refuse a name that no entry of ``parent`` could have.

    Raises:
        NameTooLongError: It has more than 255 bytes, or is a file in so many folders that no
            listing would show it.
        EntryExistsError: The control directory has it.
        InvalidNameError: It stands for something that no upload can be called.
        NotPermittedError: It lies outside the data folder, where no upload ever lands.
    """
    if len(name) > NAME_BYTES_MAX:
        raise NameTooLongError(f"a name of {len(name)} bytes")
    if parent.inode == ROOT_INODE and name == CONTROL_NAME:
        raise EntryExistsError("the name of the control directory")
    if isinstance(parent, Root):
        return
    component_from_entry(name)
    above = path_in_container(parent)
    if not is_folder and len(above) >= DEPTH_MAX:
        raise NameTooLongError(f"a file in {len(above)} folders")
    if is_outside(above) or (is_folder and is_outside((*above, name))):
        raise NotPermittedError("uploads land in the data folder, not under @root")
