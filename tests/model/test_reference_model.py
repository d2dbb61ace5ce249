"""Random operations on a mount, with another client at work, against a model of plain Python.

After each step the service must have exactly the files that the model expects, and after a
refresh the mount must show exactly what the model shows. ``EXAMPLES=500`` makes a long run,
``EXAMPLES=500 FIRST_SEED=1000`` another one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import trio.testing
from tests.model.reference import (
    ModelContainer,
    ModelFile,
    folders_above,
    rows_of,
    stored_name,
)
from tests.support.in_process import READ, WRITE, InProcessMount, mounted
from tests.support.service import InProcessService

from ctrfs.errors import (
    CtrfsError,
    DirectoryNotEmptyError,
    EntryExistsError,
    NoSuchEntryError,
    StaleHandleError,
)
from ctrfs.fs.handles import HandleNumber

EXAMPLES: Final = int(os.environ.get("EXAMPLES", "12"))
FIRST_SEED: Final = int(os.environ.get("FIRST_SEED", "0"))
STEPS: Final = 60
FOLDERS: Final = ("f", "g", "f/h")
FILES: Final = ("a", "b", "n~")
# Few and short, so that the same bytes come up again.
CONTENTS: Final = (b"", b"one", b"two", b"three", b"four")
WEIGHTS: Final = {
    "write": 8, "read": 5, "unlink": 4, "rename": 7, "mkdir": 5, "rmdir": 3, "move_folder": 3,
    "open": 5, "write_slot": 7, "read_slot": 4, "close_slot": 5,
    "other_plants": 5, "other_uploads": 5, "other_deletes": 5, "refresh": 4, "time_passes": 2,
    "remount": 1,
}  # fmt: skip


class Slot:
    """A file that is open for as long as it pleases."""

    def __init__(self, handle: HandleNumber, file: ModelFile, home: ModelContainer) -> None:
        self.handle = handle
        self.file = file
        self.home = home


class Session:
    """One random run. Invariant: between steps the model's rows are those of the service."""

    def __init__(
        self, seed: int, service: InProcessService, state: Path, clock: trio.testing.MockClock
    ) -> None:
        self.chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
        self.service = service
        self.state = state
        self.containers = [
            ModelContainer(service.create_container(name), name) for name in ("one", "two")
        ]
        self.slots: list[Slot] = []
        self.story: list[str] = []
        self.clock = clock
        self.mount: InProcessMount

    # What a step works on

    def container(self) -> ModelContainer:
        return self.chance.choice(self.containers)

    def any_path(self) -> str:
        folder = self.chance.choice(["", *(f"{folder}/" for folder in FOLDERS)])
        return folder + self.chance.choice(FILES)

    def known_path(self, container: ModelContainer) -> str:
        paths = sorted(container.view)
        return self.chance.choice(paths) if paths else "a"

    def content(self) -> bytes:
        return self.chance.choice(CONTENTS)

    def tell(self, *words: object) -> None:
        self.story.append(" ".join(map(str, words)))

    def is_gone(self, file: ModelFile) -> bool:
        """Tell whether the bytes may be out of reach: deleted elsewhere before they came."""
        row = file.row
        return row is not None and not any(row.id in each.rows for each in self.containers)

    # Steps of this mount

    async def write(self) -> None:
        home, path, content = self.container(), self.any_path(), self.content()
        if self.chance.random() < 0.5:
            path = self.known_path(home)
        self.tell("write", home.name, path, content)
        if not self.has_folder(home, path):
            with pytest.raises(NoSuchEntryError):
                await self.mount.write_file(f"{home.name}/{path}", content)
            return
        await self.mount.write_file(f"{home.name}/{path}", content)
        if (
            path in home.view
            and home.view[path].content == content == b""
            and not home.view[path].is_dirty
        ):
            return  # neither the truncation nor the write has changed anything
        file = home.view.setdefault(path, ModelFile(b"", is_local=path.endswith("~")))
        file.content = content
        file.is_dirty = True
        self.save(home, file)

    async def read(self) -> None:
        home = self.container()
        path = self.known_path(home)
        self.tell("read", home.name, path)
        file = home.view.get(path)
        if file is None:
            assert not await self.mount.exists(f"{home.name}/{path}")
            return
        with self.perhaps_stale(file):
            assert await self.mount.read_file(f"{home.name}/{path}") == file.content

    async def unlink(self) -> None:
        home = self.container()
        path = self.known_path(home)
        self.tell("unlink", home.name, path)
        file = home.view.pop(path, None)
        if file is None:
            with pytest.raises(NoSuchEntryError):
                await self.mount.unlink(f"{home.name}/{path}")
            return
        await self.mount.unlink(f"{home.name}/{path}")
        self.remove(home, file)
        home.kept.update(folders_above(path)[-1:])

    async def rename(self) -> None:
        home, goal, new = self.container(), self.container(), self.any_path()
        old = self.known_path(home)
        self.tell("rename", home.name, old, goal.name, new)
        attempt = self.mount.rename(f"{home.name}/{old}", f"{goal.name}/{new}")
        file, target = home.view.get(old), goal.view.get(new)
        if file is None or not self.has_folder(goal, new):
            with pytest.raises(NoSuchEntryError):
                await attempt
            return
        if file is target:
            await attempt
            return
        is_waiting = (
            file.is_dirty
            and not file.is_local
            and home is goal
            and not new.endswith("~")
            and any(slot.file is file for slot in self.slots)
        )
        try:
            await attempt
        except StaleHandleError:
            assert self.is_gone(file)
            self.tell("  stale")
            return
        del home.view[old]
        home.kept.update(folders_above(old)[-1:])
        goal.view[new] = file
        for slot in self.slots:
            slot.home = goal if slot.file is file else slot.home
        gone = () if target is None else self.replaced_by(target)
        if is_waiting:
            file.replaces += gone
            goal.hidden.update(gone)
            return
        self.delete(goal, gone)
        if home is not goal and file.row is not None:
            self.delete(home, [file.row.id])
            file.row = None
        if new.endswith("~"):
            self.delete(home, [*file.replaces, *([file.row.id] if file.row else [])])
            file.row, file.replaces, file.is_dirty, file.is_local = None, (), False, True
            return
        file.is_local = False
        file.is_dirty = True
        file.shown_at = None  # the name is another, so the same bytes are sent
        self.save(goal, file)

    async def mkdir(self) -> None:
        home, folder = self.container(), self.chance.choice(FOLDERS)
        self.tell("mkdir", home.name, folder)
        attempt = self.mount.mkdir(f"{home.name}/{folder}")
        if folder in home.folders():
            with pytest.raises(EntryExistsError):
                await attempt
        elif not self.has_folder(home, folder):
            with pytest.raises(NoSuchEntryError):
                await attempt
        else:
            await attempt
            home.kept.add(folder)

    async def rmdir(self) -> None:
        home, folder = self.container(), self.chance.choice(FOLDERS)
        self.tell("rmdir", home.name, folder)
        attempt = self.mount.rmdir(f"{home.name}/{folder}")
        if folder not in home.folders():
            with pytest.raises(NoSuchEntryError):
                await attempt
        elif any(path.startswith(f"{folder}/") for path in [*home.view, *home.folders()]):
            with pytest.raises(DirectoryNotEmptyError):
                await attempt
        else:
            await attempt
            home.kept.discard(folder)
            home.kept.update(folders_above(folder)[-1:])

    async def move_folder(self) -> None:
        home = self.container()
        old, new = self.chance.sample(FOLDERS, 2)
        self.tell("move folder", home.name, old, new)
        attempt = self.mount.rename(f"{home.name}/{old}", f"{home.name}/{new}")
        inside = {path: f for path, f in home.view.items() if path.startswith(f"{old}/")}
        is_full = any(path.startswith(f"{new}/") for path in [*home.view, *home.folders()])
        is_possible = old in home.folders() and self.has_folder(home, new) and not is_full
        if not is_possible or new.startswith(f"{old}/"):
            with pytest.raises(CtrfsError):
                await attempt
            return
        try:
            await attempt
        except StaleHandleError:
            assert any(self.is_gone(file) for file in inside.values())
            self.tell("  stale")
            return
        home.kept.discard(new)
        moved = {kept for kept in home.kept if kept == old or kept.startswith(f"{old}/")}
        home.kept -= moved
        home.kept |= {new + kept[len(old) :] for kept in moved} | {new}
        home.kept.update(folders_above(old)[-1:])
        for path, file in inside.items():
            del home.view[path]
            home.view[new + path[len(old) :]] = file
        for path, file in inside.items():
            if file.row is not None and not file.is_ours:
                file.is_dirty = True
                file.shown_at = None
                self.save(home, file, path=new + path[len(old) :])

    async def open(self) -> None:
        home = self.container()
        path = self.known_path(home)
        file = home.view.get(path)
        if file is None or len(self.slots) >= 3:
            return
        self.tell("open", home.name, path)
        flags = WRITE if self.chance.random() < 0.7 else READ
        handle = await self.mount.open(f"{home.name}/{path}", flags)
        if flags is WRITE:
            self.slots.append(Slot(handle, file, home))
            return
        with self.perhaps_stale(file):
            assert await self.mount.read_all(handle) == file.content
        await self.mount.close(handle)

    async def write_slot(self) -> None:
        slot = self.any_slot()
        if slot is None:
            return
        content, file, home = self.content() or b"x", slot.file, slot.home
        offset = self.chance.choice([0, 0, 1, 3])
        self.tell("write to open", home.name, self.path_of(home, file), offset, content)
        try:
            await self.mount.fs.write(slot.handle, offset, content)
        except StaleHandleError:
            assert self.is_gone(file)
            self.tell("  stale")
            await self.close(slot)
            await self.refresh_all()
            return
        padded = file.content.ljust(offset, b"\0")
        file.content = padded[:offset] + content + padded[offset + len(content) :]
        if file.is_removed:
            return
        was_lost = self.path_of(home, file) is None
        file.is_dirty = True
        if was_lost:
            assert file.shown_at is not None
            file.row = file.row if file.row and file.row.id in home.rows else None
            home.view[file.shown_at] = file
            await self.refresh_all()

    async def read_slot(self) -> None:
        slot = self.any_slot()
        if slot is None:
            return
        self.tell("read open", slot.home.name, self.path_of(slot.home, slot.file))
        with self.perhaps_stale(slot.file):
            assert await self.mount.read_all(slot.handle) == slot.file.content

    async def close_slot(self) -> None:
        slot = self.any_slot()
        if slot is not None:
            self.tell("close", slot.home.name, self.path_of(slot.home, slot.file))
            await self.close(slot)

    async def close(self, slot: Slot) -> None:
        self.slots.remove(slot)
        await self.mount.close(slot.handle)
        if slot.file.is_dirty and not slot.file.is_removed:
            self.save(slot.home, slot.file)

    # Steps of others

    async def other_plants(self) -> None:
        home, path, content = self.container(), self.any_path(), self.content()
        self.tell("other plants", home.name, path, content)
        self.service.plant(home.id, f"/mnt/data/{path}", content)
        home.rows = rows_of(self.service, home.id)

    async def other_uploads(self) -> None:
        home, path, content = self.container(), self.any_path(), self.content()
        self.tell("other uploads", home.name, path, content)
        self.service.upload(home.id, path, content)
        home.rows = rows_of(self.service, home.id)

    async def other_deletes(self) -> None:
        home = self.container()
        if not home.rows:
            return
        file_id = self.chance.choice(sorted(home.rows))
        self.tell("other deletes", home.name, home.rows[file_id].full)
        self.service.delete_file(home.id, file_id)
        del home.rows[file_id]

    # Time

    async def refresh(self) -> None:
        self.tell("refresh")
        await self.refresh_all()

    async def time_passes(self) -> None:
        seconds = self.chance.choice([11, 61, 400])
        self.tell("time passes", seconds)
        self.clock.jump(seconds)
        await self.compare_views()

    async def remount(self) -> None:
        """Closing everything first; see ``play``."""
        self.tell("remount")
        while self.slots:
            await self.close(self.slots[0])

    async def refresh_all(self) -> None:
        for home in self.containers:
            await self.mount.refresh(home.name)
        await self.compare_views()

    async def compare_views(self) -> None:
        """Have both show what the service has; the mount has had reason to look."""
        for home in self.containers:
            await self.mount.names(home.name)
            home.refresh([slot.file for slot in self.slots])
            found = await self.mount.walk(home.name)
            expected: dict[str, bytes | None] = {
                f"{home.name}/{path}": file.content for path, file in home.view.items()
            }
            expected |= {f"{home.name}/{folder}": None for folder in home.folders()}
            assert found == expected

    # What must be true

    def has_folder(self, home: ModelContainer, path: str) -> bool:
        return set(folders_above(path)) <= home.folders()

    def path_of(self, home: ModelContainer, file: ModelFile) -> str | None:
        return next((path for path, each in home.view.items() if each is file), None)

    def any_slot(self) -> Slot | None:
        return self.chance.choice(self.slots) if self.slots else None

    @contextmanager
    def perhaps_stale(self, file: ModelFile) -> Iterator[None]:
        """Let a read fail if another client has deleted the file before its bytes came."""
        try:
            yield
        except StaleHandleError:
            assert self.is_gone(file)
            self.tell("  stale")

    def save(self, home: ModelContainer, file: ModelFile, *, path: str | None = None) -> None:
        """Expect the bytes of ``file`` as a new row, and those that it replaces to go."""
        place = path or self.path_of(home, file)
        assert place is not None
        file.is_dirty = False
        if file.is_local:
            return
        if file.is_stored_at(place):
            return
        found = rows_of(self.service, home.id)
        wanted = stored_name(place, file.content)
        new = [row for row in found.values() if row.id not in home.rows and row.path == wanted]
        assert [row.content for row in new] == [file.content], f"no upload for {place}"
        home.rows[new[0].id] = new[0]
        old = [] if file.row is None else [file.row]
        gone = [*file.replaces, *(row.id for row in old if row.path != wanted)]
        file.row, file.replaces, file.shown_at = new[0], (), place
        self.delete(home, gone)

    def remove(self, home: ModelContainer, file: ModelFile) -> None:
        file.is_removed = True
        file.is_dirty = False
        self.delete(home, self.replaced_by(file))

    def replaced_by(self, target: ModelFile) -> tuple[str, ...]:
        """Say that a name was taken by another; return the rows that go with it."""
        target.is_removed = True
        target.is_dirty = False
        own = () if target.row is None else (target.row.id,)
        return (*target.replaces, *own)

    def delete(self, home: ModelContainer, file_ids: list[str] | tuple[str, ...]) -> None:
        for file_id in file_ids:
            home.rows.pop(file_id, None)
            home.hidden.discard(file_id)

    def check(self) -> None:
        self.mount.check_invariants()
        for home in self.containers:
            found = rows_of(self.service, home.id)
            assert sorted(found) == sorted(home.rows), home.name
            home.rows = found

    async def play(self) -> None:
        self.tell("begin")
        steps = self.steps()
        left = STEPS
        while left > 0:
            async with mounted(self.service, self.state) as self.mount:
                await self.compare_views()
                kind = ""
                while left > 0 and kind != "remount":
                    left -= 1
                    kind = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
                    # Two things never happen at the same instant; a still clock says they do.
                    self.clock.jump(0.001)
                    await steps[kind]()
                    self.check()
                while self.slots:
                    await self.close(self.slots[0])
                    self.check()
                await self.refresh_all()

    def steps(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "write": self.write,
            "read": self.read,
            "unlink": self.unlink,
            "rename": self.rename,
            "mkdir": self.mkdir,
            "rmdir": self.rmdir,
            "move_folder": self.move_folder,
            "open": self.open,
            "write_slot": self.write_slot,
            "read_slot": self.read_slot,
            "close_slot": self.close_slot,
            "other_plants": self.other_plants,
            "other_uploads": self.other_uploads,
            "other_deletes": self.other_deletes,
            "refresh": self.refresh,
            "time_passes": self.time_passes,
            "remount": self.remount,
        }


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + EXAMPLES))
async def test_a_mount_shows_and_stores_what_plain_dictionaries_do(
    tmp_path: Path, seed: int, mock_clock: trio.testing.MockClock
) -> None:
    """Promises 3 and 7 to 12a."""
    with InProcessService(tmp_path / "service") as service:
        session = Session(seed, service, tmp_path / "state", mock_clock)
        try:
            await session.play()
        except BaseException as error:
            error.add_note("\n".join(session.story))
            raise
