"""
Whatever transport, limiter, guard, store, ledger, consumer, iterable and stop do, each message gets one true fate.

A plan says what each of them will do; then up to three runs go through it together, on a clock that jumps: of one
sender, or, with a ledger, of two processes that share it, one of which may die. The doubles below write down what
really happened, and the checks at the end compare that with what was reported.
"""

# ruff: noqa: PT017  (what is caught here is checked, and need not have been raised)

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import attrs
import pytest
import trio
from hypothesis import given, register_random, settings, strategies as st

from tanksend import Message, Priority, Receipt, Sender, SendResult, Status
from tanksend._messages import KEY_TAG, campaign_key, key_tag
from tanksend.exceptions import (
    AccessDeniedError,
    ConfigurationError,
    ConnectionFailedError,
    ContentRejectedError,
    DailyQuotaExceededError,
    IdentityNotVerifiedError,
    IntakeError,
    LedgerError,
    Origin,
    OutcomeUnknownError,
    SendError,
    ServiceUnavailableError,
    ThrottlingError,
)
from tanksend.ledgers import MemoryLedger
from tanksend.ledgers._states import NOT_SENT
from tanksend.retries import ExponentialBackoff, NoRetry
from tanksend.testing import FakeClock
from tanksend.typing import Allow, Demand, Drop, EventKind, Hold, Replace, SendEvent, SendRequest, Signal, Slot

FOREVER = 1e5
GRACE = 5.0
AHEAD = 0.1
LEASE = 900
A_MOMENT = 1e-6
CAMPAIGN = "campaign"

CERTAINLY_NOT: dict[str, Callable[[], SendError]] = {
    "throttled": ThrottlingError,
    "throttled for a while": lambda: ThrottlingError(pause=True),
    "unavailable": ServiceUnavailableError,
    "unreachable": ConnectionFailedError,
    "rejected": ContentRejectedError,
    "origin": IdentityNotVerifiedError,
    "set": lambda: ConfigurationError(origin=Origin.CONFIGURATION_SET),
    "nobody's origin": ConfigurationError,
    "account": AccessDeniedError,
    "quota": lambda: DailyQuotaExceededError(resume_at=1.0),
}
OUTCOMES = ["ok"] * 8 + [*CERTAINLY_NOT, "answer lost", "request lost", "bug", "no receipt", "cut after", "cut before"]


@attrs.frozen
class Stop:
    """How a run is stopped: cancelled at a time, or left or broken by its consumer after so many results."""

    kind: str
    after: float


@attrs.frozen
class Letter:
    outcomes: tuple[tuple[str, float], ...]
    recipients: int
    priority: Priority | None
    origin: int
    guard: str
    trouble: str
    key: str | None


@attrs.frozen
class Course:
    """What one run does."""

    starts: float
    kind: str
    source: str
    letters: tuple[Letter, ...]
    pause: float
    raises_after: int | None
    stop: Stop | None
    give_up_after: float | None
    slow: float
    sends_inside: bool
    process: int


@attrs.frozen
class Keeping:
    """What the ledger does, and when one of the processes that share it dies."""

    takes: tuple[float, ...]
    wrong: dict[int, str]
    lease: float
    dies_at: float | None


@attrs.frozen
class Plan:
    courses: tuple[Course, ...]
    delays: tuple[float, ...]
    refusals: dict[int, str]
    slow_limiter: float
    rude_limiter: bool
    slow_parts: float
    store_fails_at: int | None
    policy: str
    max_parallel: int | None
    keeping: Keeping | None


def seconds(*some: float) -> st.SearchStrategy[float]:
    """One of these."""
    return st.sampled_from(some)


