"""Inode numbers and lookup counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrfs.api.models import Container, ContainerId
from ctrfs.errors import NoSuchEntryError
from ctrfs.tree.inodes import FIRST_HASHED, HASHED_BITS, InodeTable
from ctrfs.tree.nodes import ROOT_INODE, ContainerDirectory, File, Root

OWNER = ContainerDirectory(
    Container(id=ContainerId("cntr_1"), name="a", created_at_s=0, status="running"),
    inode=ROOT_INODE,
    mtime_ns=0,
)


def new_file(table: InodeTable, key: str) -> File:
    file = File(inode=table.number_for(key), owner=OWNER, remote=None, mtime_ns=0)
    table.register(file)
    return file


@given(st.text())
def test_one_key_has_one_number_in_every_mount(key: str) -> None:
    number = InodeTable().number_for(key)

    assert number == InodeTable().number_for(key)
    assert FIRST_HASHED <= number < 1 << HASHED_BITS


def test_a_number_in_use_is_not_given_again() -> None:
    table = InodeTable()

    first, second = new_file(table, "key"), new_file(table, "key")

    assert first.inode != second.inode


def test_a_number_under_which_bytes_are_held_is_not_given_again() -> None:
    table = InodeTable()
    gone = new_file(table, "key")
    table.drop(gone.inode)
    table.is_held = {gone.inode}.__contains__

    assert table.number_for("key") != gone.inode
    table.check_invariants()


def test_a_nameless_entry_lives_until_the_kernel_forgets_it() -> None:
    table = InodeTable()
    file = new_file(table, "key")
    table.remember(file.inode)
    table.remember(file.inode)
    table.drop(file.inode)

    table.forget([(file.inode, 1)])
    assert table.node(file.inode) is file
    table.forget([(file.inode, 1)])

    with pytest.raises(NoSuchEntryError):
        table.node(file.inode)
    table.check_invariants()


def test_an_entry_that_the_kernel_does_not_know_goes_with_its_name() -> None:
    table = InodeTable()
    file = new_file(table, "key")

    table.drop(file.inode)

    assert len(table) == 0
    table.drop(file.inode)  # a second time is harmless


def test_an_entry_with_a_name_outlives_the_kernels_interest() -> None:
    table = InodeTable()
    file = new_file(table, "key")
    table.remember(file.inode)

    table.forget([(file.inode, 1)])

    assert table.node(file.inode) is file
    table.drop(file.inode)
    with pytest.raises(NoSuchEntryError):  # nobody knew it any more
        table.node(file.inode)


def test_a_restored_entry_is_there_again_even_if_it_was_forgotten() -> None:
    table = InodeTable()
    file = new_file(table, "key")
    table.drop(file.inode)

    table.restore(file)

    assert table.node(file.inode) is file
    table.check_invariants()


def test_the_root_is_never_dropped() -> None:
    table = InodeTable()
    root = Root(mtime_ns=0)
    table.register(root)

    table.drop(ROOT_INODE)

    assert table.node(ROOT_INODE) is root
