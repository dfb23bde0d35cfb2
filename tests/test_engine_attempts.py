from __future__ import annotations

import datetime as dt
import logging

import anyio
import attrs
import pytest

from tanksend import Message, Priority, Receipt, Sender, Status
from tanksend._engine import _deadlines
from tanksend.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    HeldError,
    IdentityNotVerifiedError,
    Origin,
    OutcomeUnknownError,
    Scope,
    ServiceUnavailableError,
    ThrottlingError,
)
from tanksend.limiters import TokenBucketLimiter
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.testing import FakeClock, RecordingTransport, SimulatedSES
from tanksend.typing import Allow, EventKind, Retry

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
SENT, HELD, UNKNOWN, FAILED = Status.SENT, Status.HELD, Status.UNKNOWN, Status.FAILED


def letter(name="m", **options):
    """A message that is known by its subject."""
    return Message("b@example.com", name, "text", **options)


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


class Steady:
    """Tries again after the same while, as often as it is asked."""

    def __init__(self, after=1.0):
        self.after = after
        self.asked = []

    def decide(self, attempt):
        self.asked.append(attempt)
        return Retry(self.after)


class Signals:
    """A limiter without limits that keeps what it is told."""

    def __init__(self):
        self.reserved = 0
        self.heard = []

    async def reserve(self, demand):
        self.reserved += 1
        return await TokenBucketLimiter(float("inf")).reserve(demand)

    async def release(self, slot):
        raise AssertionError

    async def feedback(self, signal):
        self.heard.append(signal.error)


async def test_a_result_has_the_times_and_the_attempts(clock):
    """Waiting for pace and retries is told from the time on the wire."""
    wire = RecordingTransport([None, ServiceUnavailableError()], clock=clock, delay=0.25)
    limiter = TokenBucketLimiter(1, clock=clock)
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, retry=Steady(0.5), clock=clock)
    results = []
    report = await sender.send_all([letter("0"), letter("1")], on_result=results.append)
    first, second = results
    assert (0, SENT, "recorded-1", None, 1) == (
        first.index,
        first.status,
        first.message_id,
        first.error,
        first.attempts,
    )
    assert (0.0, 0.25) == (first.waited, first.elapsed)
    assert (SENT, 2) == (second.status, second.attempts)
    # 1 s for the first slot, 0.75 s for the retry and its slot, twice 0.25 s on the wire.
    assert (1.75, 2.25) == (second.waited, second.elapsed)
    assert report.duration == 2.25
    assert report.waited == 1.75


async def test_a_throttled_message_is_tried_until_its_deadline(clock):
    """Being throttled does not count as an attempt, and is counted for the report."""
    wire = RecordingTransport([ThrottlingError() for _ in range(10)], clock=clock)
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    result = await sender.send(letter(), give_up_after=None)
    assert (SENT, 11) == (result.status, result.attempts)
    wire = RecordingTransport(lambda _: ThrottlingError(), clock=clock)
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    begun = clock.monotonic()
    report = await sender.send_all([letter()], give_up_after=60)
    assert report.counts[HELD] == 1
    assert report.throttled == len(wire.requests)
    assert clock.monotonic() - begun <= 60


async def test_the_policy_sees_what_it_needs(clock):
    """The number of the attempt, how many were throttled, the time since intake, and chance."""
    policy = Steady(2.0)
    wire = RecordingTransport([ThrottlingError(), ServiceUnavailableError()], clock=clock)
    sender = Sender(from_=NAME, transport=wire, retry=policy, clock=clock)
    await sender.send(letter())
    assert [(1, 1, 0.0), (2, 1, 2.0)] == [(a.number, a.throttles, a.elapsed) for a in policy.asked]
    assert all(0 <= attempt.jitter < 1 for attempt in policy.asked)


async def test_deadlines_pass_while_waiting_for_the_pace(clock):
    """What the pace does not allow in time is held at its deadline, whatever it waits for."""
    wire = RecordingTransport(clock=clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(1, clock=clock), clock=clock)
    results = []
    await sender.send_all([letter(str(i)) for i in range(9)], give_up_after=3.5, on_result=results.append)
    held = [result for result in results if result.status is HELD]
    assert (4, 5) == (len(wire.sent), len(held))
    assert {(3.5, 3.5, 0, "Deadline")} == {(r.elapsed, r.waited, r.attempts, r.error.code) for r in held}
    assert clock.monotonic() == 1003.5