LETTERS = st.builds(
    Letter,
    outcomes=st.lists(st.tuples(st.sampled_from(OUTCOMES), seconds(0, 0, 0.1, 1, FOREVER)), max_size=3).map(tuple),
    recipients=st.sampled_from([1, 1, 1, 2, 5]),
    priority=st.sampled_from([None, None, *Priority]),
    origin=st.integers(0, 1),
    guard=st.sampled_from(["allow"] * 6 + ["replace", "spoil", "hold", "drop", "bug", "nothing"]),
    trouble=st.sampled_from([""] * 8 + ["invalid", "no message", "suppressed", "partly suppressed"]),
    key=st.sampled_from([None, "x", "y", "number {}", "number {}", "number {}"]),
)
STOPS = st.builds(Stop, st.just("cancel"), seconds(0, 0.05, 0.5, 3, 30)) | st.builds(
    Stop, st.sampled_from(["break", "raise"]), st.integers(0, 6)
)
COURSES = st.builds(
    Course,
    starts=seconds(0, 0, 0.2, 2, 30),
    kind=st.sampled_from(["send", "send_all", "stream"]),
    source=st.sampled_from(["list", "async", "async", "endless"]),
    letters=st.lists(LETTERS, min_size=1, max_size=12).map(tuple),
    pause=seconds(0, 0, 0.1, 1),
    raises_after=st.none() | st.integers(0, 12),
    stop=st.none() | STOPS,
    give_up_after=st.none() | seconds(0, 0.3, 2, 40),
    slow=seconds(0, 0, 0.3),
    sends_inside=st.booleans(),
    process=st.integers(0, 1),
)
WRONG = ["locked", "bug", "nonsense", "too late"]
KEEPING = st.builds(
    Keeping,
    takes=st.lists(seconds(0, 0, 0.01, 0.06, 0.4, 3, 8, FOREVER), min_size=1, max_size=4).map(tuple),
    wrong=st.dictionaries(st.integers(0, 20), st.sampled_from(WRONG), max_size=1),
    lease=seconds(LEASE, LEASE, LEASE, 5),
    dies_at=st.none() | seconds(0.05, 0.5, 3, 20),
)
PLANS = st.builds(
    Plan,
    courses=st.lists(COURSES, min_size=1, max_size=3).map(tuple),
    delays=st.lists(seconds(0, 0, 0.02, 0.1, 1, 60), min_size=1, max_size=5).map(tuple),
    refusals=st.dictionaries(st.integers(0, 15), st.sampled_from(["quota", "bug"]), max_size=1),
    slow_limiter=seconds(0, 0, 0.05),
    rude_limiter=st.booleans(),
    slow_parts=seconds(0, 0, 0.1),
    store_fails_at=st.none() | st.integers(0, 8),
    policy=st.sampled_from(["default", "default", "resend", "none", "bug"]),
    max_parallel=st.sampled_from([None, 1, 1, 2, 3]),
    keeping=st.none() | KEEPING | KEEPING,
)

