"""What is read of a file that others change meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrfs.cli.uploading import pieces_of
from ctrfs.errors import CtrfsError


def test_a_file_that_grows_is_read_to_its_size_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"abcdef")

    assert b"".join(pieces_of(file, 4)) == b"abcd"


def test_a_file_that_shrinks_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"ab")

    with pytest.raises(CtrfsError, match="changed while it was read"):
        list(pieces_of(file, 4))
