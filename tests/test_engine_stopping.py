# ruff: noqa: PT012  (what comes out of the whole block is what is tested)

from __future__ import annotations

import asyncio
import contextlib
import gc

import anyio
import attrs
import pytest
import trio

from tanksend import Message, Priority, Receipt, Sender, Status
from tanksend.exceptions import ContentRejectedError, IntakeError, OutcomeUnknownError, ServiceUnavailableError
from tanksend.testing import FakeClock
from tanksend.typing import Allow, Retry, Slot

pytestmark = pytest.mark.anyio

NAME = "a@example.com"
HOURS = 10_000.0


def letter(name="m"):
    """A message that is known by its subject."""
    return Message("b@example.com", name, "text")


class Wire:
    """Takes as long with each message as it is told, by subject."""

    def __init__(self, clock, takes=None, default=0.0):
        self.clock = clock
        self.takes = takes or {}
        self.default = default
        self.left = []
        self.cut = []

    async def send(self, request):
        name = request.message.subject
        self.left.append(name)
        takes = self.takes.get(name, self.default)
        try:
            await self.clock.sleep(takes if isinstance(takes, float | int) else 0)
        except anyio.get_cancelled_exc_class():
            self.cut.append(name)
            raise
        if isinstance(takes, BaseException):
            raise takes
        return Receipt(f"id of {name}")

    async def aclose(self):
        pass


class Ears:
    """An observer of fates, by subject; raises when it hears of a certain one."""

    def __init__(self, raises_at=None, error=None):
        self.fates = {}
        self.raises_at = raises_at
        self.error = error

    def on_event(self, event):
        if event.result is not None:
            name = event.result.message.subject
            assert name not in self.fates
            self.fates[name] = event.result
            if name == self.raises_at:
                raise self.error

    def counts(self):
        statuses = [result.status for result in self.fates.values()]
        return {status: statuses.count(status) for status in statuses}


# What asyncio says of tasks that are killed before they begin.
NEVER_BEGUN = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)


class OddError(BaseException):
    """Like KeyboardInterrupt, but not treated by any loop as more than an exception."""


@pytest.fixture
def clock():
    """Time that jumps."""
    return FakeClock()


@pytest.fixture
def ears():
    """Hears each fate, and that there is but one."""
    return Ears()


async def cancel_after(clock, seconds, scope):
    """Cancel *scope* in a while."""
    await clock.sleep(seconds)
    scope.cancel()


