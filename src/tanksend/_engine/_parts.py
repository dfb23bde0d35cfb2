"""What a run works with."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import anyio
import attrs

from .._messages import default_validator
from ..typing import GiveUp, LimiterFigures
from ._waits import with_notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._addresses import Address
    from .._validator import AddressValidator
    from ..typing import (
        Attempt,
        Clock,
        Guard,
        Ledger,
        Observer,
        RateLimiter,
        Retry,
        RetryPolicy,
        SendEvent,
        Signal,
        Slot,
        SuppressionStore,
        Transport,
    )

log = logging.getLogger("tanksend")

MAX_PARALLEL = 256
"""Requests on the wire at once when the caller sets no limit."""

HEADROOM = 1.02
"""By how much more than a limiter's own rate the granted one may be and still count as used to the full."""

RELEASE_SECONDS = 5.0
"""How long a limiter may take to get a slot back while everybody else leaves."""


@attrs.frozen(kw_only=True)
class Parts:
    """The plugged-in parts and the defaults of a sender, for its runs."""

    transport: Transport
    limiter: RateLimiter
    retry: RetryPolicy
    suppression: SuppressionStore
    clock: Clock
    jitter: Callable[[], float]
    ledger: Ledger | None = None
    validator: AddressValidator = attrs.field(factory=default_validator)
    guards: tuple[Guard, ...] = ()
    observers: tuple[Observer, ...] = ()
    max_parallel: int = MAX_PARALLEL
    from_: Address | None = None
    configuration_set: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict)

    def figures(self) -> LimiterFigures | None:
        """What the limiter knows of the account, where it says so."""
        figures = getattr(self.limiter, "figures", None)
        return figures if isinstance(figures, LimiterFigures) else None

    def granted_rate(self) -> float:
        """Recipients per second that the account may send; ``math.inf`` where that is not known."""
        figures = self.figures()
        return math.inf if figures is None else figures.granted_rate

    def usable_rate(self) -> float:
        """
        Recipients per second at which the limiter lets go; ``math.inf`` where that is not known.

        The granted rate as a rule: the limiter stays a little below it, to be safe, and that little is no matter here.
        """
        figures = self.figures()
        if figures is not None:
            return min(figures.granted_rate, figures.rate * HEADROOM)
        rate = getattr(self.limiter, "rate", None)
        return float(rate) if isinstance(rate, int | float) else math.inf

    async def feedback(self, signal: Signal, notice: Callable[[], object]) -> None:
        """Tell the limiter; what goes wrong there is its own. *notice* is called should it take its time."""
        try:
            await with_notice(self.limiter.feedback(signal), notice)
        except Exception as error:  # noqa: BLE001  (it must not cost a fate)
            log.warning("the limiter's feedback raised %s", type(error).__name__)

    async def release(self, slot: Slot) -> None:
        """Give *slot* back; what goes wrong there is the limiter's own."""
        try:
            with anyio.move_on_after(RELEASE_SECONDS, shield=True):
                await self.limiter.release(slot)
        except Exception as error:  # noqa: BLE001  (it must not cost a fate)
            log.warning("the limiter's release raised %s", type(error).__name__)

    def decide(self, attempt: Attempt) -> Retry | GiveUp:
        """Ask the retry policy; one that raises gives up."""
        try:
            return self.retry.decide(attempt)
        except Exception as error:  # noqa: BLE001  (it must not cost a fate)
            log.warning("the retry policy raised %s", type(error).__name__)
            return GiveUp()

    def tell(self, event: SendEvent) -> None:
        """Tell the observers; what goes wrong there is theirs."""
        for observer in self.observers:
            try:
                observer.on_event(event)
            except Exception as error:  # noqa: BLE001  (an observer must never cost a fate)
                log.warning("an observer of type %s raised %s", type(observer).__name__, type(error).__name__)
