"""
Does a part keep its contract? One check per Protocol of `tanksend.typing`, free of any test framework.

Each raises `AssertionError` with a sentence that says what was expected. Await them on the event loops you support::

    async def test_my_store():
        await check_suppression_store(lambda: MyStore(":memory:"))
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from .._addresses import Address
from .._messages import Message
from ..exceptions import (
    AccessDeniedError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    InvalidParameterError,
    OutcomeUnknownError,
    ServiceUnavailableError,
    ThrottlingError,
)
from ..typing import Attempt, GiveUp, Retry, SendRequest, Suppression, SuppressionReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..typing import Clock, RetryPolicy, SuppressionStore

_ERRORS = (
    AccessDeniedError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    InvalidParameterError,
    OutcomeUnknownError,
    ServiceUnavailableError,
    ThrottlingError,
)
_LONGEST_PATIENCE = 10_000
# SES's own address for trying things out: harmless if the transport is a real one.
_SAFE = "success+tanksend-check@simulator.amazonses.com"


def _require(condition: object, sentence: str) -> None:
    """Say in a sentence what was expected, when *condition* does not hold."""
    if not condition:
        raise AssertionError(sentence)


def sample_request(number: int = 0, *, from_: str = "sender@example.com") -> SendRequest:
    """A small request to SES's mailbox simulator."""
    message = Message(to=_SAFE, subject=f"A check of a transport, number {number}", text="It works.")
    return SendRequest(message, Address.parse(from_), to=message.to)


# --- suppression stores ----------------------------------------------------------------------------------------------


async def check_suppression_store(factory: Callable[[], SuppressionStore]) -> None:
    """
    Hold a suppression store to `SuppressionStore`.

    Args:
        factory: Makes an empty store.

    Raises:
        AssertionError: It breaks its contract.
    """
    store = factory()
    _require(not await store.lookup([]), "looking nobody up finds nobody")
    _require(not await store.lookup(["nobody@example.com"]), "an empty store suppresses nobody")
    _require(await _all(store) == [], "an empty store has no entries")
    await store.add()
    await _check_entry(store)
    await _check_expiry(store)
    await _check_many(store)


async def _check_entry(store: SuppressionStore) -> None:
    entry = Suppression("Anna.Lee@Example.com", SuppressionReason.COMPLAINT, at=1_700_000_000.0, evidence="event-1")
    await store.add(entry)
    asked = ["anna.lee@example.com", "ANNA.LEE@EXAMPLE.COM", "someone@example.com"]
    found = await store.lookup(asked)
    _require(set(found) == set(asked[:2]), "matching is case-insensitive, under the spelling that was asked with")
    kept = found[asked[0]]
    _require(kept.reason is SuppressionReason.COMPLAINT, "the reason is kept")
    _require(kept.at == entry.at and kept.evidence == entry.evidence, "time and evidence are kept")
    await store.add(Suppression("anna.lee@example.com", SuppressionReason.MANUAL))
    found = await store.lookup(asked[:1])
    _require(found[asked[0]].reason is SuppressionReason.MANUAL, "an entry for a known address replaces it")
    _require(len(await _all(store)) == 1, "a replaced entry is one entry")
    _require(await store.remove("Anna.Lee@example.com") is True, "removing a suppression says True")
    _require(await store.remove("anna.lee@example.com") is False, "removing nothing says False")
    _require(not await store.lookup(asked), "a removed suppression no longer holds")


async def _check_expiry(store: SuppressionStore) -> None:
    await store.add(Suppression("past@example.com", expires_at=1.0), Suppression("future@example.com", expires_at=9e9))
    found = await store.lookup(["past@example.com", "future@example.com"])
    _require(set(found) == {"future@example.com"}, "an entry holds until it expires, and no longer")
    _require(len(await _all(store)) == 1, "entries() leaves out what has expired")
    await store.remove("future@example.com")
    await store.remove("past@example.com")


async def _check_many(store: SuppressionStore) -> None:
    addresses = [f"person.{number}@example.com" for number in range(1_200)]
    await store.add(*(Suppression(address) for address in addresses))
    found = await store.lookup(addresses)
    _require(set(found) == set(addresses), "1,200 addresses can be added and looked up at once")
    _require({entry.address.lower() for entry in await _all(store)} == set(addresses), "entries() names them all")


async def _all(store: SuppressionStore) -> list[Suppression]:
    return [entry async for entry in store.entries()]


# --- retry policies --------------------------------------------------------------------------------------------------


def check_retry_policy(policy: RetryPolicy, *, resend_unknown: bool = False) -> None:
    """
    Hold a retry policy to `RetryPolicy`, over every kind of error.

    Args:
        policy: The policy.
        resend_unknown: It is meant to repeat what SES may have taken (at-least-once).

    Raises:
        AssertionError: It breaks its contract.
    """
    for attempt in _attempts():
        decision = policy.decide(attempt)
        kind = type(attempt.error).__name__
        _require(isinstance(decision, Retry | GiveUp), f"decide answers Retry or GiveUp, also for {kind}")
        _require(policy.decide(attempt) == decision, f"decide is pure: the same attempt, the same answer ({kind})")
        if isinstance(decision, Retry):
            _require(0 <= decision.after < math.inf, f"the wait is a number of seconds from 0 on ({kind})")
            again = resend_unknown if attempt.error.maybe_sent else attempt.error.retryable
            _require(again, f"{kind} is not repeated: it would fail again, or reach the recipient twice")
    _check_end(policy)


def _attempts() -> Iterable[Attempt]:
    for error in _ERRORS:
        for number in (1, 2, 3, 10, _LONGEST_PATIENCE):
            for jitter in (0.0, 0.5, 0.999_999):
                throttles = number if error is ThrottlingError else 0
                yield Attempt(number, error(), elapsed=float(number), jitter=jitter, throttles=throttles)


def _check_end(policy: RetryPolicy) -> None:
    last = Attempt(_LONGEST_PATIENCE, ServiceUnavailableError(), elapsed=1e9, jitter=0.5)
    _require(isinstance(policy.decide(last), GiveUp), "transient failures are not repeated for ever")


# --- clocks ----------------------------------------------------------------------------------------------------------


async def check_clock(clock: Clock) -> None:
    """
    Hold a clock to `Clock`. Takes some 30 ms of its time.

    Raises:
        AssertionError: It breaks its contract.
    """
    order: list[str] = []

    async def wait(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        order.append(name)

    before, wall = clock.monotonic(), clock.wall()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "later", 0.03)
        tasks.start_soon(wait, "sooner", 0.01)
        tasks.start_soon(wait, "at once", 0.0)
        tasks.start_soon(wait, "in the past", -1.0)
    passed = clock.monotonic() - before
    _require(set(order[:2]) == {"at once", "in the past"}, "sleeping for 0 or less yields once and no more")
    _require(order[2:] == ["sooner", "later"], "sleepers wake in the order of their moments")
    _require(passed > 0.0299, "sleep waits as long as it was told")
    _require(clock.wall() - wall >= 0, "the wall clock does not go back here")
    await _check_cancelled_sleep(clock)


async def _check_cancelled_sleep(clock: Clock) -> None:
    before = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, 1_000.0)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    _require(clock.monotonic() - before < 1_000.0, "cancellation ends a sleep at once")