@contextlib.asynccontextmanager
async def cancelled(clock, seconds):
    """A block that is cancelled in a while."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_after, clock, seconds, scope)
            yield scope
            tasks.cancel_scope.cancel()


SENT, HELD, UNKNOWN = Status.SENT, Status.HELD, Status.UNKNOWN


async def test_a_cancelled_batch_lets_the_wire_end_and_holds_the_rest(clock, ears):
    """What is answered within the grace is sent, what is not is unknown, and the waiting are held at once."""
    wire = Wire(clock, {"1": 3.0, "2": HOURS}, default=1.0)
    sender = Sender(from_=NAME, transport=wire, clock=clock, observers=[ears])
    async with cancelled(clock, 1.5) as scope:
        await sender.send_all([letter(str(i)) for i in range(100)])
    assert scope.cancelled_caught
    assert clock.monotonic() == 1006.5
    assert {SENT: 2, UNKNOWN: 1, HELD: 97} == ears.counts()
    assert ears.fates["2"].status is UNKNOWN
    assert {0.5} == {round(ears.fates[str(i)].elapsed - 1, 6) for i in range(3, 100)}
    assert wire.cut == ["2"]
    report = sender.last_report
    assert {SENT: 2, UNKNOWN: 1, HELD: 97} == {status: n for status, n in report.counts.items() if n}
    assert report.note == "stopped"
    assert not report.ok
    assert clock.sleepers == 0


async def test_a_cancelled_send_waits_for_its_answer_and_no_longer_than_the_grace(clock, ears):
    """The caller has gone, but observers learn the fate."""
    sender = Sender(from_=NAME, transport=Wire(clock, {"slow": 3, "hangs": HOURS}), clock=clock, observers=[ears])
    async with cancelled(clock, 1):
        await sender.send(letter("slow"))
    assert (SENT, 1003) == (ears.fates["slow"].status, clock.monotonic())
    async with cancelled(clock, 1):
        await sender.send(letter("hangs"))
    assert (UNKNOWN, 1009) == (ears.fates["hangs"].status, clock.monotonic())
    assert isinstance(ears.fates["hangs"].error, OutcomeUnknownError)
    assert ears.fates["hangs"].error.attempts == 1


async def test_a_send_that_is_cancelled_from_the_start_takes_nothing_in(clock, ears):
    """Nothing was taken in, so nothing has a fate."""
    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, clock=clock, observers=[ears])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sender.send(letter())
    assert ([], {}) == (wire.left, ears.fates)


async def test_leaving_the_stream_early_stops_the_batch(clock, ears):
    """What is on the wire by then ends, the rest is held, and the report has it all."""
    sender = Sender(from_=NAME, transport=Wire(clock, default=1.0), clock=clock, observers=[ears])
    async with sender.stream([letter(str(i)) for i in range(50)]) as results:
        async for result in results:
            assert result.status is SENT
            break
    assert {SENT: 2, HELD: 48} == ears.counts()
    assert results.report.counts[HELD] == 48
    assert {SENT, HELD} == {result.status async for result in results}


async def test_an_exception_of_the_consumer_comes_out_as_itself(clock, ears):
    """No group around it, and the batch is stopped."""
    boom = ZeroDivisionError()
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock, observers=[ears])
    with pytest.raises(ZeroDivisionError) as raised:
        async with sender.stream([letter(str(i)) for i in range(50)]) as results:
            async for _ in results:
                raise boom
    assert raised.value is boom
    with pytest.raises(ZeroDivisionError) as raised:
        await sender.send_all([letter("x")], on_result=lambda _: 1 / 0)
    assert raised.value.__cause__ is None
    assert len(ears.fates) == 51


async def test_a_group_that_the_consumer_raises_stays_as_it_was(clock):
    """It is not taken apart: it is the consumer's own."""
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)
    group = ExceptionGroup("mine", [KeyError()])
    with pytest.raises(ExceptionGroup) as raised:
        async with sender.stream([letter()]) as results:
            async for _ in results:
                raise group
    assert raised.value is group


async def test_an_exception_of_the_consumer_is_not_lost_to_a_cancellation(clock):
    """Both at once: the error is what the caller hears of."""
    sender = Sender(from_=NAME, transport=Wire(clock, default=HOURS), clock=clock)
    async with cancelled(clock, 2):
        with pytest.raises(ZeroDivisionError):
            async with sender.stream([letter()]):
                await clock.sleep(1)
                raise ZeroDivisionError
    assert clock.monotonic() == 1006


async def test_an_error_of_the_iterable_stops_the_batch_and_has_the_report(clock, ears):
    """What is on the wire ends, what waits is held, and `IntakeError` is raised from what the iterable raised."""
    sender = Sender(from_=NAME, transport=Wire(clock, {"0": 2}), clock=clock, observers=[ears])
    boom = KeyError("b@example.com")

    async def broken():
        for i in range(5):
            yield letter(str(i))
        await clock.sleep(1)
        raise boom

    with pytest.raises(IntakeError) as raised:
        await sender.send_all(broken())
    assert raised.value.__cause__ is boom
    assert raised.value.report is sender.last_report
    assert {SENT: 1, HELD: 4} == ears.counts()
    assert raised.value.report.note == "stopped by an error of its iterable"
    assert clock.monotonic() == 1002


async def test_a_stream_raises_the_error_of_its_iterable_after_the_last_result(clock):
    """First what was taken in, then why no more came."""
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)

    async def broken():
        yield letter()
        await clock.sleep(1)
        raise KeyError

    seen = []
    with pytest.raises(IntakeError):
        async with sender.stream(broken()) as results:
            async for result in results:
                seen.append(result.status)  # noqa: PERF401  (the last step raises)
    assert seen == [SENT]


