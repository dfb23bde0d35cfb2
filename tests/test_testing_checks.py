from __future__ import annotations

import itertools
import math

import anyio.lowlevel
import pytest

from tanksend import Receipt
from tanksend._loops import this_loop
from tanksend.exceptions import OutcomeUnknownError, ServiceUnavailableError, ThrottlingError
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.suppression import MemorySuppressionStore
from tanksend.testing import (
    FakeClock,
    RecordingTransport,
    check_clock,
    check_retry_policy,
    check_suppression_store,
    check_transport,
)
from tanksend.testing._checks import sample_request
from tanksend.typing import GiveUp, Retry, Suppression

pytestmark = pytest.mark.anyio


# --- RecordingTransport ---


async def test_recording_keeps_what_it_is_given():
    """Every attempt, and apart from them what was taken."""
    transport = RecordingTransport([None, ThrottlingError(), Receipt("mine")])
    first = await transport.send(sample_request(1))
    with pytest.raises(ThrottlingError):
        await transport.send(sample_request(2))
    third = await transport.send(sample_request(3))
    fourth = await transport.send(sample_request(4))
    assert [first.message_id, third.message_id, fourth.message_id] == ["recorded-1", "mine", "recorded-2"]
    assert (len(transport.requests), len(transport.sent)) == (4, 3)
    assert transport.recipients == ["success+tanksend-check@simulator.amazonses.com"] * 3
    assert repr(transport) == "<RecordingTransport requests=4 sent=3>"
    assert transport.paced is False


async def test_recording_with_a_function_and_a_delay():
    """The outcome may depend on the request, and attempts may take time on a clock."""
    clock = FakeClock(start=0.0)

    def outcome(request):
        return OutcomeUnknownError() if "2" in request.message.subject else None

    transport = RecordingTransport(outcome, clock=clock, delay=1.5)
    await transport.send(sample_request(1))
    with pytest.raises(OutcomeUnknownError):
        await transport.send(sample_request(2))
    assert clock.monotonic() == 3.0
    with pytest.raises(ValueError, match="clock"):
        RecordingTransport(delay=1.0)


# --- the checks pass on our own parts ---


async def test_our_own_parts_pass():
    """Each check accepts what ships."""
    await check_transport(RecordingTransport, broken=lambda: RecordingTransport([ServiceUnavailableError()]))
    await check_suppression_store(MemorySuppressionStore)
    check_retry_policy(ExponentialBackoff())
    check_retry_policy(ExponentialBackoff(resend_unknown=True), resend_unknown=True)
    check_retry_policy(NoRetry())


# --- and they find what is wrong with others ---


class Transport(RecordingTransport):
    """A transport that a test breaks in one place."""


class NoId(Transport):
    async def send(self, request):
        return Receipt("")


class OneId(Transport):
    async def send(self, request):
        await super().send(request)
        return Receipt("always")


class ClosedForGood(Transport):
    async def send(self, request):
        receipt = await super().send(request)
        return Receipt("") if self.closed else receipt


class Parallel(Transport):
    """Half-used only after a cancellation."""

    async def send(self, request):
        try:
            return await super().send(request) if not self.closed else Receipt("")
        except BaseException:
            self.closed = 1
            raise


class OneLoop(Transport):
    """Works on the first loop it is used on."""

    loop = None

    async def send(self, request):
        self.loop = self.loop or this_loop()
        if self.loop is not this_loop():
            raise RuntimeError("another loop")
        return await super().send(request)


class Clumsy(Transport):
    async def send(self, request):
        request.message.subject.encode()
        return await super().send(request)


class Unfinished(Transport):
    """Fails whoever is on the way when it is closed."""

    async def send(self, request):
        closed = self.closed
        receipt = await super().send(request)
        for _ in range(3):  # In whatever order the loop takes them, it is closed before this ends.
            await anyio.lowlevel.checkpoint()
        if closed != self.closed:
            raise OSError("closed")
        return receipt


class Bulk(Transport):
    """A transport that takes many at once, in a wrong way."""

    outcomes = ()

    async def send_bulk(self, request):
        return self.outcomes


class TooFew(Bulk):
    outcomes = (Receipt("a"),)


class NoOutcome(Bulk):
    outcomes = (Receipt("a"), None, Receipt("b"))


class SameIds(Bulk):
    outcomes = (Receipt("a"), ServiceUnavailableError(), Receipt("a"))


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (NoId, "with a message id"),
        (OneId, "different ids"),
        (ClosedForGood, "opens again"),
        (Parallel, "half-used"),
        (OneLoop, "any event loop"),
        (Clumsy, "also for half of a surrogate pair"),
        (Unfinished, "when it is closed meanwhile"),
        (TooFew, "one outcome per entry"),
        (NoOutcome, "Receipt or a SendError"),
        (SameIds, "an id of its own"),
    ],
)
async def test_transports_that_break_their_contract(factory, sentence):
    """The sentence says which part of it."""
    with pytest.raises(AssertionError, match=sentence):
        await check_transport(factory)


