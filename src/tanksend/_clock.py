"""`SystemClock`: the time of this machine, for asyncio and trio."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel


class SystemClock:
    """A `Clock` of the system's own time."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def wall(self) -> float:
        """See `Clock.wall`."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        if seconds > 0:
            await anyio.sleep(seconds)
        else:
            await anyio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return "<SystemClock>"