async def test_an_iterable_that_cannot_be_closed_is_an_error_of_the_iterable(clock, ears):
    """All was sent, and the caller still learns of it."""

    class Stuck:
        def __init__(self):
            self.items = [letter("0")]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.items:
                raise StopAsyncIteration
            return self.items.pop()

        async def aclose(self):
            raise OSError

    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock, observers=[ears])
    with pytest.raises(IntakeError) as raised:
        await sender.send_all(Stuck())
    assert isinstance(raised.value.__cause__, OSError)
    assert {SENT: 1} == ears.counts()


async def test_what_nobody_may_catch_raised_while_closing_comes_out_as_itself(clock, ears):
    """It stops the batch, as it would from anywhere else."""
    odd = OddError()

    async def odd_end():
        try:
            yield letter("0")
            await clock.sleep(HOURS)
        finally:
            raise odd

    class Closes:
        def __init__(self):
            self.left = [letter("1")]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

        async def aclose(self):
            raise odd

    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock, observers=[ears])
    for messages in (odd_end(), Closes()):
        with pytest.raises(OddError):
            async with sender.stream(messages) as results:
                await anext(results)
    assert {SENT: 1, HELD: 1} == ears.counts()


async def test_an_iterable_that_takes_for_ever_to_close_is_left_after_the_grace(clock):
    """Its own clean-up hangs, and delays nobody longer than a request on the wire would."""

    async def sticky():
        try:
            yield letter()
            await clock.sleep(HOURS)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(3)
            await clock.sleep(HOURS)

    class Closes:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await clock.sleep(HOURS)

        async def aclose(self):
            await clock.sleep(HOURS)

    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)
    async with sender.stream(sticky()) as results:
        await anext(results)
    assert clock.monotonic() == 1003
    async with cancelled(clock, 1):
        await sender.send_all(Closes())
    assert clock.monotonic() == 1009


async def test_a_consumer_that_notices_late_does_not_keep_the_batch_going(clock, ears):
    """He works under a shield, and sees each result; nothing leaves after the cancellation all the same."""
    wire = Wire(clock, default=1.0)
    sender = Sender(from_=NAME, transport=wire, clock=clock, observers=[ears])
    seen = []
    async with cancelled(clock, 1.5), sender.stream([letter(str(i)) for i in range(9)]) as results:
        with anyio.CancelScope(shield=True):
            async for result in results:
                await clock.sleep(2)
                seen.append(result.status)
    assert wire.left == ["0", "1", "2"]
    assert {SENT: 3, HELD: 6} == ears.counts() == {status: seen.count(status) for status in seen}


async def test_a_consumer_that_sends_when_he_is_cancelled_has_one_grace_for_both(clock, ears):
    """The cancellation meets him inside `send`; the batch around it is stopped at once, and not when that has ended."""
    wire = Wire(clock, {"inner": HOURS}, default=1.0)
    sender = Sender(from_=NAME, transport=wire, clock=clock, observers=[ears], limiter=Even())
    async with cancelled(clock, 1.5), sender.stream([letter(str(i)) for i in range(9)]) as results:
        async for _ in results:
            await sender.send(letter("inner"))
    assert clock.monotonic() == 1006.5
    assert sorted(wire.left) == ["0", "1", "2", "inner"]
    assert {SENT: 3, HELD: 6, UNKNOWN: 1} == ears.counts()