async def test_each_deadline_counts_from_its_own_intake(clock):
    """Messages that come later may wait longer."""

    async def slowly():
        for i in range(4):
            yield letter(str(i))
            await clock.sleep(1)

    wire = RecordingTransport(clock=clock)
    sender = Sender(from_=NAME, transport=wire, limiter=TokenBucketLimiter(0.001, clock=clock), clock=clock)
    async with sender.stream(slowly(), give_up_after=2.5) as results:
        held = [(result.index, result.status, clock.monotonic()) async for result in results]
    assert [(0, SENT, 1000), (1, HELD, 1003.5), (2, HELD, 1004.5), (3, HELD, 1005.5)] == held


async def test_deadlines_are_watched_again_after_a_rest(clock):
    """All were settled, and their deadline has passed; then one comes that has to wait."""

    async def now_and_then():
        yield letter("0")
        await clock.sleep(10)
        yield letter("1")

    class Once(TokenBucketLimiter):
        async def reserve(self, demand):
            slot = await super().reserve(demand)
            return attrs.evolve(slot, delay=0.0 if clock.monotonic() < 1005 else 60.0)

    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Once(1, clock=clock), clock=clock)
    async with sender.stream(now_and_then(), give_up_after=2) as results:
        seen = [(result.status, clock.monotonic()) async for result in results]
    assert [(SENT, 1000), (HELD, 1012)] == seen


async def test_deadlines_pass_while_waiting_for_a_retry(clock):
    """At the deadline, not when the retry would be due, and with the error that was met."""
    met = ServiceUnavailableError("busy", remedy="wait")
    sender = Sender(from_=NAME, transport=RecordingTransport([met]), retry=Steady(2), clock=clock)
    async with sender.stream([letter()], give_up_after=1) as results:
        result = await anext(results)
    assert clock.monotonic() == 1000
    assert (HELD, 1) == (result.status, result.attempts)
    assert (met, "ServiceUnavailable", "wait", 1) == (
        result.error.__cause__,
        result.error.code,
        result.error.remedy,
        result.error.attempts,
    )


async def test_a_retry_that_waits_for_the_pace_still_has_its_deadline(clock):
    """It came back from the wire in time, and then no slot came."""
    wire = RecordingTransport([ServiceUnavailableError()])
    sender = Sender(
        from_=NAME, transport=wire, limiter=TokenBucketLimiter(0.1, clock=clock), retry=Steady(1), clock=clock
    )
    with pytest.raises(HeldError) as raised:
        await sender.send(letter(), give_up_after=dt.timedelta(seconds=5))
    assert clock.monotonic() == 1005
    assert (1, 5.0) == (raised.value.result.attempts, raised.value.result.waited)
    assert "not sent after 1 attempts; the last ended so: SES is not available" in str(raised.value)


async def test_deadlines_pass_while_every_request_hangs(clock):
    """No worker is free to look at the time, and none is needed."""
    wire = RecordingTransport(clock=clock, delay=100)
    sender = Sender(from_=NAME, transport=wire, max_parallel=1, clock=clock)
    async with sender.stream([letter("0"), letter("1")], give_up_after=5) as results:
        seen = [(result.index, result.status, clock.monotonic()) async for result in results]
    # The request on the wire is never cut.
    assert [(1, HELD, 1005), (0, SENT, 1100)] == seen


async def test_deadlines_pass_while_a_guard_thinks(clock):
    """It comes out of the guard too late to be sent."""

    class Slow:
        async def check(self, message):
            await clock.sleep(2)
            return Allow()

    wire = RecordingTransport()
    sender = Sender(from_=NAME, transport=wire, guards=[Slow()], clock=clock)
    with pytest.raises(HeldError):
        await sender.send(letter(), give_up_after=1)
    assert wire.requests == []


@pytest.mark.parametrize("never", [0, -1])
async def test_no_time_at_all_is_too_little(clock, never):
    """A deadline in the past sends nothing."""
    wire = RecordingTransport()
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    with pytest.raises(HeldError):
        await sender.send(letter(), give_up_after=never)
    assert wire.requests == []


async def test_the_settled_are_forgotten_though_their_deadline_is_far(clock, monkeypatch):
    """A day's deadline does not keep a long batch in memory, and one that waits is still held at its own."""
    monkeypatch.setattr(_deadlines, "MANY", 20)
    wire = RecordingTransport(lambda request: ThrottlingError() if request.message.subject == "0" else None)
    sender = Sender(from_=NAME, transport=wire, retry=Steady(1_000), clock=clock)

    async def some():
        for i in range(500):
            yield letter(str(i))
            await clock.sleep(1)

    most = 0
    async with sender.stream(some(), give_up_after=86_400) as results:
        async for _ in results:
            most = max(most, len(results._run._deadlines._watched))
    assert results.report.counts[SENT] == 499
    assert most == 20
    assert 86_400 <= clock.monotonic() <= 87_400


