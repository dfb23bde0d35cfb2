"""Limiters: who may send, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._account import AccountLimiter
from ._token_bucket import TokenBucketLimiter

if TYPE_CHECKING:
    from ._redis import RedisLimiter

__all__ = ["AccountLimiter", "RedisLimiter", "TokenBucketLimiter"]


def __getattr__(name: str) -> object:
    """`RedisLimiter` is loaded when it is first asked for: most programs do without."""
    if name == "RedisLimiter":
        from ._redis import RedisLimiter

        return RedisLimiter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What can be asked for, for completion and the reference; what is not loaded yet, too."""
    return sorted({*globals(), *__all__})
