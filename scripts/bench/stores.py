"""What the servers keep, seen from behind: filled before a run, looked at after a task.

A folder is a container of the service, a directory of the folder that rclone and sshd serve,
or a prefix in the bucket. No measured client is involved here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scripts.bench.corpus import Corpus, Folder
from tests.support.service import ServiceControl
from tests.support.trees import stored
from typing_extensions import override

from ctrfs.clock import SystemClock
from ctrfs.server import naming
from ctrfs.server.behaviour import Behaviour
from ctrfs.server.records import RUNNING, ContainerRecord, FileRecord, NetworkPolicy
from ctrfs.server.state import ServiceState
from ctrfs.units import NS_PER_S

# Long enough for any run: an idle container would expire after 20 minutes.
_MINUTES: Final = 60 * 24 * 365
# s3rver's names for what it keeps of an object.
_OBJECT, _METADATA, _DIGEST = "._S3rver_object", "._S3rver_metadata.json", "._S3rver_object.md5"


class Store(ABC):
    """What one server keeps."""

    @abstractmethod
    def plant(self, folder: str, files: Folder) -> None:
        """Put a folder with these files there while the server runs."""

    @abstractmethod
    def contents(self, folder: str) -> dict[str, str]:
        """Return the files of a folder: digest by path from there; none if it is not there."""

    @abstractmethod
    def remove(self, folder: str) -> None:
        """Drop a folder with all in it; harmless if it is not there."""

    def paths(self, folder: str, names: Mapping[str, int]) -> dict[str, int] | None:
        """Return files of this machine that appear, of these sizes, when all is stored.

        None where the client's own word is enough, and is checked afterwards.
        """
        del folder, names
        return None


class FolderStore(Store):
    """A directory."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir(parents=True, exist_ok=True)

    @override
    def plant(self, folder: str, files: Folder) -> None:
        (self.top / folder).mkdir(parents=True, exist_ok=True)
        for name, blob in files.items():
            os.link(blob.path, self.top / folder / name)

    @override
    def contents(self, folder: str) -> dict[str, str]:
        top = self.top / folder
        return {
            str(path.relative_to(top)): _digest(path)
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }

    @override
    def remove(self, folder: str) -> None:
        shutil.rmtree(self.top / folder, ignore_errors=True)

    @override
    def paths(self, folder: str, names: Mapping[str, int]) -> dict[str, int]:
        return {str(self.top / folder / name): size for name, size in names.items()}


class BucketStore(Store):
    """The directory in which s3rver keeps a bucket: three files an object."""

    def __init__(self, top: Path) -> None:
        self.top = top
        top.mkdir(parents=True, exist_ok=True)

    @override
    def plant(self, folder: str, files: Folder) -> None:
        (self.top / folder).mkdir(parents=True, exist_ok=True)
        # s3fs shows a prefix as a directory only if there is an object of that name.
        self._describe(
            self.top / folder, "", "16877", hashlib.md5(b"", usedforsecurity=False).hexdigest()
        )
        (self.top / folder / _OBJECT).write_bytes(b"")
        for name, blob in files.items():
            os.link(blob.path, self.top / folder / (name + _OBJECT))
            # Nobody asks for the true sum; s3fs shows it to nobody.
            self._describe(self.top / folder, name, "33188", blob.digest)

    def _describe(self, directory: Path, name: str, mode: str, digest: str) -> None:
        facts = {"content-type": "application/octet-stream", "x-amz-meta-mode": mode}
        facts |= {"x-amz-meta-uid": str(os.getuid()), "x-amz-meta-gid": str(os.getgid())}
        facts |= {"x-amz-meta-mtime": "1795479784"}
        (directory / (name + _METADATA)).write_text(json.dumps(facts))
        (directory / (name + _DIGEST)).write_text(digest)

    @override
    def contents(self, folder: str) -> dict[str, str]:
        top = self.top / folder
        found = sorted(path for path in top.rglob("*" + _OBJECT) if path.name != _OBJECT)
        return {str(path.relative_to(top)).removesuffix(_OBJECT): _digest(path) for path in found}

    @override
    def remove(self, folder: str) -> None:
        shutil.rmtree(self.top / folder, ignore_errors=True)

    @override
    def paths(self, folder: str, names: Mapping[str, int]) -> dict[str, int]:
        return {str(self.top / folder / name) + _OBJECT: size for name, size in names.items()}


class ServiceStore(Store):
    """A running ``ctrfs serve``."""

    def __init__(self, service: ServiceControl) -> None:
        self._service = service

    @override
    def plant(self, folder: str, files: Folder) -> None:
        container_id = self._service.create_container(folder)
        for name, blob in files.items():
            self._service.upload(container_id, name, blob.path.read_bytes())

    @override
    def contents(self, folder: str) -> dict[str, str]:
        if folder not in self.ids():
            return {}
        files = stored(self._service, folder)
        return {
            path: hashlib.blake2b(content, digest_size=16).hexdigest()
            for path, content in files.items()
        }

    @override
    def remove(self, folder: str) -> None:
        container_id = self.ids().get(folder)
        if container_id is not None:
            self._service.delete_container(container_id)

    def ids(self) -> dict[str, str]:
        """Return the ids of the containers that are alive, by name."""
        return {
            str(row["name"]): str(row["id"])
            for row in self._service.containers()
            if row["status"] == RUNNING
        }

    def content_paths(self, folder: str) -> dict[str, str]:
        """Return where the content of each file of a container is asked for, by shown name."""
        container_id = self.ids()[folder]
        route = f"/containers/{urllib.parse.quote(container_id)}/files"
        return {
            str(row["path"]).rpartition("/")[2][33:]: f"{route}/{row['id']}/content"
            for row in self._service.files(container_id)
        }


def fill_service(directory: Path, corpus: Corpus) -> None:
    """Make the data directory of a service that is not running yet, full of ``corpus``."""
    state = ServiceState(directory, is_durable=False)
    try:
        now_ns = SystemClock().wall_ns()
        for folder, files in corpus.folders.items():
            container = ContainerRecord(
                sequence=0,
                id=naming.new_container_id(Behaviour(), now_ns // NS_PER_S),
                name=folder,
                created_at_ns=now_ns,
                ready_at_ns=now_ns,
                status=RUNNING,
                minutes=_MINUTES,
                last_active_at_ns=now_ns,
                memory_limit="1g",
                network_policy=NetworkPolicy(type="disabled"),
            )
            state.add_container(container)
            _fill_container(state, container.id, files, now_ns)
    finally:
        state.close()


def _fill_container(state: ServiceState, container_id: str, files: Folder, now_ns: int) -> None:
    for name, blob in files.items():
        blob_name = hashlib.blake2b(f"{container_id}{name}".encode(), digest_size=16).hexdigest()
        os.link(blob.path, state.blobs.path(blob_name))
        path = naming.stored_path(Behaviour(), name, blob.digest)
        state.add_file(
            FileRecord(
                sequence=0,
                id=naming.new_file_id(Behaviour(), now_ns // NS_PER_S, path),
                container_id=container_id,
                path=path,
                size_bytes=blob.size_bytes,
                source="user",
                created_at_s=now_ns // NS_PER_S,
                listed_from_ns=now_ns,
                blob=blob_name,
                digest=blob.digest,
            )
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