# Two or three runs of two processes that send the same, where not much else is in the way.
SHARED_LETTERS = st.builds(
    Letter,
    outcomes=st.lists(
        st.tuples(
            st.sampled_from(["ok"] * 5 + ["throttled", "unavailable", "rejected", "answer lost"]),
            seconds(0, 0, 0.1, 1, FOREVER),
        ),
        max_size=2,
    ).map(tuple),
    recipients=st.sampled_from([1, 1, 1, 2]),
    priority=st.sampled_from([None, None, None, Priority.TRANSACTIONAL]),
    origin=st.just(0),
    guard=st.sampled_from(["allow"] * 6 + ["hold", "drop"]),
    trouble=st.sampled_from([""] * 10 + ["invalid", "suppressed"]),
    key=st.sampled_from(["x", "number {}", "number {}", "number {}", "number {}"]),
)
SHARED_COURSES = st.builds(
    Course,
    starts=seconds(0, 0, 0.2, 3, 30),
    kind=st.sampled_from(["send_all", "stream"]),
    source=st.sampled_from(["list", "list", "async"]),
    letters=st.lists(SHARED_LETTERS, min_size=4, max_size=12).map(tuple),
    pause=seconds(0, 0, 0.1),
    raises_after=st.none(),
    stop=st.none() | st.none() | STOPS,
    give_up_after=st.none() | st.none() | seconds(2, 40),
    slow=st.just(0),
    sends_inside=st.just(False),
    process=st.integers(0, 1),
)
SHARED = st.builds(
    Plan,
    courses=st.lists(SHARED_COURSES, min_size=2, max_size=3).map(tuple),
    delays=st.lists(seconds(0, 0.02, 0.1, 0.1, 1), min_size=1, max_size=4).map(tuple),
    refusals=st.just({}),
    slow_limiter=st.just(0),
    rude_limiter=st.just(False),
    slow_parts=seconds(0, 0, 0.3),
    store_fails_at=st.none(),
    policy=st.sampled_from(["default", "default", "resend"]),
    max_parallel=st.sampled_from([None, None, 1, 2]),
    keeping=st.builds(
        Keeping,
        takes=st.lists(seconds(0, 0, 0.01, 0.06, 0.4, 3, 8), min_size=1, max_size=4).map(tuple),
        wrong=st.just({}) | st.just({}) | st.dictionaries(st.integers(1, 20), st.sampled_from(WRONG), max_size=1),
        lease=seconds(LEASE, LEASE, LEASE, 5),
        dies_at=st.none() | seconds(0.05, 0.5, 3, 20),
    ),
)


