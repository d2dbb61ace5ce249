from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ctrfs.mount.mountinfo import Mount, current_mounts, mount_at, parse_mountinfo

TABLE = rb"""22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
42 22 0:39 / /mnt/my\040data\134x rw,nosuid,nodev - fuse.ctrfs openai:a\040b rw,user_id=0
43 22 0:40 / /mnt/plain rw - tmpfs tmpfs rw
44 22 0:41 / /mnt/plain rw - fuse.ctrfs local: rw
rubbish
"""


def test_a_line_tells_place_kind_source_and_device() -> None:
    assert parse_mountinfo(TABLE)[1] == Mount(
        mountpoint=Path("/mnt/my data\\x"),
        file_system_type="fuse.ctrfs",
        source="openai:a b",
        device="0:39",
    )


def test_optional_fields_and_rubbish_do_not_confuse_the_table() -> None:
    mounts = parse_mountinfo(TABLE)

    assert [mount.file_system_type for mount in mounts] == [
        "ext4", "fuse.ctrfs", "tmpfs", "fuse.ctrfs",
    ]  # fmt: skip


def test_the_topmost_of_two_mounts_at_one_place_counts() -> None:
    mount = mount_at(Path("/mnt/plain"), parse_mountinfo(TABLE))

    assert mount is not None
    assert mount.is_ours


def test_a_place_without_a_mount_has_none() -> None:
    assert mount_at(Path("/mnt"), parse_mountinfo(TABLE)) is None


def test_the_table_of_this_machine_can_be_read() -> None:
    assert mount_at(Path("/"), current_mounts()) is not None


@given(st.binary(max_size=200))
def test_no_table_is_too_strange(table: bytes) -> None:
    parse_mountinfo(table)


def test_a_mount_point_may_hold_a_carriage_return() -> None:
    line = b"36 35 0:59 / /mnt/a\rb rw - fuse.ctrfs openai: rw\n"

    (mount,) = parse_mountinfo(line)

    assert mount.mountpoint == Path("/mnt/a\rb")
    assert mount.is_ours