async def test_unknown_stays_unknown_whatever_comes_after(clock):
    """SES may have the first one: a later refusal, a deadline or a stop does not change that."""
    lost = OutcomeUnknownError("lost")
    for later in (ContentRejectedError(), AccessDeniedError(), IdentityNotVerifiedError()):
        wire = RecordingTransport([lost, later])
        sender = Sender(from_=NAME, transport=wire, retry=ExponentialBackoff(resend_unknown=True), clock=clock)
        with pytest.raises(OutcomeUnknownError) as raised:
            await sender.send(letter())
        assert (UNKNOWN, 2) == (raised.value.result.status, raised.value.result.attempts)
    sender = Sender(from_=NAME, transport=RecordingTransport([lost]), retry=Steady(100), clock=clock)
    with pytest.raises(OutcomeUnknownError):
        await sender.send(letter(), give_up_after=1)
    wire = RecordingTransport([lost, ServiceUnavailableError()])
    sender = Sender(from_=NAME, transport=wire, retry=Steady(3), clock=clock)
    with pytest.raises(OutcomeUnknownError):
        await sender.send(letter(), give_up_after=5)
    assert len(wire.requests) == 2


async def test_unknown_that_is_sent_again_and_taken_is_sent(clock):
    """At least once, because the caller asked for it."""
    wire = RecordingTransport([OutcomeUnknownError()])
    sender = Sender(from_=NAME, transport=wire, retry=ExponentialBackoff(resend_unknown=True), clock=clock)
    assert (await sender.send(letter())).attempts == 2


async def test_unknown_is_not_sent_again_unasked(clock):
    """One request, and the truth about it."""
    wire = RecordingTransport([OutcomeUnknownError()])
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    with pytest.raises(OutcomeUnknownError):
        await sender.send(letter())
    assert len(wire.requests) == 1


async def test_wrong_credentials_cost_one_request(clock):
    """The first has the error itself; the rest learn its code and remedy, and a list is gone through to its end."""
    denied = AccessDeniedError("not allowed", resume_at=5.0)
    wire, limiter = RecordingTransport(lambda _: denied), Signals()
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    results = []
    report = await sender.send_all([letter(str(i)) for i in range(2_500)], on_result=results.append)
    assert (1, 1) == (len(wire.requests), limiter.reserved)
    assert report.counts[HELD] == 2_500
    assert results[0].error is denied
    assert {("AccessDenied", denied.remedy, 5.0, Scope.ACCOUNT, HeldError)} == {
        (r.error.code, r.error.remedy, r.error.resume_at, r.error.scope, type(r.error)) for r in results[1:]
    }
    assert "another message met this: not allowed" in str(results[1].error)
    assert report.note == "stopped: not allowed"
    assert not report.ok


async def test_an_endless_iterable_stops_with_the_account(clock):
    """It could never be gone through to its end."""

    async def endless():
        while True:
            yield letter()

    wire = RecordingTransport(lambda _: AccessDeniedError(), clock=clock, delay=1)
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all(endless())
    assert len(wire.requests) == 1
    assert 1 <= report.counts[HELD] == report.total <= 1_000


async def test_an_account_error_from_the_middle_costs_at_most_the_requests_on_the_wire(clock):
    """Those end as they end, and nothing else is sent."""
    answers = iter([None] * 50)
    wire = RecordingTransport(lambda _: next(answers, AccessDeniedError()), clock=clock, delay=1)
    sender = Sender(from_=NAME, transport=wire, max_parallel=8, clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(500)])
    assert (50, 450) == (report.counts[SENT], report.counts[HELD])
    assert len(wire.requests) <= 50 + 8