class Truth:
    """What must hold at all times; the doubles cannot raise, for the engine puts up with anything they raise."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def holds(self, fact: bool, otherwise: str) -> None:
        if not fact:
            self.broken.append(otherwise)


class Account:
    """The transport of a process: what SES accepts, may have accepted, and answers."""

    def __init__(self, clock: FakeClock, plan: Plan, truth: Truth) -> None:
        self._clock = clock
        self._plan = plan
        self._truth = truth
        self.limiter = Pace(clock, plan, truth)
        self.book: Book | None = None
        self.accepted: Counter[str] = Counter()
        self.accepted_keys: Counter[str] = Counter()
        self.keys: dict[str, str] = {}
        self.maybe: set[str] = set()
        self.receipts: set[str] = set()
        self.attempts: dict[str, list[float]] = defaultdict(list)
        self.outcomes: dict[str, list[tuple[str, float]]] = {}
        self.on_the_wire = 0

    async def send(self, request: SendRequest) -> Receipt:
        name = request.message.subject
        self.limiter.used(len(request.recipients))
        if self.book is not None:
            if self.book.dead:
                raise ConnectionFailedError
            self.keys[name] = request.tags[KEY_TAG]
            # What took longer than its lease may have been taken by others who send again what is unknown.
            lost = self._plan.policy == "resend" and self.book.leases_end
            self._truth.holds(lost or self.book.has_claimed(request.tags[KEY_TAG]), "sent what was not claimed")
        self.attempts[name].append(self._clock.monotonic())
        self._truth.holds(self.on_the_wire < (self._plan.max_parallel or 256), "too many requests on the wire")
        left = self.outcomes.get(name)
        outcome, delay = left.pop(0) if left else ("ok", 0.0)
        self.on_the_wire += 1
        try:
            return await self._answer(name, outcome, delay)
        finally:
            self.on_the_wire -= 1

    async def _answer(self, name: str, outcome: str, delay: float) -> Receipt:
        if outcome == "cut after":
            self._accept(name)
        try:
            await self._clock.sleep(delay)
        except anyio.get_cancelled_exc_class():
            self.maybe.add(name)
            raise
        if outcome in CERTAINLY_NOT:
            error = CERTAINLY_NOT[outcome]()
            raise error
        if outcome in {"ok", "answer lost", "no receipt"}:
            self._accept(name)
        if outcome == "ok":
            self.receipts.add(name)
            return Receipt(f"id of {name}")
        self.maybe.add(name)
        if outcome == "no receipt":
            return None  # type: ignore[return-value]
        raise RuntimeError if outcome == "bug" else OutcomeUnknownError

    def _accept(self, name: str) -> None:
        self.accepted[name] += 1
        if name in self.keys:
            self.accepted_keys[self.keys[name]] += 1

    async def aclose(self) -> None:
        pass


class Book:
    """
    The ledger of a process: takes its time before and after it does what it is asked for, and fails when it is told.

    Once its process has died nothing that the rest of it does counts any more.
    """

    def __init__(self, clock: FakeClock, keeping: Keeping, ledger: MemoryLedger) -> None:
        self._clock = clock
        self._keeping = keeping
        self._ledger = ledger
        self._asked = 0
        self.dead = False
        self.leases_end = keeping.lease < LEASE or max(keeping.takes) >= LEASE

    def has_claimed(self, tag: str) -> bool:
        row = self._ledger._shelf.rows.get(bytes.fromhex(tag))
        return row is not None and row.status is None and row.owner == self._ledger._number

    def die(self) -> None:
        self.dead = True
        self._ledger.crash()

    async def _do(self, call: Callable[[], Any]) -> Any:
        keeping, number = self._keeping, self._asked
        self._asked += 1
        takes, wrong = keeping.takes[number % len(keeping.takes)], keeping.wrong.get(number)
        await self._clock.sleep(takes / 2)
        if self.dead or wrong == "locked":
            raise LedgerError("The ledger is locked")
        if wrong == "bug":
            raise ZeroDivisionError
        answer = 7 if wrong == "nonsense" else await call()
        await self._clock.sleep(takes / 2)
        if wrong == "too late":
            raise LedgerError("The ledger is full")
        return answer

    async def lookup(self, keys: Any) -> Any:
        return await self._do(lambda: self._ledger.lookup(keys))

    async def claim(self, keys: Any, *, resend_unknown: bool = False) -> Any:
        return await self._do(lambda: self._ledger.claim(keys, resend_unknown=resend_unknown))

    async def record(self, entries: Any) -> None:
        await self._do(lambda: self._ledger.record(entries))


class Pace:
    """The limiter: every slot it gave, what came back, and what was sent on the strength of it."""

    def __init__(self, clock: FakeClock, plan: Plan, truth: Truth) -> None:
        self._clock = clock
        self._plan = plan
        self._truth = truth
        self._asked = 0
        self._slots: dict[int, tuple[float, int]] = {}

    @property
    def outstanding(self) -> int:
        return sum(recipients for _, recipients in self._slots.values())

    async def reserve(self, demand: Demand) -> Slot:
        self._truth.holds(1 <= demand.at_least <= demand.recipients, "a demand for nothing")
        # With a ledger, one is taken ahead by the time that its claim takes.
        ahead = AHEAD if self._plan.keeping is not None else 0.0
        self._truth.holds(self._due(ahead) == self.outstanding, "a second slot while one is not due yet")
        if self._plan.slow_limiter:
            await self._clock.sleep(self._plan.slow_limiter)
        number, self._asked = self._asked, self._asked + 1
        refusal = self._plan.refusals.get(number)
        if refusal is not None:
            raise DailyQuotaExceededError(resume_at=2.0) if refusal == "quota" else ZeroDivisionError
        delay = self._plan.delays[number % len(self._plan.delays)]
        # What is charged for the difference in weight is not waited for, by contract.
        due = self._clock.monotonic() + (0.0 if self.outstanding else delay)
        # Every other time, as an account that counts strictly: there is room for the lightest only.
        granted = demand.at_least if number % 2 else demand.recipients
        self._slots[number] = due, granted
        return Slot(delay, granted, number)

    async def release(self, slot: Slot) -> None:
        assert isinstance(slot.token, int)
        if self._plan.keeping is None:
            self._take(slot.token, slot.recipients)
        else:
            # While it was claimed for, another request may have been counted as that of this slot.
            self._take_any(slot.recipients, slot.token)
        if self._plan.rude_limiter:
            raise LookupError

    async def feedback(self, signal: Signal) -> None:
        await self._clock.sleep(self._plan.slow_limiter)
        if self._plan.rude_limiter:
            raise LookupError

    def used(self, recipients: int) -> None:
        self._truth.holds(recipients <= self._due(), "sent before the slot was due")
        self._take_any(recipients)

    def _take_any(self, recipients: int, first: int = -1) -> None:
        self._truth.holds(recipients <= self.outstanding, "gave back more than there was")
        for token in sorted(self._slots, key=lambda token: (token != first, self._slots[token][0])):
            recipients -= self._take(token, min(recipients, self._slots[token][1]))

    def _due(self, ahead: float = 0.0) -> int:
        latest = self._clock.monotonic() + ahead + A_MOMENT
        return sum(recipients for due, recipients in self._slots.values() if due <= latest)

    def _take(self, token: int, recipients: int) -> int:
        due, left = self._slots.pop(token, (0.0, 0))
        self._truth.holds(recipients <= left, "gave back more than there was")
        if recipients < left:
            self._slots[token] = due, left - recipients
        return recipients


class Store:
    def __init__(self, clock: FakeClock, plan: Plan) -> None:
        self._clock = clock
        self._plan = plan
        self._asked = 0

    async def lookup(self, addresses: Any) -> dict[str, None]:
        self._asked += 1
        if self._plan.slow_parts:
            await self._clock.sleep(self._plan.slow_parts)
        if self._asked - 1 == self._plan.store_fails_at:
            raise OSError
        return {address: None for address in addresses if address.startswith("suppressed")}


class Gate:
    """The guard: does with each message what its name says."""

    def __init__(self, clock: FakeClock, plan: Plan) -> None:
        self._clock = clock
        self._plan = plan

    async def check(self, message: Message) -> Any:
        if self._plan.slow_parts:
            await self._clock.sleep(self._plan.slow_parts)
        match message.text:
            case "replace":
                return Replace(attrs.evolve(message, to=(*message.to, "suppressed@example.net"), text="allow"))
            case "spoil":
                return Replace(attrs.evolve(message, to=()))
            case "hold":
                return Hold("not now")
            case "drop":
                return Drop("never")
            case "bug":
                raise KeyError
            case "nothing":
                return None
        return Allow()


class Policy:
    def decide(self, attempt: object) -> Any:
        raise ArithmeticError


POLICIES = {
    "default": ExponentialBackoff(),
    "resend": ExponentialBackoff(attempts=3, resend_unknown=True),
    "none": NoRetry(),
    "bug": Policy(),
}


class BoomError(Exception):
    """What a consumer raises."""


class World:
    """A sender for each process, their parts and their runs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = FakeClock()
        self.truth = Truth()
        self.fates: dict[str, list[SendResult]] = defaultdict(list)
        self.taken: dict[int, dict[str, float]] = defaultdict(dict)
        self.stopped: dict[int, float] = {}
        self.reports: dict[int, Any] = {}
        self.accounts = [Account(self.clock, plan, self.truth) for _ in range(1 if plan.keeping is None else 2)]
        self.ledger = MemoryLedger(clock=self.clock, lease=plan.keeping.lease if plan.keeping is not None else LEASE)
        self.senders = [self.make(account) for account in self.accounts]

    def make(self, account: Account) -> Sender:
        if self.plan.keeping is not None:
            account.book = Book(self.clock, self.plan.keeping, self.ledger.another())
        return Sender(
            from_="a@one.example",
            transport=account,
            limiter=account.limiter,
            retry=POLICIES[self.plan.policy],
            suppression=Store(self.clock, self.plan),
            ledger=account.book,  # type: ignore[arg-type]
            guards=[Gate(self.clock, self.plan)],
            observers=[self],
            max_parallel=self.plan.max_parallel,
            clock=self.clock,
        )

    def account(self, run: int) -> Account:
        return self.accounts[self.plan.courses[run].process % len(self.accounts)]

    def sender(self, run: int) -> Sender:
        return self.senders[self.plan.courses[run].process % len(self.senders)]

    def is_dead(self, run: int) -> bool:
        book = self.account(run).book
        return book is not None and book.dead

    def on_event(self, event: SendEvent) -> None:
        if event.kind is EventKind.RESULT:
            message = event.result.message
            self.fates[getattr(message, "subject", str(message))].append(event.result)
        if self.plan.rude_limiter:
            raise UnicodeError

    # --- the messages of a run

    def letter(self, run: int, number: int) -> Any:
        letters = self.plan.courses[run].letters
        letter = letters[number % len(letters)]
        name = f"{run}-{number}"
        self.taken[run][name] = self.clock.monotonic()
        if letter.trouble == "no message":
            return name
        self.account(run).outcomes[name] = list(letter.outcomes)
        first = {"invalid": "in valid", "suppressed": "suppressed"}.get(letter.trouble, "b")
        to = [f"{first}@example.com", *(f"{first}{i}@example.com" for i in range(1, letter.recipients))]
        if letter.trouble == "partly suppressed":
            to.append("suppressed@example.org")
        return Message(
            to,
            name,
            letter.guard,
            from_=f"a@{['one', 'two'][letter.origin]}.example",
            configuration_set="set" if letter.recipients == 1 else None,
            priority=letter.priority,
            # By number, two runs have the same batch.
            key=letter.key.format(number) if letter.key is not None and self.plan.keeping is not None else None,
        )

    async def generate(self, run: int) -> AsyncIterator[Any]:
        course = self.plan.courses[run]
        number = 0
        while course.source == "endless" or number < len(course.letters):
            if number == course.raises_after:
                raise BoomError
            await self.clock.sleep(course.pause if number < 50 else max(course.pause, 1))
            yield self.letter(run, number)
            number += 1

    def source(self, run: int) -> Any:
        course = self.plan.courses[run]
        if course.source in {"async", "endless"}:
            return self.generate(run)
        return [self.letter(run, number) for number in range(len(course.letters))]

    # --- a run

    async def go(self, run: int) -> None:
        course = self.plan.courses[run]
        await self.clock.sleep(course.starts)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                if course.stop is not None and course.stop.kind == "cancel":
                    tasks.start_soon(self.cancel, run, course.stop.after, scope)
                elif course.source == "endless":
                    tasks.start_soon(self.cancel, run, 20.0, scope)
                if self.plan.keeping is not None and self.plan.keeping.dies_at is not None and course.process == 1:
                    tasks.start_soon(self.die, run, self.plan.keeping.dies_at, scope)
                try:
                    await getattr(self, course.kind)(run, course)
                except BoomError:
                    assert course.stop is not None
                except IntakeError as error:
                    assert isinstance(error.__cause__, BoomError)
                    assert course.raises_after is not None
                    assert error.report is self.reports.setdefault(run, error.report)
                    self.stopped.setdefault(run, self.clock.monotonic())
                tasks.cancel_scope.cancel()
        if run in self.stopped:
            # First for the wire, then for the ledger.
            grace = GRACE if self.plan.keeping is None else 2 * GRACE
            self.truth.holds(self.clock.monotonic() <= self.stopped[run] + grace + A_MOMENT, "took too long to stop")

    async def die(self, run: int, at: float, scope: anyio.CancelScope) -> None:
        """The process of *run* is gone; what is left of it here is not more than a shadow."""
        book = self.account(run).book
        assert book is not None
        await self.clock.sleep(1000.0 + at - self.clock.monotonic())
        if not book.dead:
            book.die()
        scope.cancel()

    async def cancel(self, run: int, after: float, scope: anyio.CancelScope) -> None:
        await self.clock.sleep(after)
        self.stopped[run] = self.clock.monotonic()
        scope.cancel()

    async def send(self, run: int, course: Course) -> None:
        message = self.letter(run, 0)
        if not isinstance(message, Message):
            self.taken.pop(run)
            return
        try:
            result = await self.sender(run).send(message, give_up_after=course.give_up_after)
            assert result.status in {Status.SENT, Status.ALREADY_SENT}
        except SendError as error:
            assert error.result is not None
            assert error.result.error is error
            assert error.result.status not in {Status.SENT, Status.ALREADY_SENT}
            assert error.result.message.subject == message.subject
        except anyio.get_cancelled_exc_class():
            if message.subject not in self.fates:
                self.taken.pop(run)
            raise

    async def send_all(self, run: int, course: Course) -> None:
        seen = 0

        async def on_result(result: SendResult) -> None:
            nonlocal seen
            await self.consume(run, course, seen)
            seen += 1

        source = self.source(run)
        options = {"campaign": CAMPAIGN, "give_up_after": course.give_up_after}
        report = await self.sender(run).send_all(source, on_result=on_result, **options)
        assert seen == report.total
        assert self.reports.setdefault(run, report) is report

    async def stream(self, run: int, course: Course) -> None:
        seen = 0
        options = {"campaign": CAMPAIGN, "give_up_after": course.give_up_after}
        async with self.sender(run).stream(self.source(run), **options) as results:
            self.reports[run] = results.report
            async for _ in results:
                if course.stop is not None and course.stop.kind == "break" and seen >= course.stop.after:
                    self.stopped.setdefault(run, self.clock.monotonic())
                    break
                await self.consume(run, course, seen)
                seen += 1
            else:
                assert seen == results.report.total

    async def consume(self, run: int, course: Course, seen: int) -> None:
        await self.clock.sleep(course.slow if seen < 20 else 0)
        if course.sends_inside and seen % 3 == 1:
            try:
                message = Message("c@example.com", f"inside-{run}-{seen}", "allow")
                await self.sender(run).send(message, give_up_after=3)
            except SendError as error:
                assert error.result is not None
        if course.stop is not None and course.stop.kind == "raise" and seen >= course.stop.after:
            self.stopped.setdefault(run, self.clock.monotonic())
            raise BoomError

    async def go_all(self) -> None:
        async with anyio.create_task_group() as watch:
            watch.start_soon(self.watch, watch.cancel_scope)
            async with anyio.create_task_group() as runs:
                for run in range(len(self.plan.courses)):
                    runs.start_soon(self.go, run)
            self.truth.holds(self.clock.sleepers == 1, "a task is left")
            self.truth.holds(not any(account.on_the_wire for account in self.accounts), "a request is left")
            watch.cancel_scope.cancel()

    async def watch(self, scope: anyio.CancelScope) -> None:
        """Time comes this far only when nothing else moves any more."""
        await self.clock.sleep(1e9)
        self.truth.holds(False, "a deadlock")
        scope.cancel()

    # --- what came of it

    def check(self) -> None:
        assert self.truth.broken == []
        for account in self.accounts:
            assert account.limiter.outstanding == 0
        for name, results in self.fates.items():
            account = self.account(int(name.removeprefix("inside-").split("-")[0]))
            if account.book is None or not account.book.dead:
                assert len(results) == 1, f"{name} has {len(results)} fates"
                self.check_fate(name, results[0], account)
        for run, course in enumerate(self.plan.courses):
            if not self.is_dead(run):
                self.check_run(run, course)
        if self.plan.keeping is not None:
            self.check_ledger(self.plan.keeping)

    def check_fate(self, name: str, result: SendResult, account: Account) -> None:
        assert result.attempts == len(account.attempts[name])
        assert (result.status is Status.SENT) == (name in account.receipts)
        assert (result.status in {Status.SENT, Status.ALREADY_SENT}) == (result.error is None)
        if account.accepted[name] or name in account.maybe:
            # Somebody else may have sent it again, and then it is known.
            again = {Status.ALREADY_SENT} if self.plan.policy == "resend" else set()
            assert result.status in {Status.SENT, Status.UNKNOWN} | again
        if result.status is Status.UNKNOWN:
            # Or somebody else may have sent it.
            assert name in account.maybe or self.plan.keeping is not None
        if self.plan.policy != "resend":
            assert account.accepted[name] <= 1
        if result.status is Status.SENT:
            assert result.message_id == f"id of {name}"
        if result.status is Status.ALREADY_SENT:
            message = result.message
            tag = key_tag(message.key or campaign_key(CAMPAIGN, message))[KEY_TAG]
            assert sum(each.accepted_keys[tag] for each in self.accounts)
        assert 0 <= result.waited <= result.elapsed + A_MOMENT

    def check_ledger(self, keeping: Keeping) -> None:
        accepted = sum((account.accepted_keys for account in self.accounts), Counter())
        if self.plan.policy != "resend":
            assert all(number <= 1 for number in accepted.values()), "a key was sent twice"
        rows = self.ledger._shelf.rows
        assert all(bytes.fromhex(tag) in rows for tag in accepted), "the ledger has forgotten a key"
        for name, row in rows.items():
            if row.status is Status.SENT:
                assert accepted[name.hex()], "the ledger says sent, and it was not"
            elif row.status in NOT_SENT:
                assert not accepted[name.hex()], "the ledger says not sent, and it was"
            elif row.status is None and not keeping.wrong and max(keeping.takes) < 1:
                # Slower than that, what is left to be asked and recorded after a stop may outlast the grace.
                assert row.owner in self.ledger._shelf.dead, "a claim is left, and its process is not dead"

    def check_run(self, run: int, course: Course) -> None:
        taken = self.taken[run]
        settled = [name for name in taken if name in self.fates]
        if run in self.reports and course.kind != "send":
            report = self.reports[run]
            assert report.total == len(settled)
            counted = Counter(self.fates[name][0].status for name in settled)
            assert dict(counted) == {status: number for status, number in report.counts.items() if number}
        if course.source != "list" or run not in self.stopped:
            assert settled == list(taken), "taken in, and no fate"
        assert sorted(self.fates[name][0].index for name in settled) == list(range(len(settled)))
        for name in settled:
            begun = self.account(run).attempts[name]
            if run in self.stopped:
                assert all(moment <= self.stopped[run] + A_MOMENT for moment in begun), "sent after the stop"
            if course.give_up_after is not None and course.source != "list":
                latest = taken[name] + course.give_up_after + A_MOMENT
                assert all(moment <= latest for moment in begun), "sent after its time"


