"""Small facts learnt about a service, so that the next mount need not learn them again."""

from __future__ import annotations

from typing import Final

from ctrfs.disk.database import StateDatabase, blob_from_text, text_from_blob

SOURCE_FACT: Final = "source"
"""SOURCE as it was mounted last: who reads a state directory learns whose it is."""


class ServiceFacts:
    """Texts by name. Not async on purpose: the disk is not waited for (``disk.database``)."""

    def __init__(self, database: StateDatabase) -> None:
        self._database = database

    def get(self, name: str) -> str | None:
        """Return what is known under ``name``."""
        rows = self._database.rows("SELECT value FROM fact WHERE name = ?", (name,))
        return text_from_blob(rows[0]["value"]) if rows else None

    def set(self, name: str, value: str) -> None:
        """Remember ``value`` under ``name``, instead of what was there."""
        self._database.execute(
            "INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)",
            (name, blob_from_text(value)),
        )
