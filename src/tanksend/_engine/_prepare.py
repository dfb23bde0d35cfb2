"""From a message and the sender's defaults to the request that goes on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .._messages import MAX_RECIPIENTS, Message, key_tag
from ..exceptions import InvalidAddressError, Problem
from ..typing import SendRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .._addresses import Address
    from .._validator import AddressValidator
    from ._parts import Parts

SIMULATOR = "@simulator.amazonses.com"


def prepare(parts: Parts, message: object, key: str | None = None) -> SendRequest | tuple[Problem, ...]:
    """The request for *message*, which the ledger knows as *key*, or all that is wrong with it."""
    if not isinstance(message, Message):
        return (Problem("message", f"is a {type(message).__name__}, not a Message"),)
    found = message.check_content()
    plain = None if found else _plain(parts, message, key)
    return plain or _prepare(parts, message, key, list(found))


def _plain(parts: Parts, message: Message, key: str | None) -> SendRequest | None:
    """The request for what most messages are: to one good address, the rest as the sender has it."""
    if len(message.to) != 1 or message.cc or message.bcc or message.reply_to:
        return None
    if parts.from_ is None or message.from_ is not None:
        return None
    to = message.to[0]
    try:
        judged = parts.validator.validate(to)
    except InvalidAddressError:
        return None
    recipients = message.to if judged is to else (judged,)
    configuration_set = message.configuration_set or parts.configuration_set
    tags = _tags(parts, message, key or message.key)
    return SendRequest(message, parts.from_, recipients, (), (), (), configuration_set, tags)


def _prepare(
    parts: Parts, message: Message, key: str | None, problems: list[Problem]
) -> SendRequest | tuple[Problem, ...]:
    """The request for any message whose content has these *problems*."""
    from_ = parts.from_
    if message.from_ is not None:
        from_ = next(iter(_judged("from_", (message.from_,), parts.validator, problems)), None)
    elif from_ is None:
        problems.append(Problem("from_", "is not given, and the sender has no default"))
    to = _judged("to", message.to, parts.validator, problems)
    cc = _judged("cc", message.cc, parts.validator, problems) if message.cc else ()
    bcc = _judged("bcc", message.bcc, parts.validator, problems) if message.bcc else ()
    reply_to = _judged("reply_to", message.reply_to, parts.validator, problems) if message.reply_to else ()
    if len(to) + len(cc) + len(bcc) != 1:
        to, cc, bcc = _each_once(to, cc, bcc)
        problems.extend(_count_problems(message, len(to) + len(cc) + len(bcc)))
    if problems or from_ is None:
        return tuple(problems)
    configuration_set = message.configuration_set or parts.configuration_set
    return SendRequest(
        message, from_, to, cc, bcc, reply_to, configuration_set, _tags(parts, message, key or message.key)
    )


def uncounted(request: SendRequest) -> int:
    """Recipients that do not count against the day's quota: SES Developer Guide, "Using the mailbox simulator"."""
    if len(request.recipients) == 1:
        return int(request.recipients[0].email.endswith(SIMULATOR))
    number = 0
    for address in request.recipients:
        if address.email.endswith(SIMULATOR):
            number += 1
    return number


def _judged(
    field: str, addresses: Sequence[Address], validator: AddressValidator, problems: list[Problem]
) -> tuple[Address, ...]:
    """The good ones of *addresses*, normalised; the bad ones are noted."""
    good = []
    for position, address in enumerate(addresses):
        try:
            good.append(validator.validate(address))
        except InvalidAddressError as error:
            problems.append(Problem(field if field == "from_" else f"{field}[{position}]", error.reason))
    return tuple(good)


def _each_once(*groups: tuple[Address, ...]) -> list[tuple[Address, ...]]:
    """Each person once, where first named: SES would count, and some servers deliver, the second one too."""
    seen: set[str] = set()
    kept = []
    for group in groups:
        fresh = []
        for address in group:
            if address.key not in seen:
                seen.add(address.key)
                fresh.append(address)
        kept.append(tuple(fresh))
    return kept


def _count_problems(message: Message, count: int) -> tuple[Problem, ...]:
    if not (message.to or message.cc or message.bcc):
        return (Problem("to", "names no recipient"),)
    if count > MAX_RECIPIENTS:
        return (Problem("to", f"has {count} recipients with cc and bcc; SES takes {MAX_RECIPIENTS}"),)
    return ()


def _tags(parts: Parts, message: Message, key: str | None) -> Mapping[str, str]:
    if key is None:
        if not parts.tags:
            return message.tags
        return {**parts.tags, **message.tags} if message.tags else parts.tags
    return {**parts.tags, **message.tags, **key_tag(key)}


def without_suppressed(request: SendRequest, suppressed: Collection[str]) -> tuple[SendRequest, tuple[Address, ...]]:
    """The request without those whose email is in *suppressed*, and who they are."""
    out = tuple(address for address in request.recipients if address.email in suppressed)
    if not out:
        return request, ()

    def stay(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        return tuple(address for address in addresses if address.email not in suppressed)

    return attrs.evolve(request, to=stay(request.to), cc=stay(request.cc), bcc=stay(request.bcc)), out