@pytest.fixture(scope="module", autouse=True)
def _repeatable_trio() -> Iterator[None]:
    """Be quiet, and let hypothesis decide how trio shuffles its tasks, so that what it finds it finds again."""
    run = trio._core._run
    register_random(run._r)
    log = logging.getLogger("tanksend")
    before = run._ALLOW_DETERMINISTIC_SCHEDULING, log.level
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    log.setLevel(logging.CRITICAL)
    yield
    run._ALLOW_DETERMINISTIC_SCHEDULING = before[0]
    log.setLevel(before[1])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(plan=PLANS)
@settings(max_examples=int(os.environ.get("TANKSEND_ENGINE_EXAMPLES", "150")))
def test_each_message_gets_one_fate_and_it_is_true(backend, plan):
    """Up to three runs at once, each part misbehaving as it likes: one fate each, true, in time, and nothing left."""
    world = World(plan)
    anyio.run(world.go_all, backend=backend)
    world.check()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(plan=SHARED)
@settings(max_examples=int(os.environ.get("TANKSEND_ENGINE_EXAMPLES", "150")))
def test_processes_that_share_a_batch_send_each_key_once(backend, plan):
    """Up to three runs of two processes on the same keys, one of which may die: and the same holds."""
    world = World(plan)
    anyio.run(world.go_all, backend=backend)
    world.check()
