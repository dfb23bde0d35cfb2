"""Ledgers: what was meant to be sent, and what became of it, by key."""

from __future__ import annotations

from ._memory import MemoryLedger
from ._postgres import PostgresLedger
from ._sqlite import SQLiteLedger

__all__ = ["MemoryLedger", "PostgresLedger", "SQLiteLedger"]
