"""The words for how the sending of a mount goes on; pure."""

from __future__ import annotations

from datetime import UTC, datetime

from ctrfs.cli.meter import STILL_S, Reading
from ctrfs.cli.output import printable
from ctrfs.disk.progress import MountProgress, Sending
from ctrfs.units import text_from_size


def figures(reading: Reading) -> str:
    """Return files, bytes, rate and time left, as far as they can be told."""
    parts = [
        f"{reading.done_files} of {_files(reading.all_files)}",
        f"{text_from_size(reading.done_bytes)} of {text_from_size(reading.all_bytes)}",
    ]
    if reading.bytes_per_s:
        parts.append(f"{text_from_size(int(reading.bytes_per_s))}/s")
    if reading.left_s is not None:
        parts.append(f"{duration(reading.left_s)} left")
    return ", ".join(parts)


def remarks(progress: MountProgress, reading: Reading) -> list[str]:
    """Return what a user should know besides the figures: why nothing moves, what has failed."""
    found: list[str] = []
    if reading.still_s > STILL_S:
        found.append(_why_still(progress, reading))
    if progress.failed_files:
        reason = printable(progress.error)
        found.append(f"{_files(progress.failed_files)} could not be sent so far: {reason}")
    if progress.pending_changes:
        found.append(f"{progress.pending_changes} deletion(s) or rename(s) still to be made")
    return found


def summary(progress: MountProgress, reading: Reading) -> str:
    """Return all of it in one line."""
    first = "everything is sent" if reading.is_done else figures(reading)
    return "; ".join([first, *remarks(progress, reading)])


def file_state(sending: Sending) -> str:
    """Return how far one file is."""
    if sending.sent_bytes < sending.size_bytes:
        share = sending.sent_bytes / sending.size_bytes
        return f"{share:.0%} of {text_from_size(sending.size_bytes)}"
    return f"{text_from_size(sending.size_bytes)}, unanswered"


def duration(seconds: float) -> str:
    """Return ``12 s``, ``1:40 min``, ``2:03 h``: no more exact than a guess can be."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(1, whole)} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _why_still(progress: MountProgress, reading: Reading) -> str:
    if progress.service_error:
        since = datetime.fromtimestamp(progress.silent_since_s, tz=UTC).astimezone()
        return (
            f"waiting for the service, silent since {since:%H:%M:%S}: "
            f"{printable(progress.service_error)}"
        )
    still = duration(reading.still_s)
    if progress.sending_files:
        return f"waiting for the service, which has said nothing for {still}"
    return f"waiting for the next attempt; nothing has moved for {still}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