@pytest.mark.parametrize(
    "where", ["transport", "limiter", "store", "guard", "policy", "observer", "on_result", "iterable"]
)
async def test_what_nobody_may_catch_comes_out_as_itself(clock, where):  # noqa: C901  (one part, raising in turn)
    """Not in a group, from wherever it was raised; the messages still have their fates, and no task is left."""
    odd = OddError()
    ears = Ears("1" if where == "observer" else None, odd)

    class Part:
        async def reserve(self, demand):
            if where == "limiter":
                raise odd
            return Slot(0.0, demand.recipients)

        async def release(self, slot):
            pass

        async def feedback(self, signal):
            pass

        async def lookup(self, addresses):
            if where == "store":
                raise odd
            return {}

        async def check(self, message):
            if where == "guard":
                raise odd
            return Allow()

        def decide(self, attempt):
            raise odd

    def on_result(result):
        if where == "on_result":
            raise odd

    async def messages():
        for i in range(4):
            yield letter(str(i))
        if where == "iterable":
            raise odd

    answers = {"1": odd if where == "transport" else ServiceUnavailableError() if where == "policy" else 0, "2": 3}
    part = Part()
    sender = Sender(
        from_=NAME,
        transport=Wire(clock, answers),
        limiter=part,
        suppression=part,
        guards=[part],
        retry=part,
        observers=[ears],
        clock=clock,
    )
    with pytest.raises(OddError) as raised:
        await sender.send_all(messages(), on_result=on_result)
    assert raised.value is odd
    assert set(ears.fates) <= {"0", "1", "2", "3"}
    assert sender.last_report.total == len(ears.fates)
    assert sender._lanes == {}
    assert clock.sleepers == 0
    if where == "transport":
        assert ears.fates["1"].status is UNKNOWN


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["transport", "consumer"])
def test_an_interrupt_comes_out_as_itself(anyio_backend_name, kind, where):
    """From a task of the engine or from the caller's own, on both backends."""
    clock = FakeClock()
    ears = Ears()
    sender = Sender(
        from_=NAME,
        transport=Wire(clock, {"1": kind() if where == "transport" else 0}, default=0.5),
        clock=clock,
        observers=[ears],
    )

    async def main():
        async with sender.stream([letter(str(i)) for i in range(9)]) as results:
            async for _ in results:
                if where == "consumer":
                    raise kind

    with pytest.raises(kind):
        anyio.run(main, backend=anyio_backend_name)
    assert len(ears.fates) == 9
    assert sender.last_report.total == 9


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend_name(request):
    """For tests that run an event loop themselves."""
    return request.param


@NEVER_BEGUN
def test_a_loop_that_is_torn_down_leaves_no_message_without_a_fate():
    """asyncio cancels every task by name when its main one ends: the fates are there, and nothing hangs."""
    clock = FakeClock(autojump=False)
    ears = Ears()
    sender = Sender(from_=NAME, transport=Wire(clock, default=HOURS), clock=clock, observers=[ears], max_parallel=3)

    async def main():
        batch = asyncio.create_task(sender.send_all([letter(str(i)) for i in range(9)]))
        single = asyncio.create_task(sender.send(letter("single")))
        for _ in range(200):  # Turns of the loop, and not a time in which it may have had none.
            await asyncio.sleep(0)
        return batch, single

    batch, single = asyncio.run(main())
    assert batch.cancelled()
    assert single.cancelled()
    assert {HELD: 9, UNKNOWN: 1} == ears.counts()
    assert clock.monotonic() == 1000


@NEVER_BEGUN
@pytest.mark.parametrize("turns", range(30))
def test_a_loop_may_be_torn_down_at_any_moment(turns):
    """Also while tasks were started that have not begun, or were woken and have not looked."""
    clock = FakeClock()
    ears = Ears()

    class Brisk(Wire):
        async def send(self, request):
            await asyncio.sleep(0)
            return await super().send(request)

    limiter = Slots(0, 0.25, 0)
    sender = Sender(from_=NAME, transport=Brisk(clock), limiter=limiter, clock=clock, observers=[ears], max_parallel=3)
    taken = []

    async def messages(run):
        for i in range(9):
            taken.append(f"{run}-{i}")
            yield letter(f"{run}-{i}")
            if i % 3 == 2:
                await asyncio.sleep(0)

    async def main():
        tasks = [asyncio.create_task(sender.send_all(messages(run), give_up_after=60)) for run in range(2)]
        for _ in range(turns * 3):
            await asyncio.sleep(0)
        return tasks

    asyncio.run(main())
    gc.collect()
    assert sorted(ears.fates) == sorted(taken)
    assert sender._lanes == {}


