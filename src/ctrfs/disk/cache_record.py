"""What stands behind the bytes of a cached copy, so that one rename publishes both.

    bytes of the file, holes included | record (msgpack) | footer: magic, length and sum of the record

Everything here is read as if anybody had written it: a record that is not whole, is of another
version of this program, or speaks of other bytes than lie before it, is none.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from xxhash import xxh3_64_intdigest

from ctrfs.disk.block_sums import BlockSums
from ctrfs.disk.extents import Extents
from ctrfs.units import MIB

# Grows with the format of the record: entries of another version are dropped as foreign.
_MAGIC: Final = b"ctrfs\x00c1"
_FOOTER: Final = struct.Struct("<8sQQ")
FOOTER_BYTES: Final = _FOOTER.size
# Some 100 GiB in one piece have a record of 1 MiB; nothing makes us read a larger one.
RECORD_BYTES_MAX: Final = 16 * MIB


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is known of the bytes before it."""

    key: str
    """Of which bytes: the text of the identity."""
    stored_bytes: int
    """How many bytes lie before this record, holes included."""
    is_complete: bool
    digest: str | None
    extents: list[tuple[int, int]]
    sums: dict[int, int]


def trailer_for(record: Record) -> bytes:
    """Return what is to be written behind the bytes."""
    body = msgspec.msgpack.encode(record)
    return body + _FOOTER.pack(_MAGIC, len(body), xxh3_64_intdigest(body))


def record_length(footer: bytes) -> int | None:
    """Return how long the record before this footer is; None if it is no footer of ours."""
    if len(footer) != FOOTER_BYTES:
        return None
    magic, length, _ = _FOOTER.unpack(footer)
    return int(length) if magic == _MAGIC and length <= RECORD_BYTES_MAX else None


def record_from(body: bytes, footer: bytes, *, file_bytes: int) -> Record | None:
    """Return the record of a file of ``file_bytes``; None if it is damaged or makes no sense."""
    _, length, checksum = _FOOTER.unpack(footer)
    if len(body) != length or xxh3_64_intdigest(body) != checksum:
        return None
    try:
        record = msgspec.msgpack.decode(body, type=Record)
    except msgspec.DecodeError:
        return None
    if record.stored_bytes != file_bytes - length - FOOTER_BYTES:
        return None
    ends = [0, *(bound for pair in record.extents for bound in pair), record.stored_bytes]
    if ends != sorted(ends):
        return None
    return record


def sums_in(record: Record) -> BlockSums | None:
    """Return the sums in ``record``, none compared yet; None if a block that is there has none."""
    extents = Extents(record.extents)
    sums = BlockSums(record.sums, extents, are_verified=False)
    return sums if sums.tells_all() else None
