"""Suppression stores: who must not be written to."""

from __future__ import annotations

from ._import import ImportReport
from ._memory import MemorySuppressionStore
from ._sqlite import SQLiteSuppressionStore

__all__ = ["ImportReport", "MemorySuppressionStore", "SQLiteSuppressionStore"]