class Slots:
    """A limiter with these delays, over and over."""

    def __init__(self, *delays):
        self.delays = delays
        self.asked = 0

    async def reserve(self, demand):
        self.asked += 1
        await asyncio.sleep(0)
        return Slot(self.delays[self.asked % len(self.delays)], demand.recipients)

    async def release(self, slot):
        pass

    async def feedback(self, signal):
        pass


def kill(part):
    """Cancel tasks of ours by name, as no user should; how many there were."""
    tasks = [task for task in asyncio.all_tasks() if part in task.get_name()]
    for task in tasks:
        task.cancel()
    return len(tasks)


def kill_among(messages, sleeps=0.0, *, part="Workers._work", takes=0.0):
    """What becomes of a batch in which tasks are killed once so many messages were taken in."""
    clock = FakeClock()
    ears = Ears()
    sender = Sender(from_=NAME, transport=Wire(clock, default=takes), limiter=Even(), clock=clock, observers=[ears])

    async def feed():
        for i in range(messages):
            yield letter(str(i))
            await clock.sleep(sleeps) if sleeps and i < messages - 1 else None
        # Still in the turn in which the last one was taken in, and a worker set to it.
        assert kill(part)
        yield letter("last")

    async def main():
        return await sender.send_all(feed())

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
    gc.collect()
    assert clock.sleepers == 0
    return ears, sender.last_report


class Even:
    """A limiter without limits."""

    async def reserve(self, demand):
        return Slot(0.0, demand.recipients)

    async def release(self, slot):
        pass

    async def feedback(self, signal):
        pass


@NEVER_BEGUN
def test_a_killed_worker_stops_the_batch_and_leaves_the_lead_to_others():
    """It was woken to lead and had not looked yet; or new, and had not begun; or on the wire."""
    ears, report = kill_among(2, sleeps=1)
    assert {SENT: 1, HELD: 2} == ears.counts()
    assert report.note == "stopped, because a task of it was cancelled"
    ears, report = kill_among(1)
    assert {HELD: 2} == ears.counts()
    ears, report = kill_among(2, sleeps=1, takes=HOURS)
    assert {UNKNOWN: 1, HELD: 2} == ears.counts()


@NEVER_BEGUN
def test_a_leader_killed_before_it_looked_does_not_take_the_lead_with_it():
    """Another batch on the same loop goes on."""
    clock = FakeClock()
    ears = Ears()
    sender = Sender(from_=NAME, transport=Wire(clock), limiter=Even(), clock=clock, observers=[ears])

    async def doomed():
        yield letter("doomed 0")
        await clock.sleep(1)
        yield letter("doomed 1")
        # A worker was woken to lead for this one, in this very turn.
        assert kill("Workers._work")
        yield letter("doomed 2")

    async def main():
        async with sender.stream(later()) as results:
            await asyncio.gather(sender.send_all(doomed()), return_exceptions=True)
            return [result.status async for result in results]

    async def later():
        await clock.sleep(1)
        await asyncio.sleep(0)
        for i in range(3):
            yield letter(f"later {i}")
            await clock.sleep(1)

    assert [SENT, SENT, SENT] == asyncio.run(main())
    assert (SENT, HELD, HELD) == tuple(ears.fates[f"doomed {i}"].status for i in range(3))


@NEVER_BEGUN
def test_a_killed_idle_worker_is_no_longer_woken():
    """It had nothing in hand; the batch is stopped all the same."""
    clock = FakeClock()
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)

    async def main():
        async with sender.stream(feed()) as results:
            await anext(results)
            assert kill("Workers._work") == 1
            assert [] == [result async for result in results]
        return results.report

    async def feed():
        yield letter("0")
        await clock.sleep(1)
        yield letter("1")

    report = asyncio.run(main())
    assert report.counts[SENT] == 1


