"""
What a run has to do with the ledger.

- Intake asks it what is known of each key: what was sent, or may have been, goes no further.
- Before a request leaves, the intent to send its messages is claimed, between their slot and the request.
- Each fate is recorded before its result is handed out; and before a message waits for another attempt, that the last
  one did not reach anybody, so that a crash during the wait leaves nothing in doubt.

A few questions of a run may be under way at once; whoever comes meanwhile asks the next one together. Claims ahead of
their slots, and fates while more are to come, gather for some milliseconds. So at a low rate each asks for itself, and
at a high one a single sync of a disk, or one round to a server, pays for many.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from .._loops import uninterrupted
from .._messages import Message, campaign_key
from .._results import Status
from ..exceptions import ElsewhereError, InvalidMessageError, OutcomeUnknownError, Problem
from ..typing import BatchingLedger, Claim, LedgerEntry
from ._errors import MissingKeyError, ledger_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from .._results import SendResult
    from ..exceptions import SendError
    from ..typing import Ledger
    from ._entry import Entry, Parcel
    from ._run import Run

NOT_SENT = frozenset({Status.INVALID, Status.SUPPRESSED, Status.FAILED})
"""Fates that are kept also of messages that were never claimed."""
QUESTIONS = 4
"""Questions of a run that are under way at once; who comes then waits, and asks the next. Of those with time, one."""
LOOK_AHEAD = 100
"""Waiting messages that are looked up again once somebody else was seen to work on the same batch."""
GATHER_SECONDS = 0.012
"""How long claims with time gather; fates wait twice as long for claims to go along with. At 500/s, 6 share a sync."""
KEPT_SECONDS = 60.0
"""How old a claim may be that is used; well below the lease of a ledger, 15 minutes if nothing else is said."""
NO_KEY = "is not given, and the batch has no campaign= to make one from"
KILLED = "stopped, because a task of it was cancelled"


class Books:
    """One run's, where the sender has a ledger."""

    def __init__(self, run: Run, ledger: Ledger, tasks: TaskGroup, *, campaign: str | None, fresh: bool) -> None:
        self._run = run
        self._ledger = ledger
        self._in_one_go = ledger.record_and_claim if isinstance(ledger, BatchingLedger) else None
        self._tasks = tasks
        self._campaign = campaign
        self._fresh = fresh
        """Messages without a key get a new one: each call of `Sender.send` is a mail of its own."""
        self._resend = bool(getattr(run.parts.retry, "resend_unknown", False))
        self._begun = False
        self._live: dict[str, Entry] = {}
        """Who has a key and no fate that the ledger knows."""
        self._next = _Question()
        self._under_way = 0
        self._asked_at = -math.inf
        self._turn: anyio.Event | None = None
        self._claiming: set[anyio.CancelScope] = set()
        self._freeing: dict[Entry, Callable[[], None] | None] = {}
        """Who waits for another attempt, and the ledger does not know yet; and what to do then, if not that."""
        self._unwritten: list[_Note] = []
        self._writing: dict[_Note, None] = {}
        self._wanted: anyio.Event | None = None
        self._writer: anyio.CancelScope | None = None
        self._closed = False
        self._given_up = False
        """Nothing is written any more, and what there is to tell is told at once."""

    # --- intake -------------------------------------------------------------------------------------------------------

    def check_keys(self, messages: Sequence[object]) -> None:
        """
        See that all of *messages* can be told apart.

        Raises:
            MissingKeyError: One has no key, and there is no campaign.
        """
        if self._campaign is None and not self._fresh:
            for message in messages:
                if isinstance(message, Message) and message.key is None:
                    raise MissingKeyError

    async def look_up(self, entries: Sequence[Entry]) -> None:
        """
        Give *entries* their keys, and those a fate that have one already.

        Raises:
            MissingKeyError: As `check_keys`, while nothing of the batch was taken in.
        """
        if not self._begun:
            self.check_keys([entry.message for entry in entries])
            self._begun = True
        named = [entry for entry in entries if self._name(entry)]
        if named:
            for entry, (status, message_id) in (await self._ask_what_is_known(named)).items():
                self._know(entry, status, message_id)

    def _name(self, entry: Entry) -> bool:
        """Give *entry* its key; False for what will not be looked up."""
        if not isinstance(entry.message, Message) or entry.message.key == "":
            return False  # neither will come further than the checks
        try:
            key = entry.message.key or self._made_key(entry.message)
        except InvalidMessageError as error:
            self._run.fates.settle(entry, Status.INVALID, error=error)
            return False
        if key is None:
            entry.key = secrets.token_hex(16)  # which nobody else has
            return False
        first = self._live.setdefault(key, entry)
        entry.key = key
        if first is entry:
            return True
        entry.follows = True
        first.followers = [*(first.followers or ()), entry]
        return False

    def _made_key(self, message: Message) -> str | None:
        """
        The key of *message*, which brings none; None when it is to be one that nobody has.

        Raises:
            InvalidMessageError: There is nothing to make one from.
        """
        if self._campaign is not None:
            return campaign_key(self._campaign, message)
        if not self._fresh:
            raise InvalidMessageError(problems=[Problem("key", NO_KEY)])
        return None

    async def look_again(self) -> None:
        """Somebody else works on the same batch: see which of the next he has taken."""
        waiting = self._run.next_waiting(LOOK_AHEAD)
        attempts = [entry.attempts for entry in waiting]
        if not waiting:
            return
        known = await self._ask_what_is_known(waiting)
        for entry, before in zip(waiting, attempts, strict=True):
            # One that was taken meanwhile may be claimed by now: what was found is then perhaps of this run itself.
            if entry in known and entry.available and not entry.claimed and entry.attempts == before:
                self._know(entry, *known[entry])

    async def _ask_what_is_known(self, entries: Sequence[Entry]) -> Mapping[Entry, tuple[Status | None, str | None]]:
        """Fate and message id of those that the ledger knows; when it fails, the run has been told."""
        try:
            found = await self._ledger.lookup([entry.key or "" for entry in entries])
            told = [(entry, found.get(entry.key or "")) for entry in entries]
            return {entry: (known.status, known.message_id) for entry, known in told if known is not None}
        except Exception as error:  # noqa: BLE001  (a ledger of the caller's own)
            self._run.fail(ledger_error(error))
            return {}

    def _know(self, entry: Entry, status: Status | None, message_id: str | None = None) -> None:
        """The ledger says what became of *entry*, whoever had it; None is that somebody works on it."""
        if status is Status.SENT:
            self._run.pass_by(entry, Status.ALREADY_SENT, message_id=message_id)
        elif entry.unknown is not None and status is None:
            self._run.pass_by(entry, Status.UNKNOWN, error=entry.unknown)
        elif status is None:
            self._run.pass_by(entry, Status.ELSEWHERE, error=ElsewhereError())
        elif status is Status.UNKNOWN and not self._may_resend(entry):
            self._leave_unknown(entry)

    def _leave_unknown(self, entry: Entry) -> None:
        earlier = "an earlier run may have sent the message, and the ledger does not know"
        self._run.pass_by(entry, Status.UNKNOWN, error=entry.unknown or OutcomeUnknownError(earlier))

    def _may_resend(self, entry: Entry) -> bool:
        """Whether the caller has chosen to send again what may have arrived."""
        return self._resend or entry.unknown is not None

    # --- claims -------------------------------------------------------------------------------------------------------

    async def claim(self, parcel: Parcel) -> None:
        """
        Make the intent to send *parcel* durable. What somebody else has leaves it, with its fate.

        Raises:
            SendError: The ledger failed: nothing of the parcel may be sent.
        """
        await self._free_old([entry for entry in parcel.entries if entry.claimed])
        fresh = [entry for entry in parcel.entries if entry.key is not None and not entry.claimed]
        if not fresh:
            return
        # Ahead of a slot there is time to wait for others and ask with them, which costs much less.
        has_time = parcel.due > self._run.parts.clock.monotonic()
        question = await self._ask(fresh, 1 if has_time else QUESTIONS)
        now = self._run.parts.clock.monotonic()
        for entry in fresh:
            entry.claimed, entry.claimed_at = question.answers.get(entry.key or "") is Claim.GRANTED, now
        if question.error is not None:
            raise question.error  # those that were granted all the same are held, which frees them again
        lost = [entry for entry in fresh if not entry.claimed]
        if lost:
            parcel.entries = [entry for entry in parcel.entries if entry not in lost]
            await self._lose(lost, question.answers)

    async def _free_old(self, claimed: Sequence[Entry]) -> None:
        """
        Have those claimed anew that were claimed long ago, for a slot that came too late.

        Nothing of them has left, and before their lease ends nobody else may take it that it has.

        Raises:
            SendError: The ledger failed.
        """
        latest = self._run.parts.clock.monotonic() - KEPT_SECONDS
        old = [entry for entry in claimed if entry.claimed_at < latest]
        if not old:
            return
        try:
            await self._ledger.record([self._entry(entry, _free(entry), None, None) for entry in old])
        except Exception as error:  # noqa: BLE001  (a ledger of the caller's own)
            raise ledger_error(error) from None
        for entry in old:
            entry.claimed = False

    def spare(self, scope: anyio.CancelScope) -> None:
        """The worker of *scope* claims. Cut off, it would leave keys claimed that nobody sends."""
        self._claiming.add(scope)

    def spare_no_longer(self, scope: anyio.CancelScope) -> None:
        """It has claimed."""
        self._claiming.discard(scope)

    def spares(self, scope: anyio.CancelScope) -> bool:
        """Whether the worker of *scope* ends by itself, or when the ledger's time is over, too."""
        return scope in self._claiming

    async def _lose(self, entries: Sequence[Entry], answers: Mapping[str, Claim]) -> None:
        """Somebody else has *entries*: those that the claim says were sent were, and by which message id."""
        sent = []
        for entry in entries:
            answer = answers[entry.key or ""]
            if answer is Claim.ALREADY_SENT:
                sent.append(entry)
            elif answer is Claim.UNKNOWN:
                self._leave_unknown(entry)
            else:
                self._know(entry, None)
        if not sent:
            return
        known: Mapping[Entry, tuple[Status | None, str | None]] = {}
        try:
            known = await self._ask_what_is_known(sent)
        finally:
            for entry in sent:
                self._know(entry, Status.SENT, known[entry][1] if entry in known else None)

    async def _ask(self, entries: Sequence[Entry], most: int) -> _Question:
        """Have somebody ask for *entries*, and for all who come before he does; *most* questions may be under way."""
        question = self._next
        if not question.entries:
            question.begun = self._run.parts.clock.monotonic()
        question.entries += entries
        if question.most < most and (question.most == 0 or self._under_way < most):
            question.most = most
            await self._ask_in_turn(question)
        if not question.answered.is_set():
            await question.answered.wait()
        return question

    async def _ask_in_turn(self, question: _Question) -> None:
        """Ask *question*, or see that it is asked by one who need not wait for his turn."""
        try:
            if question.most > 1:
                await checkpoint()  # some requests end together: all who go on now ask together, too
            else:
                self._gather()
            while question is self._next and not self._may_ask(question.most):
                self._turn = self._turn or anyio.Event()
                await self._turn.wait()
        except BaseException:
            if question is self._next:
                self._next = _Question()
                question.leave()
            raise
        if question is self._next:
            self._next = _Question()
            await self._ask_now(question)

    def _gather(self) -> None:
        """See that those with time are asked for when others had time to come."""
        if self._run.parts.clock.monotonic() < self._asked_at + GATHER_SECONDS:
            self._run.timers.at(self._asked_at + GATHER_SECONDS, self._next_turn)

    def _may_ask(self, most: int) -> bool:
        gathered = most > 1 or self._run.parts.clock.monotonic() >= self._asked_at + GATHER_SECONDS
        return gathered and self._under_way < most

    def _next_turn(self) -> None:
        if self._turn is not None:
            self._turn.set()
            self._turn = None

    async def _ask_now(self, question: _Question) -> None:
        self._under_way += 1
        self._asked_at = self._run.parts.clock.monotonic()
        try:
            await self._claim(question)
        finally:
            self._under_way -= 1
            question.answered.set()
            self._next_turn()

    async def _claim(self, question: _Question) -> None:
        notes = self._take_along()
        try:
            for resend in (False, True):
                keys = [entry.key or "" for entry in question.entries if self._may_resend(entry) is resend]
                if keys:
                    told = await self._claim_keys(keys, resend, notes)
                    question.answers.update((key, Claim(told[key])) for key in keys)
        except Exception as problem:  # noqa: BLE001  (a ledger of the caller's own)
            question.error = ledger_error(problem)
        except BaseException:
            question.leave()
            raise
        finally:
            self._written(notes)
        self._run.lanes.claims_take(self._run.parts.clock.monotonic() - question.begun)

    def _take_along(self) -> list[_Note]:
        """
        The fates that are recorded with the next claims.

        It saves a sync; and so no more keys are claimed at any time, and in doubt after a crash, than requests may be
        on the wire: what was on it before a claim is recorded with it or, in the writer's hands already, ahead of it.
        """
        if self._in_one_go is None:
            return []
        notes = [note for note in self._unwritten if note.claimed]
        self._unwritten = [note for note in self._unwritten if not note.claimed]
        self._writing.update(dict.fromkeys(notes))
        return notes

    async def _claim_keys(self, keys: Sequence[str], resend: bool, notes: Sequence[_Note]) -> Mapping[str, Claim]:  # noqa: FBT001
        entries = [note.entry for note in notes if note in self._writing]
        if self._in_one_go is None or not entries:
            return await self._ledger.claim(keys, resend_unknown=resend)
        told = await self._in_one_go(entries, keys, resend_unknown=resend)
        self._written(notes)
        return told

    # --- fates --------------------------------------------------------------------------------------------------------

    def keep(self, entry: Entry, result: SendResult) -> bool:
        """
        See that the fate of *entry* is recorded, and then published; False where there is nothing to record.

        What the ledger said itself is not told to it, nor, of several messages with one key, the fate of any but the
        first.
        """
        status = result.status

        def publish() -> None:
            self._run.fates.publish(entry, result)

        if entry in self._freeing:
            self._freeing[entry] = publish
        elif entry.claimed or (status in NOT_SENT and entry.key is not None and not entry.follows):
            code = None if result.error is None else result.error.code
            self._write(_Note(entry, self._entry(entry, status, result.message_id, code), publish))
        else:
            return False
        return True

    def free(self, entry: Entry, error: SendError, then: Callable[[], None]) -> None:
        """Record that *entry* waits for another attempt, and then do *then*."""

        def freed() -> None:
            entry.claimed = False
            (self._freeing.pop(entry) or then)()

        self._freeing[entry] = None
        self._write(_Note(entry, self._entry(entry, _free(entry), None, error.code), freed))

    def forget(self, entry: Entry) -> Sequence[Entry]:
        """The ledger knows what became of *entry*; those that follow it."""
        if entry.key is not None and self._live.get(entry.key) is entry:
            del self._live[entry.key]
        return entry.followers or ()

    def _entry(self, entry: Entry, status: Status, message_id: str | None, code: str | None) -> LedgerEntry:
        return LedgerEntry(entry.key or "", status, message_id, code, self._run.parts.clock.wall())

    def _write(self, note: _Note) -> None:
        if self._given_up:
            note.then()
            return
        note.since = self._run.parts.clock.monotonic()
        self._unwritten.append(note)
        if self._writer is None:
            self._writer = anyio.CancelScope(shield=True)
            self._tasks.start_soon(uninterrupted(self._write_all))
        elif self._wanted is not None:
            self._wanted.set()

    async def _write_all(self) -> None:
        assert self._writer is not None  # noqa: S101  (made with the task)
        try:
            with self._writer:
                while await self._something_to_write():
                    await self._write_old()
        except anyio.get_cancelled_exc_class():
            # By name, past all scopes: its event loop is being torn down.
            self._run.stop(KILLED)
        except BaseException as error:  # noqa: BLE001  (it comes out of the caller's block)
            self._run.crash(error)
        finally:
            self.bury()

    async def _something_to_write(self) -> bool:
        while not self._unwritten:
            if self._closed:
                return False
            self._wanted = anyio.Event()
            await self._wanted.wait()
            self._wanted = None
        return True

    async def _write_old(self) -> None:
        """Write what there is once the oldest of it has waited for claims to go along with, if more may come."""
        clock = self._run.parts.clock
        while self._unwritten:
            pause = self._unwritten[0].since + 2 * GATHER_SECONDS - clock.monotonic()
            if pause <= 0 or not self._run.is_sending:
                await self._write_some()
                return
            await clock.sleep(pause)

    async def _write_some(self) -> None:
        notes, self._unwritten = self._unwritten, []
        self._writing.update(dict.fromkeys(notes))
        try:
            entries = await self._ours(notes)
            if entries:
                await self._ledger.record(entries)
        except Exception as error:  # noqa: BLE001  (a ledger of the caller's own)
            # What became of them is true all the same, and is told; nothing more is sent.
            self._run.fail(ledger_error(error))
        self._written(notes)

    async def _ours(self, notes: Sequence[_Note]) -> Sequence[LedgerEntry]:
        """
        Those that are this run's to record.

        What was never claimed may be claimed by now, by another run of this process, too: a word on it would free it.
        """
        unclaimed = [note.key for note in notes if not note.claimed]
        granted = await self._ledger.claim(unclaimed) if unclaimed else {}
        return [note.entry for note in notes if note.claimed or granted[note.key] == Claim.GRANTED]

    def _written(self, notes: Sequence[_Note]) -> None:
        for note in notes:
            if note in self._writing:
                del self._writing[note]
                note.then()

    def close(self) -> None:
        """The run is over."""
        self._closed = True
        if self._wanted is not None:
            self._wanted.set()

    def cut(self) -> None:
        """Wait for the ledger no longer."""
        for scope in self._claiming:
            scope.cancel()
        if self._writer is not None:
            self._writer.cancel()

    def bury(self) -> None:
        """Nobody writes any more: what could not be recorded is told all the same."""
        self._given_up = True
        while self._writing or self._unwritten:
            self._writing.update(dict.fromkeys(self._unwritten))
            self._unwritten = []
            self._written(tuple(self._writing))


def _free(entry: Entry) -> Status:
    """What is recorded of *entry*, which may be sent by and by."""
    return Status.HELD if entry.unknown is None else Status.UNKNOWN


class _Note:
    """What is to be written, and what to do then."""

    __slots__ = ("claimed", "entry", "key", "since", "then")

    def __init__(self, entry: Entry, kept: LedgerEntry, then: Callable[[], None]) -> None:
        self.key = entry.key or ""
        self.claimed = entry.claimed
        self.entry = kept
        self.since = 0.0
        self.then = then


class _Question:
    """Claims that are asked for together."""

    __slots__ = ("answered", "answers", "begun", "entries", "error", "most")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.begun = 0.0
        """When the first of them came."""
        self.most = 0
        """How many questions may be under way for this one to be asked; 0 while nobody sees to it."""
        self.answered = anyio.Event()
        self.answers: dict[str, Claim] = {}
        self.error: SendError | None = None

    def leave(self) -> None:
        """Whoever was to ask is gone: there will be no answer."""
        self.error = ledger_error(RuntimeError())
        self.answered.set()