class Raising(Transport):
    async def send(self, request):
        raise OSError("some socket")


class RaisingInBulk(Bulk):
    async def send(self, request):
        raise ServiceUnavailableError

    async def send_bulk(self, request):
        raise OSError("some socket")


class Hopeful(Transport):
    async def send(self, request):
        raise OutcomeUnknownError(retryable=True)


class Unpicklable(Transport):
    async def send(self, request):
        class LocalError(ServiceUnavailableError):
            def __reduce__(self):
                return ServiceUnavailableError, ("another text",)

        raise LocalError("a text")


class Telling(Transport):
    async def send(self, request):
        error = ServiceUnavailableError()
        error.args = ("no luck with success+tanksend-check",)
        raise error


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Raising, "SendError only, not OSError"),
        (Telling, "no local part"),
        (RecordingTransport, "it did not"),
        (RaisingInBulk, "SendError only, not OSError"),
        (Hopeful, "not retryable"),
        (Unpicklable, "pickled"),
    ],
)
async def test_transports_that_fail_in_a_wrong_way(broken, sentence):
    """Other exceptions, and personal data in the text, are found."""
    with pytest.raises(AssertionError, match=sentence):
        await check_transport(RecordingTransport, broken=broken)


class Store(MemorySuppressionStore):
    """A store that a test breaks in one place."""


class CaseSensitive(Store):
    async def lookup(self, addresses):
        known = {entry.address async for entry in self.entries()}
        return {address: found for address, found in (await super().lookup(addresses)).items() if address in known}


class Lowered(Store):
    async def lookup(self, addresses):
        return {address.lower(): found for address, found in (await super().lookup(addresses)).items()}


class Forgetful(Store):
    async def add(self, *entries):
        await super().add(*(Suppression(entry.address, at=entry.at) for entry in entries))


class FirstOnly(Store):
    async def add(self, *entries):
        await super().add(*entries[:1])


class Immortal(Store):
    def _holds(self, entry):
        return True


class AlwaysTrue(Store):
    async def remove(self, address):
        await super().remove(address)
        return True


class Keeping(Store):
    async def remove(self, address):
        return (await super().lookup([address])) != {}


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (CaseSensitive, "case-insensitive"),
        (Lowered, "under the spelling"),
        (Forgetful, "reason is kept"),
        (FirstOnly, "until it expires|holds"),
        (Immortal, "until it expires"),
        (AlwaysTrue, "says False"),
        (Keeping, "removing nothing|no longer holds"),
        (lambda: MemorySuppressionStore(["nobody@example.com"]), "empty store"),
    ],
)
async def test_stores_that_break_their_contract(factory, sentence):
    """The sentence says which part of it."""
    with pytest.raises(AssertionError, match=sentence):
        await check_suppression_store(factory)


class Policy:
    def __init__(self, decide):
        self.decide = decide


COUNTER = itertools.count()


@pytest.mark.parametrize(
    ("decide", "sentence"),
    [
        (lambda _: None, "Retry or GiveUp"),
        (lambda _: Retry(next(COUNTER)), "pure"),
        (lambda attempt: Retry(math.inf) if attempt.error.retryable else GiveUp(), "number of seconds"),
        (lambda attempt: Retry(-1.0) if attempt.error.retryable else GiveUp(), "number of seconds"),
        (lambda attempt: Retry() if attempt.error.retryable or attempt.error.maybe_sent else GiveUp(), "not repeated"),
        (lambda _: Retry(), "AccessDeniedError is not repeated"),
        (lambda attempt: Retry() if attempt.error.retryable else GiveUp(), "for ever"),
    ],
)
def test_policies_that_break_their_contract(decide, sentence):
    """Impure, endless, and careless ones are found."""
    with pytest.raises(AssertionError, match=sentence):
        check_retry_policy(Policy(decide))


class Clock(FakeClock):
    """A clock that a test breaks in one place."""


class Hasty(Clock):
    async def sleep(self, seconds):
        await anyio.lowlevel.checkpoint()


class Short(Clock):
    async def sleep(self, seconds):
        await super().sleep(seconds / 2)


class Backwards(Clock):
    def wall(self):
        return -self.monotonic()


class Slow(Clock):
    async def sleep(self, seconds):
        await super().sleep(seconds or 0.02)


class Deaf(Clock):
    async def sleep(self, seconds):
        with anyio.CancelScope(shield=True):
            await super().sleep(seconds)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (Hasty, "yields once|waits as long|sleepers wake in the order"),
        (Short, "waits as long"),
        (Backwards, "wall clock"),
        (Slow, "yields once"),
        (Deaf, "cancellation"),
    ],
)
async def test_clocks_that_break_their_contract(factory, sentence):
    """The sentence says which part of it."""
    with pytest.raises(AssertionError, match=sentence):
        await check_clock(factory())