async def test_one_unverified_domain_holds_its_own_messages_only(clock):
    """After its first answers; and what is held takes no slot."""

    def answer(request):
        return IdentityNotVerifiedError("two.example is not verified") if "two" in request.from_.email else None

    limiter = Signals()
    wire = RecordingTransport(answer, clock=clock, delay=1)
    sender = Sender(transport=wire, limiter=limiter, max_parallel=4, clock=clock)
    letters = [letter(str(i), from_=f"a@{('one', 'two')[i % 2]}.example") for i in range(200)]
    results = []
    report = await sender.send_all(letters, on_result=results.append)
    assert (100, 100) == (report.counts[SENT], report.counts[HELD])
    assert len(wire.requests) <= 100 + 4
    assert limiter.reserved == len(wire.requests)
    held = [result for result in results if result.status is HELD]
    assert {"IdentityNotVerified"} == {result.error.code for result in held}
    assert {Origin.FROM} == {result.error.origin for result in held}
    assert report.note is None


async def test_what_comes_after_those_of_a_failed_origin_is_not_forgotten(clock):
    """One request at a time: the held ones make way for the next, though nothing is on the wire to remind of it."""

    def answer(request):
        return IdentityNotVerifiedError() if "two" in request.from_.email else None

    wire = RecordingTransport(answer)
    sender = Sender(transport=wire, max_parallel=1, clock=clock)
    domains = ["two", "two", "two", "one", "two", "one"]
    report = await sender.send_all([letter(from_=f"a@{domain}.example") for domain in domains])
    assert (2, 4) == (report.counts[SENT], report.counts[HELD])
    assert len(wire.requests) == 3


async def test_a_missing_configuration_set_holds_those_that_name_it(clock):
    """The error says which kind of group failed; the message says which one."""

    def answer(request):
        missing = ConfigurationError(origin=Origin.CONFIGURATION_SET)
        return missing if request.configuration_set == "gone" else None

    wire = RecordingTransport(answer)
    sender = Sender(from_=NAME, transport=wire, configuration_set="there", clock=clock)
    letters = [letter(str(i), configuration_set="gone" if i % 2 else None) for i in range(10)]
    report = await sender.send_all(letters)
    assert (5, 5) == (report.counts[SENT], report.counts[HELD])
    assert len(wire.requests) == 6


async def test_an_origin_that_cannot_be_told_holds_its_own_message_only(clock):
    """A group that the message does not name cannot be held back."""
    wire = RecordingTransport(lambda _: ConfigurationError(origin=Origin.TENANT))
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(3)])
    assert report.counts[HELD] == len(wire.requests) == 3


async def test_a_retry_whose_origin_failed_meanwhile_is_held(clock):
    """It waited for its second attempt; the unverified identity is met by another one first."""
    wire = RecordingTransport([ServiceUnavailableError(), IdentityNotVerifiedError()])

    class Policy:
        def decide(self, attempt):
            return Retry(5) if attempt.error.retryable else None

    sender = Sender(from_=NAME, transport=wire, retry=Policy(), clock=clock)
    results = []
    await sender.send_all([letter("0"), letter("1")], on_result=results.append)
    assert [(1, HELD, 0.0), (0, HELD, 5.0)] == [(r.index, r.status, r.waited) for r in results]
    assert len(wire.requests) == 2


async def test_a_policy_may_try_an_account_error_again(clock):
    """Then it does not stop the batch, until it is given up."""
    wire = RecordingTransport([AccessDeniedError()])
    sender = Sender(from_=NAME, transport=wire, retry=Steady(1), clock=clock)
    report = await sender.send_all([letter("0"), letter("1")])
    assert report.ok
    wire = RecordingTransport([AccessDeniedError()])
    sender = Sender(from_=NAME, transport=wire, retry=Steady(10), clock=clock)
    report = await sender.send_all([letter("0"), letter("1")], give_up_after=5)
    assert (1, 1) == (report.counts[SENT], report.counts[HELD])


@pytest.mark.parametrize("decision", [None, "again", ZeroDivisionError()])
async def test_a_policy_that_breaks_its_contract_gives_up(clock, caplog, decision):
    """The message is not lost, and not sent for ever."""

    class Policy:
        def decide(self, attempt):
            if isinstance(decision, Exception):
                raise decision
            return decision

    wire = RecordingTransport(lambda _: ServiceUnavailableError())
    sender = Sender(from_=NAME, transport=wire, retry=Policy(), clock=clock)
    report = await sender.send_all([letter()])
    assert (1, 1) == (report.counts[HELD], len(wire.requests))
    assert isinstance(decision, Exception) == ("the retry policy raised ZeroDivisionError" in caplog.text)


async def test_no_retry_means_one_request(clock):
    """Whatever comes of it."""
    wire = RecordingTransport(lambda _: ConnectionFailedError())
    sender = Sender(from_=NAME, transport=wire, retry=NoRetry(), clock=clock)
    with pytest.raises(HeldError):
        await sender.send(letter())
    assert len(wire.requests) == 1


