"""Does a limiter keep its contract? See `check_rate_limiter`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import attrs

from ..exceptions import ThrottlingError
from ..typing import Demand, Signal, Slot
from ._checks import _ERRORS, _require

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..typing import Clock, RateLimiter

_RATE = 50.0
_WEIGHTS = (1, 1, 3, 1, 20, 1, 2, 50, 1, 1, 1, 5)
_ROUNDING = 1e-6
_LONGEST_STOP = 10.0


async def check_rate_limiter(factory: Callable[[float], RateLimiter], clock: Clock, *, burst: int = 1) -> None:
    """
    Hold a limiter to `RateLimiter`. Takes about a minute of the clock's time: none at all on a `FakeClock`.

    Never above the rate in any window, whatever the weights; a debt is waited off; what is given back is free again,
    once; whoever asks first goes first; feedback never raises, and throttles neither stop the limiter nor speed it up.

    Args:
        factory: Makes a fresh limiter of so many recipients a second, whose time is that of *clock*.
        clock: Where time comes from.
        burst: Recipients that the limiter lets go at once after a rest.

    Raises:
        AssertionError: It breaks its contract.
    """
    await _check_pace(_Drive(factory(_RATE), clock, burst))
    await _check_crowd(_Drive(factory(_RATE), clock, burst))
    await _check_release(_Drive(factory(_RATE), clock, burst))
    await _check_part(_Drive(factory(_RATE), clock, burst))
    await _check_harmless_release(_Drive(factory(_RATE), clock, burst))
    await _check_fair(_Drive(factory(_RATE), clock, burst))
    await _check_feedback(factory(_RATE))
    await _check_throttled(_Drive(factory(_RATE), clock, burst))


class _Drive:
    """Uses a limiter, and keeps when how many recipients were due."""

    def __init__(self, limiter: RateLimiter, clock: Clock, burst: int) -> None:
        self._limiter = limiter
        self._clock = clock
        self._burst = burst
        self._used: list[tuple[float, int]] = []

    async def reserve(self, recipients: int, at_least: int | None = None) -> tuple[Slot, float]:
        """A slot, and the moment at which it is due."""
        at_least = recipients if at_least is None else at_least
        slot = await self._limiter.reserve(Demand(recipients, at_least))
        _require(0 <= slot.delay < math.inf, "delay is a number of seconds from 0 on")
        _require(at_least <= slot.recipients <= recipients, "a slot carries between at_least and recipients")
        return slot, self._clock.monotonic() + slot.delay

    async def release(self, slot: Slot) -> None:
        """Give a slot back."""
        try:
            await self._limiter.release(slot)
        except Exception as raised:
            raise AssertionError(f"release never raises, and not {type(raised).__name__}") from raised

    async def use(self, recipients: int) -> float:
        """Reserve, wait until it is due, and count it as sent."""
        slot, due = await self.reserve(recipients)
        self.note(recipients, due)
        await self._clock.sleep(slot.delay)
        return due

    async def throttle(self) -> None:
        """SES has refused one recipient."""
        await self._limiter.feedback(Signal(1, ThrottlingError()))

    def note(self, recipients: int, due: float) -> None:
        """Count it as sent."""
        self._used.append((due, recipients))

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await self._clock.sleep(seconds)

    def check(self) -> None:
        """
        No window of any length has more than its share.

        The last slot of a window is not counted: a heavy one goes when it is due, and its debt comes after it.
        """
        used = sorted(self._used)
        for first, (begin, _) in enumerate(used):
            before = 0
            for end, recipients in used[first:]:
                allowed = _RATE * (end - begin) + self._burst
                _require(before <= allowed + _ROUNDING, f"{before} recipients went where {allowed:.1f} may")
                before += recipients


async def _check_pace(drive: _Drive) -> None:
    begin = await drive.use(1)
    slot, due = await drive.reserve(20, at_least=1)
    drive.note(slot.recipients, due)
    for _ in range(3):
        for weight in _WEIGHTS:
            await drive.use(weight)
        await drive.sleep(0.5)  # what is not used is not saved up
    end = await drive.use(1)
    drive.check()
    fair = 3 * sum(_WEIGHTS) / _RATE
    _require(end - begin <= 2 * fair + 1.5, "at least half of the rate can be used")


async def _check_crowd(drive: _Drive) -> None:
    async def use() -> None:
        for weight in (1, 2, 1):
            await drive.use(weight)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(use)
    drive.check()


async def _check_release(drive: _Drive) -> None:
    """A slot that is given back is free again, once."""
    await drive.use(1)
    slot, unused = await drive.reserve(10)
    await drive.release(slot)
    after = await _same_weight_again(drive, slot)
    _require(after - unused < 5 / _RATE, "the time of a slot that was given back is free again")
    await drive.release(slot)
    for _ in range(3):
        await drive.use(1)
    drive.check()


async def _same_weight_again(drive: _Drive, slot: Slot) -> float:
    await drive.release(slot)
    _, due = await drive.reserve(slot.recipients)
    drive.note(slot.recipients, due)
    # Now the books look as they did when the first slot was taken.
    await drive.release(slot)
    return due


async def _check_part(drive: _Drive) -> None:
    """Of a slot of 20, 15 are not needed."""
    await drive.use(1)
    slot, due = await drive.reserve(20)
    drive.note(5, due)
    await drive.release(attrs.evolve(slot, recipients=15))
    await drive.release(attrs.evolve(slot, recipients=15))
    after = await drive.use(1)
    _require(after - due < 15 / _RATE, "the part of a slot that was not used is free again")
    await drive.use(1)
    drive.check()


async def _check_harmless_release(drive: _Drive) -> None:
    """Late, foreign and cancelled releases."""
    slot, _ = await drive.reserve(1)
    await drive.use(1)
    await drive.sleep(1.0)
    for given_back in (slot, Slot(0.0, 1), Slot(0.0, 1, "another limiter's")):
        await drive.release(given_back)
    slot, unused = await drive.reserve(10)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await drive.release(slot)
    after = await drive.use(10)
    _require(after - unused < 5 / _RATE, "a release is shielded from cancellation")
    await drive.use(1)
    drive.check()


async def _check_fair(drive: _Drive) -> None:
    """Each of several who ask in turn gets its turn, and a heavy one in the middle does not let the next one pass."""
    dues = []
    for weight in (1, 1, 10, 1, 1):
        _, due = await drive.reserve(weight)
        drive.note(weight, due)
        dues.append(due)
    _require(dues == sorted(dues), "whoever asks first is due first")
    turns, apart = [0] * 4, [0]

    async def use(who: int) -> None:
        for _ in range(10):
            await drive.use(1)
            turns[who] += 1
            if max(turns) < 10:
                apart.append(max(turns) - min(turns))

    async with anyio.create_task_group() as tasks:
        for who in range(len(turns)):
            tasks.start_soon(use, who)
    _require(max(apart) <= 3, "tasks that ask for the same get the same")
    drive.check()


async def _check_throttled(drive: _Drive) -> None:
    """Refusals for half a minute."""
    begin = await drive.use(1)
    for _ in range(30):
        await drive.sleep(0.5)
        for _ in range(3):
            await drive.throttle()
            due = await drive.use(1)
            _require(due - begin <= _LONGEST_STOP, "throttles slow a limiter down and do not stop it")
            begin = due
    drive.check()


async def _check_feedback(limiter: RateLimiter) -> None:
    errors = (ThrottlingError(), ThrottlingError(pause=True), *(error() for error in _ERRORS), None)
    for error in errors:
        try:
            await limiter.feedback(Signal(1, error))
        except Exception as raised:
            raise AssertionError(f"feedback never raises, and not {type(raised).__name__}") from raised