@NEVER_BEGUN
@pytest.mark.parametrize("kill_at", [2, 4])
def test_a_worker_killed_before_it_begins_on_what_it_was_handed(kill_at):
    """By the leader of another batch; new, or woken. Its message has not been sent, and is held."""
    clock = FakeClock()
    ears = Ears()

    class Deadly(Even):
        asked = 0

        async def reserve(self, demand):
            self.asked += 1
            if self.asked == kill_at:
                # In the very turn in which the leader has handed a message over.
                assert kill("Workers._work") >= 2
            return Slot(1.0, demand.recipients)

    wire = Wire(clock)
    sender = Sender(from_=NAME, transport=wire, limiter=Deadly(), clock=clock, observers=[ears])

    async def urgent():
        for i in range(2):
            yield attrs.evolve(letter(f"b{i}"), priority=Priority.TRANSACTIONAL)
            await clock.sleep(2.5)

    async def main():
        bulk = asyncio.create_task(sender.send_all([letter(f"a{i}") for i in range(4)]))
        await asyncio.sleep(0)
        await asyncio.gather(bulk, sender.send_all(urgent()), return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    handed = "b0" if kill_at == 2 else "b1"
    assert (HELD, 0) == (ears.fates[handed].status, ears.fates[handed].attempts)
    assert handed not in wire.left
    assert clock.sleepers == 0
    assert sender._lanes == {}


@NEVER_BEGUN
def test_a_killed_intake_is_an_error_of_the_iterable():
    """The caller learns that not all was taken in."""
    clock = FakeClock()
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)

    async def main():
        async with sender.stream(feed()) as results:
            await anext(results)
            kill("Intake.run")
            async for _ in results:
                pass

    async def feed():
        yield letter("0")
        await clock.sleep(HOURS)

    with pytest.raises(IntakeError):
        asyncio.run(main())


@NEVER_BEGUN
def test_an_intake_killed_before_it_begins_takes_nothing_in():
    """Nothing was handed in, and nothing hangs."""
    clock = FakeClock()
    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock)

    async def main():
        async with sender.stream([letter()]) as results:
            kill("Intake.run")
            await asyncio.sleep(0)
        return results.report.total

    with contextlib.suppress(asyncio.CancelledError):
        assert asyncio.run(main()) == 0
    gc.collect()
    assert sender._lanes == {}


async def test_a_cancellation_inside_the_transport_costs_one_message(clock, ears):
    """It awaited something that somebody else had cancelled: its message is unknown, the others go on."""

    class Careless(Wire):
        async def send(self, request):
            if request.message.subject == "1":
                raise asyncio.CancelledError
            return await super().send(request)

    if "trio" in type(anyio.get_cancelled_exc_class()).__module__ or anyio.get_cancelled_exc_class() is trio.Cancelled:
        return  # there, nobody can make one up
    sender = Sender(from_=NAME, transport=Careless(clock), clock=clock, observers=[ears], max_parallel=1)
    report = await sender.send_all([letter(str(i)) for i in range(4)])
    assert (3, 1) == (report.counts[SENT], report.counts[UNKNOWN])
    assert ears.fates["1"].status is UNKNOWN


async def test_a_cancellation_inside_the_iterable_is_an_error_of_the_iterable(clock, ears):
    """Not the end of it: who believed that would take half a batch for a whole one."""
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        return  # there, nobody can make one up

    class Careless:
        def __init__(self, *, closes):
            self.given = 0
            self.closes = closes

        def __aiter__(self):
            return self

        async def __anext__(self):
            self.given += 1
            if self.given > 2:
                raise StopAsyncIteration if self.closes else asyncio.CancelledError
            return letter(f"{self.closes}-{self.given}")

        async def aclose(self):
            if self.closes:
                raise asyncio.CancelledError

    sender = Sender(from_=NAME, transport=Wire(clock), clock=clock, observers=[ears])
    for closes in (False, True):
        with pytest.raises(IntakeError) as raised:
            await sender.send_all(Careless(closes=closes))
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert len(ears.fates) == 4


