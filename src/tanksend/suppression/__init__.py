"""Suppression stores: who must not be written to."""

from __future__ import annotations

from ._memory import MemorySuppressionStore

__all__ = ["MemorySuppressionStore"]
