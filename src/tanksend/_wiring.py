"""What a `Sender` is made of when its caller leaves it open."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from ._addresses import Address, parse_addresses
from ._clock import SystemClock
from ._engine import MAX_PARALLEL, Parts
from ._messages import check_tags, default_validator
from ._messages._rules import SET_NAME
from .exceptions import InvalidAddressError, InvalidMessageError, Problem, SettingError
from .limiters import AccountLimiter, TokenBucketLimiter
from .retries import ExponentialBackoff
from .suppression import MemorySuppressionStore
from .typing import AccountSource, LearnsAccount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._validator import AddressValidator
    from .typing import Clock, Guard, Ledger, Observer, RateLimiter, RetryPolicy, SuppressionStore, Transport

_PARTS = {
    "transport": (("send", "aclose"), "SESTransport()"),
    "limiter": (("reserve", "release", "feedback"), "TokenBucketLimiter(14)"),
    "retry": (("decide",), "ExponentialBackoff()"),
    "suppression": (("lookup",), 'SQLiteSuppressionStore("suppressed.db")'),
    "ledger": (("lookup", "claim", "record"), 'SQLiteLedger("news.db")'),
    "guards": (("check",), "one with async def check(self, message)"),
    "observers": (("on_event",), "one with def on_event(self, event)"),
}
"""What the engine calls of each part, and an example."""


def wire(
    *,
    from_: str | Address | None,
    region: str | None,
    endpoint_url: str | None,
    transport: Transport | None,
    limiter: RateLimiter | None,
    retry: RetryPolicy | None,
    suppression: SuppressionStore | None,
    validator: AddressValidator | None,
    ledger: Ledger | None,
    guards: Iterable[Guard],
    observers: Iterable[Observer],
    max_parallel: int | None,
    configuration_set: str | None,
    tags: Mapping[str, str] | None,
    clock: Clock | None,
) -> Parts:
    """The arguments of `Sender`, checked and completed."""
    if transport is not None and (region is not None or endpoint_url is not None):
        raise SettingError("region= and endpoint_url= are for the default transport; give them to transport= instead")
    if max_parallel is not None and max_parallel < 1:
        raise SettingError("max_parallel must be at least 1")
    if configuration_set is not None and not SET_NAME.fullmatch(configuration_set):
        raise SettingError("configuration_set must be 1 to 64 letters, digits, _ or -")
    given = {"transport": transport, "limiter": limiter, "retry": retry, "suppression": suppression, "ledger": ledger}
    for name, part in given.items():
        if part is not None:
            _check_part(name, part)
    guards, observers = tuple(guards), tuple(observers)
    for name, parts in (("guards", guards), ("observers", observers)):
        for each in parts:
            _check_part(name, each)
    # Compared with None: a store of somebody's own that is empty, and says so by its length, is a store.
    clock = SystemClock() if clock is None else clock
    validator = default_validator() if validator is None else validator
    transport = _default_transport(region, endpoint_url) if transport is None else transport
    limiter = _default_limiter(transport, clock) if limiter is None else limiter
    if isinstance(limiter, LearnsAccount) and isinstance(transport, AccountSource):
        limiter.learn_from(transport)
    return Parts(
        transport=transport,
        limiter=limiter,
        retry=ExponentialBackoff() if retry is None else retry,
        suppression=MemorySuppressionStore(clock=clock) if suppression is None else suppression,
        clock=clock,
        jitter=random.random,
        ledger=ledger,
        validator=validator,
        guards=guards,
        observers=observers,
        max_parallel=MAX_PARALLEL if max_parallel is None else max_parallel,
        from_=_default_from(from_, validator),
        configuration_set=configuration_set,
        tags=_checked_tags(tags),
    )


def _check_part(name: str, part: object) -> None:
    """
    Refuse what is no such part: found out at the first message, it would cost that message its fate.

    Raises:
        TypeError: It has not the methods that the engine calls, or is a class and not an object of it.
    """
    methods, example = _PARTS[name]
    if not isinstance(part, type) and all(callable(getattr(part, each, None)) for each in methods):
        return
    what = f"the class {part.__name__}" if isinstance(part, type) else f"a {type(part).__name__}"
    raise TypeError(f"{name}= needs an object with {', '.join(methods)}, such as {example}, not {what}")


def _default_transport(region: str | None, endpoint_url: str | None) -> Transport:
    from .transports import SESTransport  # only when no other is given

    return SESTransport(region=region, endpoint_url=endpoint_url)


def _default_limiter(transport: Transport, clock: Clock) -> RateLimiter:
    # A transport that delivers nothing (a test double, a folder) says so, and needs no pace.
    if not getattr(transport, "paced", True):
        return TokenBucketLimiter(math.inf, clock=clock)
    return AccountLimiter(clock=clock)


def _default_from(from_: str | Address | None, validator: AddressValidator) -> Address | None:
    if from_ is None:
        return None
    addresses = parse_addresses(from_)
    if len(addresses) != 1:
        raise InvalidMessageError("from_ must be one address", field="from_")
    try:
        return validator.validate(addresses[0])
    except InvalidAddressError as error:
        raise InvalidMessageError(problems=[Problem("from_", error.reason)], code=error.code) from None


def _checked_tags(tags: Mapping[str, str] | None) -> Mapping[str, str]:
    problems = tuple(check_tags(tags or {}))
    if problems:
        raise InvalidMessageError(problems=problems)
    return dict(tags or {})
