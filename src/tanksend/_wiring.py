"""What a `Sender` is made of when its caller leaves it open."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ._addresses import Address, parse_addresses
from ._clock import SystemClock
from ._engine import MAX_PARALLEL, Parts
from ._messages import check_tags, default_validator
from .exceptions import InvalidMessageError, SettingError
from .limiters import TokenBucketLimiter
from .retries import ExponentialBackoff
from .suppression import MemorySuppressionStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._validator import AddressValidator
    from .typing import Clock, Guard, Observer, RateLimiter, RetryPolicy, SuppressionStore, Transport

DEFAULT_RATE = 14.0
"""Recipients per second until the account's own rate is known: what SES usually grants a new production account."""


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
    guards: Iterable[Guard],
    observers: Iterable[Observer],
    max_parallel: int | None,
    configuration_set: str | None,
    tags: Mapping[str, str] | None,
    clock: Clock | None,
) -> Parts:
    """The arguments of `Sender`, checked and completed."""
    if transport is not None and (region is not None or endpoint_url is not None):
        msg = "region= and endpoint_url= are for the default transport; give them to the transport instead"
        raise SettingError(msg)
    if max_parallel is not None and max_parallel < 1:
        msg = "max_parallel must be at least 1"
        raise SettingError(msg)
    clock = clock or SystemClock()
    validator = validator or default_validator()
    transport = transport or _default_transport(region, endpoint_url)
    return Parts(
        transport=transport,
        limiter=limiter or _default_limiter(transport, clock),
        retry=retry or ExponentialBackoff(),
        suppression=suppression or MemorySuppressionStore(clock=clock),
        clock=clock,
        jitter=random.random,
        validator=validator,
        guards=tuple(guards),
        observers=tuple(observers),
        max_parallel=max_parallel or MAX_PARALLEL,
        from_=_default_from(from_, validator),
        configuration_set=configuration_set,
        tags=_checked_tags(tags),
    )


def _default_transport(region: str | None, endpoint_url: str | None) -> Transport:
    from .transports import SESTransport  # noqa: PLC0415  (only when no other is given)

    return SESTransport(region=region, endpoint_url=endpoint_url)


def _default_limiter(transport: Transport, clock: Clock) -> RateLimiter:
    # A transport that delivers nothing (a test double, a folder) says so, and needs no pace.
    rate = DEFAULT_RATE if getattr(transport, "paced", True) else float("inf")
    return TokenBucketLimiter(rate, clock=clock)


def _default_from(from_: str | Address | None, validator: AddressValidator) -> Address | None:
    if from_ is None:
        return None
    addresses = parse_addresses(from_)
    if len(addresses) != 1:
        msg = "from_ must be one address"
        raise InvalidMessageError(msg, field="from_")
    return validator.validate(addresses[0])


def _checked_tags(tags: Mapping[str, str] | None) -> Mapping[str, str]:
    problems = tuple(check_tags(tags or {}))
    if problems:
        raise InvalidMessageError(problems=problems)
    return dict(tags or {})
