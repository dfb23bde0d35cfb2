"""Limiters: who may send, and when."""

from __future__ import annotations

from ._account import AccountLimiter
from ._token_bucket import TokenBucketLimiter

__all__ = ["AccountLimiter", "TokenBucketLimiter"]
