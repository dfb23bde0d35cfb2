"""
A limiter with the wrong signature. Type checkers must refuse it where it is handed over; nobody runs this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tanksend import Sender

if TYPE_CHECKING:
    from tanksend.typing import RateLimiter, Signal, Slot


class CountsMessages:
    """Takes a number where a `Demand` comes in, and answers with seconds where a `Slot` is due."""

    async def reserve(self, recipients: int) -> float:
        return recipients / 14

    async def release(self, slot: Slot) -> None:
        pass

    async def feedback(self, signal: Signal) -> None:
        pass


limiter: RateLimiter = CountsMessages()  # refused
sender = Sender(limiter=CountsMessages())  # refused
