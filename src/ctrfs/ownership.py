"""Whether a file or directory is this user's own, or could be another's trap; pure.

The callers open without following links and ask about what they hold, so that nothing can be
put in its place between the question and the use.
"""

from __future__ import annotations

import os
import stat


def complaint_about_directory(facts: os.stat_result) -> str | None:
    """Return why nothing of ours may be put into a directory, or None.

    Another user's, or one that everybody can write: who can rename there can lead us anywhere.
    """
    if not stat.S_ISDIR(facts.st_mode):
        return "is a link or not a directory"
    if facts.st_uid != os.geteuid():
        return "belongs to another user"
    if facts.st_mode & stat.S_IWOTH:
        return "can be written by others"
    return None


def complaint_about_file(facts: os.stat_result) -> str | None:
    """Return why a file must not be written, or None.

    A pipe or a device would take our bytes elsewhere, and so would another user's file.
    """
    if not stat.S_ISREG(facts.st_mode):
        return "is no ordinary file"
    if facts.st_uid != os.geteuid():
        return "belongs to another user"
    return None


def has_other_names(facts: os.stat_result) -> bool:
    """Tell whether a file has hard links: one of the names may be another program's file."""
    return facts.st_nlink > 1