async def test_a_stopped_iterable_may_end_its_own_way(clock):
    """It turns our cancellation into one of its own: that is no error of the iterable."""
    if anyio.get_cancelled_exc_class() is trio.Cancelled:
        return  # there, nobody can make one up

    async def turns():
        yield letter()
        with contextlib.suppress(asyncio.CancelledError):
            await clock.sleep(HOURS)
        raise asyncio.CancelledError

    sender = Sender(from_=NAME, transport=Wire(clock, {"m": ContentRejectedError()}), clock=clock)
    async with sender.stream(turns()) as results:
        await anext(results)
    assert results._run.intake.error is None


async def test_a_limiter_whose_feedback_hangs_delays_the_end_by_the_grace_only(clock, ears):
    """The fate is known and handed out; the worker that waits for the limiter is cut off."""

    class Deaf(Slots):
        async def reserve(self, demand):
            return Slot(0.0, demand.recipients)

        async def feedback(self, signal):
            await clock.sleep(HOURS)

    sender = Sender(from_=NAME, transport=Wire(clock), limiter=Deaf(), clock=clock, observers=[ears])
    result = await sender.send(letter())
    assert result.status is SENT
    assert clock.monotonic() == 1005
    report = await sender.send_all([letter("0")])
    assert (report.ok, report.note) == (True, None)


async def test_the_grace_can_be_cut_short(clock, ears):
    """Somebody asks twice: what is on the wire is unknown at once, and nothing more is sent."""
    wire = Wire(clock, default=HOURS)
    sender = Sender(from_=NAME, transport=wire, clock=clock, observers=[ears])
    async with sender.stream([letter(str(i)) for i in range(3)]) as results:
        await clock.sleep(1)
        results._run.hurry()
    assert {UNKNOWN: 1, HELD: 2} == ears.counts()
    assert clock.monotonic() == 1001
    assert wire.left == ["0"]


async def test_an_error_of_the_engine_itself_comes_out_as_itself(clock, ears):
    """There should be none; should there be one all the same, it is not hidden in a group, and no fate is lost."""

    async def bug():
        await clock.sleep(1)
        raise ZeroDivisionError

    sender = Sender(from_=NAME, transport=Wire(clock, default=HOURS), clock=clock, observers=[ears])
    with pytest.raises(ZeroDivisionError):
        async with sender.stream([letter("0"), letter("1")]) as results:
            results._run._tasks.start_soon(bug)
            async for _ in results:
                pass
    assert {UNKNOWN: 1, HELD: 1} == ears.counts()


async def test_a_stop_holds_what_waits_for_a_retry(clock, ears):
    """Also what may have been sent already, which is unknown; a retry that falls due during the grace is not made."""
    answers = {"0": ServiceUnavailableError(), "1": OutcomeUnknownError(), "2": 4}

    class Again:
        def decide(self, attempt):
            return Retry(2)

    wire = Wire(clock, answers)
    sender = Sender(
        from_=NAME, transport=wire, limiter=Even(), retry=Again(), clock=clock, observers=[ears], max_parallel=1
    )
    async with cancelled(clock, 1):
        await sender.send_all([letter(str(i)) for i in range(4)])
    assert [HELD, UNKNOWN, SENT, HELD] == [ears.fates[str(i)].status for i in range(4)]
    assert wire.left == ["0", "1", "2"]


async def test_two_may_wait_for_the_results_of_one_stream(clock):
    """Each result goes to one of them, and both learn of the end."""
    sender = Sender(from_=NAME, transport=Wire(clock, default=0.1), clock=clock)
    seen = []

    async def consume(results):
        seen.extend([result.index async for result in results])

    async with sender.stream([letter(str(i)) for i in range(20)]) as results, anyio.create_task_group() as tasks:
        tasks.start_soon(consume, results)
        tasks.start_soon(consume, results)
    assert list(range(20)) == sorted(seen)