async def test_what_would_fail_again_has_failed(clock):
    """A refusal of this very message; the others are not concerned."""
    wire = RecordingTransport([ContentRejectedError("a virus")])
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    report = await sender.send_all([letter("0"), letter("1")])
    assert (1, 1) == (report.counts[FAILED], report.counts[SENT])


@pytest.mark.parametrize("outcome", [ValueError("b@example.com"), None, "an id"])
async def test_a_transport_that_breaks_its_contract_leaves_the_outcome_unknown(clock, caplog, outcome):
    """Neither a receipt nor a `SendError`: anything may have happened. Its text is not repeated anywhere."""

    class Broken:
        async def send(self, request):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        async def aclose(self):
            pass

    sender = Sender(from_=NAME, transport=Broken(), clock=clock)
    with caplog.at_level(logging.WARNING), pytest.raises(OutcomeUnknownError) as raised:
        await sender.send(letter())
    assert raised.value.cause_type == type(outcome).__name__
    assert raised.value.result.status is UNKNOWN
    assert f"a transport of type Broken broke its contract with a {type(outcome).__name__}" in caplog.text
    assert "b@" not in caplog.text + str(raised.value)


async def test_an_error_object_raised_for_many_is_nobodys_own(clock):
    """A transport that raises one object again and again: each message has its own attempts and its own result."""
    shared = ServiceUnavailableError("busy")
    shared.__cause__ = KeyError()
    wire = RecordingTransport(lambda _: shared, clock=clock)
    sender = Sender(from_=NAME, transport=wire, retry=ExponentialBackoff(attempts=2), clock=clock)
    results = []
    await sender.send_all([letter(str(i)) for i in range(3)], on_result=results.append)
    assert [2, 2, 2] == [result.error.attempts for result in results]
    causes = [result.error.__cause__ for result in results]
    assert 3 == len({id(cause) for cause in causes})
    assert {2} == {cause.attempts for cause in causes}
    assert shared.attempts == 1


async def test_many_sends_that_fail_for_one_reason_raise_errors_of_their_own(clock):
    """The limiter keeps its denial and raises it for everybody: no send sees the result of another."""
    denial = DailyQuotaExceededError("spent", resume_at=9.0)
    denial.__cause__ = KeyError()

    class Spent(TokenBucketLimiter):
        async def reserve(self, demand):
            raise denial

    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Spent(14), clock=clock)
    errors = []

    async def send(name):
        try:
            await sender.send(letter(name))
        except DailyQuotaExceededError as error:
            errors.append((name, error))

    async with anyio.create_task_group() as tasks:
        for i in range(5):
            tasks.start_soon(send, str(i))
    assert len(errors) == 5
    for name, error in errors:
        assert error is not denial
        assert error.result.error is error
        assert error.result.message.subject == name
        assert (9.0, denial.__cause__) == (error.resume_at, error.__cause__)
    assert denial.result is None


async def test_an_error_that_cannot_be_copied_is_raised_as_it_is(clock):
    """A subclass of somebody's own, with a constructor of its own."""

    class OddError(ContentRejectedError):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    odd = OddError("a", "b")
    sender = Sender(from_=NAME, transport=RecordingTransport(lambda _: odd), clock=clock)
    for _ in range(2):
        with pytest.raises(OddError) as raised:
            await sender.send(letter())
        assert raised.value is odd


async def test_the_limiter_hears_of_every_request(clock):
    """Also of those that fail; what it raises on hearing it costs nothing."""
    error = ServiceUnavailableError()
    limiter = Signals()
    wire = RecordingTransport([error])
    sender = Sender(from_=NAME, transport=wire, limiter=limiter, clock=clock)
    await sender.send(letter())
    assert [error, None] == limiter.heard


async def test_a_limiter_that_raises_where_it_must_not_costs_no_fate(clock, caplog):
    """Its feedback and its release raise; each is noted by its type alone."""

    class Rude:
        async def reserve(self, demand):
            return await TokenBucketLimiter(1, clock=clock).reserve(attrs.evolve(demand, recipients=2))

        async def release(self, slot):
            raise OSError("b@example.com")

        async def feedback(self, signal):
            raise KeyError("b@example.com")

    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Rude(), clock=clock)
    report = await sender.send_all([letter(str(i)) for i in range(3)])
    assert report.ok
    assert "the limiter's feedback raised KeyError" in caplog.text
    assert "the limiter's release raised OSError" in caplog.text
    assert "b@" not in caplog.text


