"""One process of the load: ``python -m scripts.soak.workers KIND CONTAINER OUTSIDE SEED``.

Works until the file ``OUTSIDE/stop`` is there, then writes ``OUTSIDE/report.json``. Each kind
has a container of its own, so that its ledger knows all that happened there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from scripts.soak.api_user import add_and_remove_through_the_api
from scripts.soak.hands import Hands
from scripts.soak.ledger import ABSENT, digest_of
from tests.support.mounting import pause
from tests.support.trees import contents, plant_tree

# So many files a worker keeps at most: what grows without end must be the daemon's fault.
FILES_MAX: Final = 24
SMALL_FILES: Final = 60
BIG_BYTES: Final = 24 << 20
PAUSE_S: Final = 0.02
ROUNDS_BETWEEN_GC: Final = 12

Round = Callable[[Hands], None]


def copy_trees(hands: Hands) -> None:
    """Copy a tree in, read it back, rename a folder of it, copy it out, remove it."""
    source = hands.outside / "tree"
    if not source.exists():
        plant_tree(source, files=24)
    tree = {path: digest_of(content) for path, content in contents(source).items()}
    place = f"copy {hands.chance.randrange(3)}"
    if hands.run("cp -r", "cp", "-rT", source, hands.top / place) is None:
        for path, digest in tree.items():
            hands.ledger.doubt(f"{place}/{path}", digest, digest_of(b""))
    else:
        for path, digest in tree.items():
            hands.ledger.settle(f"{place}/{path}", digest)
    for path in tree:
        hands.check(f"{place}/{path}")
    _remove_tree(hands, place, list(tree))


def _remove_tree(hands: Hands, place: str, paths: list[str]) -> None:
    is_gone = hands.run("rm -r", "rm", "-rf", hands.top / place) is not None
    for path in paths:
        if is_gone:
            hands.ledger.settle(f"{place}/{path}", ABSENT)
        else:
            hands.ledger.doubt(f"{place}/{path}", ABSENT)


def move_folders(hands: Hands) -> None:
    """Fill a folder, rename it there and back, and read what is in it.

    After a renaming that failed both names may be taken: the next round has others.
    """
    names = [f"part {number}" for number in range(4)]
    failures = sum(hands.failed[kind] for kind in hands.failed if kind.startswith("rename folder"))
    here, there = f"folder {failures}", f"moved folder {failures}"
    (hands.top / here).mkdir(exist_ok=True)
    for name in names:
        hands.put(f"{here}/{name}", hands.content(bytes_max=9000))
    for old, new in ((here, there), (there, here)):
        if not _move_folder(hands, old, new, names):
            return
        for name in names:
            hands.check(f"{new}/{name}")


def _move_folder(hands: Hands, old: str, new: str, names: list[str]) -> bool:
    try:
        (hands.top / old).rename(hands.top / new)
    except OSError as error:
        hands.failed[f"rename folder: {error.strerror}"] += 1
        for name in names:
            hands.ledger.doubt_move(f"{old}/{name}", f"{new}/{name}")
        return False
    hands.done["rename folder"] += 1
    for name in names:
        hands.ledger.move(f"{old}/{name}", f"{new}/{name}")
    return True


def change_files(hands: Hands) -> None:
    """Overwrite, patch, rename, delete and read files in any order."""
    path, other = (f"file {hands.chance.randrange(FILES_MAX)}" for _ in range(2))
    content = hands.content(bytes_max=70_000)
    match hands.chance.choice(["put", "put", "patch", "rename", "delete", "read", "read"]):
        case "put":
            hands.put(path, content, syncs=hands.chance.random() < 0.2)
        case "patch":
            cut = hands.chance.choice([None, None, hands.chance.randrange(80_000)])
            offset = hands.chance.randrange(50_000)
            hands.patch(path, offset=offset, piece=content[:5000], keeps_bytes=cut)
        case "rename" if path != other and path in hands.ledger.present():
            hands.rename(path, other)
        case "delete" if path in hands.ledger.present():
            hands.delete(path)
        case _:
            hands.check(path)


def save_as_editors_do(hands: Hands) -> None:
    """Save a text by each of the ways in which editors save."""
    path = f"text {hands.chance.randrange(6)}.md"
    content = b"".join(b"line %d\n" % number for number in range(hands.chance.randrange(1, 900)))
    content += hands.chance.randbytes(8).hex().encode()
    draft, backup = ".goutputstream-SOAK", f"{path}~"
    match hands.chance.choice(["beside", "backup", "in place", "sed"]):
        case "beside":
            if hands.put(draft, content, syncs=True):
                hands.rename(draft, path)
        case "backup":
            if path in hands.ledger.present() and not hands.rename(path, backup):
                return
            hands.put(path, content)
            if backup in hands.ledger.present():
                hands.delete(backup)
        case "in place":
            hands.put(path, content, syncs=True)
        case _ if path in hands.ledger.present():
            before = hands.ledger.acceptable(path)
            _sed(hands, path, before)
    hands.check(path)


def _sed(hands: Hands, path: str, before: set[str | None]) -> None:
    """Put one line before a text, as ``sed -i`` does: a new file over the old one."""
    try:
        content = (hands.top / path).read_bytes()
    except OSError:
        return
    if before != {digest_of(content)}:
        return
    after = digest_of(b"first\n" + content)
    if hands.run("sed -i", "sed", "-i", "1i first", hands.top / path) is None:
        hands.ledger.doubt(path, after)
    else:
        hands.ledger.settle(path, after)


def commit_with_git(hands: Hands) -> None:
    """Commit a change and look at the state; the last look is ``git fsck`` at the end."""
    git = ["git", "-c", "gc.auto=0", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    if not (hands.top / ".git/HEAD").exists():
        hands.run("git init", *git, "init", "-q", "-b", "main", cwd=hands.top)
    name = f"source {hands.chance.randrange(5)}.txt"
    text = hands.chance.randbytes(600).hex()
    try:
        (hands.top / name).write_text(text)
    except OSError as error:
        hands.failed[f"write: {error.strerror}"] += 1
        return
    committed = (
        hands.run("git add", *git, "add", "-A", cwd=hands.top) is not None
        and hands.run("git commit", *git, "commit", "-qm", name, cwd=hands.top) is not None
    )
    if hands.done["rounds"] % ROUNDS_BETWEEN_GC == 0:
        # Without it the objects, and so the inodes, would grow with every commit. Not by chance:
        # in what grows between two of them no growth of the daemon's own could be seen.
        hands.run("git gc", *git, "gc", "-q", "--prune=now", cwd=hands.top)
    hands.run("git status", *git, "status", "--porcelain", cwd=hands.top)
    if committed:
        head = hands.run("git rev-parse", *git, "rev-parse", "HEAD", cwd=hands.top)
        with (hands.outside / "commits").open("a") as commits:
            commits.write(head or "")
    else:
        # What a person does after a git that was ended: its locks are local-only names.
        for lock in (hands.top / ".git").rglob("*.lock"):
            lock.unlink(missing_ok=True)


def change_a_big_file(hands: Hands) -> None:
    """Write a big file, change a few bytes far inside, read it all, now and then delete it."""
    path = f"big {hands.chance.randrange(2)}.bin"
    if path not in hands.ledger.present():
        hands.put(path, hands.chance.randbytes(BIG_BYTES))
    offset = hands.chance.randrange(BIG_BYTES)
    hands.patch(path, offset=offset, piece=hands.content(bytes_max=8192), keeps_bytes=BIG_BYTES)
    hands.check(path)
    if hands.chance.random() < 0.4:
        hands.delete(path)
    pause(2.0)


def make_many_small_files(hands: Hands) -> None:
    """Make many small files in one folder, list and read them, delete them all."""
    folder = "many"
    (hands.top / folder).mkdir(exist_ok=True)
    paths = [f"{folder}/{number:03}" for number in range(SMALL_FILES)]
    for path in paths:
        hands.put(path, hands.content(bytes_max=2000))
    try:
        listed = set(os.listdir(hands.top / folder))  # noqa: PTH208  # one call
    except OSError as error:
        hands.failed[f"list: {error.strerror}"] += 1
    else:
        missing = {path for path in hands.ledger.present() if Path(path).name not in listed}
        if missing:
            hands.complain(f"the listing lacks {sorted(missing)}")
    for path in paths:
        hands.check(path)
    for path in paths:
        hands.delete(path)
    hands.ledger.forget_absent()


def keep_local_names(hands: Hands) -> None:
    """Write names that never leave this machine, and rename some to names that do."""
    number = hands.chance.randrange(8)
    draft, final = f".draft{number}.swp", f"final {number}"
    hands.put(draft, hands.content(bytes_max=20_000))
    hands.put(f"note {number}~", hands.content(bytes_max=500))
    hands.check(f"note {number}~")
    if draft in hands.ledger.present():
        hands.rename(draft, final)
    hands.check(final)
    if hands.chance.random() < 0.5:
        hands.delete(final)


KINDS: Final[Mapping[str, Round]] = {
    "trees": copy_trees,
    "folders": move_folders,
    "files": change_files,
    "editors": save_as_editors_do,
    "git": commit_with_git,
    "big": change_a_big_file,
    "small": make_many_small_files,
    "local": keep_local_names,
    "api": add_and_remove_through_the_api,
}


def work(kind: str, hands: Hands) -> None:
    """Do rounds until told to stop."""
    play = KINDS[kind]
    while not (hands.outside / "stop").exists():
        started_s = time.monotonic()
        try:
            play(hands)
        except OSError as error:
            hands.failed[f"{kind}: {error.strerror}"] += 1
        hands.done["rounds"] += 1
        hands.done["longest round, s"] = max(
            hands.done["longest round, s"], round(time.monotonic() - started_s)
        )
        pause(PAUSE_S)


def main(kind: str, top: str, outside: str, seed: str) -> None:
    """Work as one kind, and write down how it went, whatever happens."""
    hands = Hands(Path(top), Path(outside), seed=int(seed))
    try:
        work(kind, hands)
    finally:
        report = {
            "done": hands.done,
            "failed": hands.failed,
            "wrong": hands.wrong,
            "ledger": json.loads(hands.ledger.to_json()),
        }
        (hands.outside / "report.json").write_text(json.dumps(report, indent=1))
        shutil.rmtree(hands.outside / "tree", ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
