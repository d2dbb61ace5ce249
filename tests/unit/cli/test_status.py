from __future__ import annotations

from pathlib import Path

import pytest

from ctrfs.cli.inventory import KeptState, KnownMount, MountState
from ctrfs.cli.status import print_unsent
from ctrfs.disk.reading import SlotContents, UnsentFile
from ctrfs.mount.records import MountRecord

SLOT = Path("/state/openai/0")
MOUNT = KnownMount(
    record=MountRecord(
        mountpoint="/mnt",
        source="openai:",
        pid=1,
        started_ticks=1,
        state_path=str(SLOT),
        log_file="",
    ),
    state=MountState.MOUNTED,
)


def kept(mount: KnownMount | None, *, error: str = "") -> KeptState:
    """A slot with one unsent file."""
    file = UnsentFile(
        id="1-1-1",
        container_id="cntr_1",
        container_name="work",
        path=b"a.txt",
        spool_path=SLOT / "spool" / "1",
        size_bytes=1,
        digest="",
        mtime_ns=0,
        mode=None,
        error=error,
        since_s=0,
    )
    contents = SlotContents(source="openai:", unsent=(file,))
    return KeptState(path=SLOT, source="openai:", mount=mount, contents=contents)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (kept(MOUNT), "waits to be sent"),
        (kept(None), "the mount ended before it was sent"),
        (kept(MOUNT, error="too large"), "too large"),
        (kept(None, error="too large"), "too large"),
    ],
)
def test_an_unsent_file_has_its_error_or_what_it_waits_for(
    capsys: pytest.CaptureFixture[str], state: KeptState, words: str
) -> None:
    print_unsent(state)

    row = capsys.readouterr().out.splitlines()[-1]
    assert row.endswith(f"  {words}  1-1-1")