async def test_observers_hear_of_failed_attempts_and_fates(clock, caplog):
    """In order; one that raises neither costs a fate nor keeps the next one from hearing it."""
    heard = []

    class Rude:
        def on_event(self, event):
            raise ValueError("b@example.com")

    class Ears:
        def on_event(self, event):
            heard.append(
                (event.kind, event.index, type(event.error), event.attempt, event.result and event.result.status)
            )

    wire = RecordingTransport([ServiceUnavailableError(), None, ContentRejectedError()])
    sender = Sender(
        from_=NAME, transport=wire, retry=ExponentialBackoff(base=0), observers=[Rude(), Ears()], clock=clock
    )
    await sender.send_all([letter("0"), letter("1")])
    assert [
        (EventKind.ATTEMPT_FAILED, 0, ServiceUnavailableError, 1, None),
        (EventKind.RESULT, 0, type(None), 2, SENT),
        (EventKind.ATTEMPT_FAILED, 1, ContentRejectedError, 1, None),
        (EventKind.RESULT, 1, ContentRejectedError, 1, FAILED),
    ] == heard
    assert "an observer of type Rude raised ValueError" in caplog.text
    assert "b@" not in caplog.text


async def test_what_is_learned_on_the_wire_after_a_stop_is_still_true(clock):
    """Two requests end within the grace, one refused and one to be tried again: failed, and held."""
    answers = {"1": ContentRejectedError(), "2": ServiceUnavailableError()}
    wire = RecordingTransport(lambda request: answers.get(request.message.subject), clock=clock, delay=1)
    sender = Sender(from_=NAME, transport=wire, clock=clock)
    async with sender.stream([letter(str(i)) for i in range(9)]) as results:
        await anext(results)
        await clock.sleep(0.5)
    counts = {status: number for status, number in results.report.counts.items() if number}
    assert {SENT: 1, FAILED: 1, HELD: 7} == counts
    assert len(wire.requests) == 3


async def test_priority_of_a_batch_is_bulk_and_of_a_send_transactional(clock):
    """Unless the message says otherwise."""
    lanes = []

    class Curious(Signals):
        async def reserve(self, demand):
            lanes.append(demand.priority)
            return await super().reserve(demand)

    sender = Sender(from_=NAME, transport=RecordingTransport(), limiter=Curious(), clock=clock)
    await sender.send(letter())
    await sender.send(letter(priority=Priority.BULK))
    await sender.send_all([letter()])
    await sender.send_all([letter(priority=Priority.TRANSACTIONAL)])
    first, bulk = Priority
    assert [first, bulk, bulk, first] == lanes


async def test_a_receipt_of_a_subclass_is_a_receipt(clock):
    """Transports may know more than an id."""

    @attrs.frozen
    class Signed(Receipt):
        by: str = "me"

    sender = Sender(from_=NAME, transport=RecordingTransport([Signed("id")]), clock=clock)
    assert "id" == (await sender.send(letter())).message_id


async def test_a_message_heavier_than_a_second_fails_after_its_throttles(clock):
    """On an account that counts strictly it never fits; the error says why and what to do, and the batch goes on."""
    ses = SimulatedSES(rate=10, daily_quota=-1)
    sender = Sender(from_=NAME, transport=ses.transport(clock), clock=clock)
    crowd = [f"u{number}@example.com" for number in range(11)]
    report = await sender.send_all([Message(crowd, "Hi", "Hello"), Message("kim@example.com", "Hi", "Hello")], keep=2)
    assert {Status.FAILED: 1, Status.SENT: 1} == {status: number for status, number in report.counts.items() if number}
    assert (10, 6) == (report.limiter.granted_rate, report.throttled)
    assert 0 < report.use_of_rate < 1


async def test_what_is_wrong_with_a_heavy_message_names_the_cure(clock):
    """Whoever sends one by itself is told to split it."""
    ses = SimulatedSES(rate=10, daily_quota=-1)
    sender = Sender(from_=NAME, transport=ses.transport(clock), clock=clock)
    with pytest.raises(ThrottlingError, match=r"11 recipients.*fewer recipients at a time") as caught:
        await sender.send(Message([f"u{n}@example.com" for n in range(11)], "Hi", "Hello"), give_up_after=None)
    assert (Status.FAILED, 6) == (caught.value.result.status, caught.value.attempts)
