"""Does a ledger keep its contract?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from .._results import Status
from ..typing import BatchingLedger, Claim, LedgerEntry
from ._checks import _require

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..typing import Ledger

_FREE = (Status.HELD, Status.FAILED, Status.INVALID, Status.SUPPRESSED)


async def check_ledger(factory: Callable[[], Ledger], *, expire: Callable[[], Awaitable[None]] | None = None) -> None:
    """
    Hold a ledger to `Ledger`.

    Args:
        factory: Opens one. All that it opens keep the same keys, none at first, as ledgers of several processes would.
        expire: Waits until the leases of all claims so far have ended; None skips what comes of that.

    Raises:
        AssertionError: It breaks its contract.
    """
    mine, other = factory(), factory()
    await _check_nothing(mine)
    await _check_sent(mine, other)
    await _check_free(mine, other)
    await _check_unknown(mine, other)
    await _check_both(mine, other)
    await _check_words(mine, other)
    await _check_crowd(mine, other)
    await _check_cancelled(mine)
    await _check_many(mine)
    if expire is not None:
        await _check_expired(mine, other, expire)


async def _check_nothing(ledger: Ledger) -> None:
    _require(not await ledger.lookup([]), "looking up no keys finds nothing")
    _require(not await ledger.lookup(["check-none"]), "unknown keys are absent")
    _require(not await ledger.claim([]), "claiming nothing answers nothing")
    await ledger.record([])


async def _check_sent(mine: Ledger, other: Ledger) -> None:
    await _claim(mine, ["check-1", "check-1", "check-2"], Claim.GRANTED, "a free key is granted, once")
    await _claim(other, ["check-1"], Claim.ELSEWHERE, "a claimed key is elsewhere")
    await _claim(mine, ["check-1"], Claim.ELSEWHERE, "a claimed key is elsewhere also to whoever claimed it")
    await _claim(other, ["check-1"], Claim.ELSEWHERE, "resend_unknown takes nobody's claim away", resend_unknown=True)
    found = await other.lookup(["check-1", "check-3"])
    _require(set(found) == {"check-1"} and found["check-1"].status is None, "a claim is found, without a fate")
    _require("check-1" in await _pending(other), "pending() lists claims")
    await mine.record([LedgerEntry("check-1", Status.SENT, "message-1", at=5.0)])
    entry = (await other.lookup(["check-1"]))["check-1"]
    _require(entry.key == "check-1" and entry.status is Status.SENT, "a recorded fate is found under its key")
    _require(entry.message_id == "message-1" and entry.at == 5.0, "message id and time are kept")
    _require("check-1" not in await _pending(other), "pending() does not list what was sent")
    await _claim(other, ["check-1"], Claim.ALREADY_SENT, "what was sent is not granted again", resend_unknown=True)
    await mine.record([LedgerEntry("check-1", Status.HELD), LedgerEntry("check-1", Status.UNKNOWN)])
    _require((await mine.lookup(["check-1"]))["check-1"].status is Status.SENT, "sent is never taken back")


async def _check_free(mine: Ledger, other: Ledger) -> None:
    for status in _FREE:
        key = f"check-free-{status.value}"
        await _claim(mine, [key], Claim.GRANTED, "a free key is granted")
        await mine.record([LedgerEntry(key, status, error_code="Throttling")])
        entry = (await other.lookup([key]))[key]
        _require(entry.status is status and entry.error_code == "Throttling", "fate and error code are kept")
        _require(key not in await _pending(mine), f"pending() does not list what is {status.value}")
        await _claim(other, [key], Claim.GRANTED, f"what is {status.value} is free again")
        await mine.record([LedgerEntry(key, Status.HELD)])
        await _claim(mine, [key], Claim.ELSEWHERE, "nobody gives away what somebody else has claimed")
        await other.record([LedgerEntry(key, Status.SENT, "message-2")])
    await mine.record([LedgerEntry("check-unclaimed", Status.INVALID)])
    await _claim(mine, ["check-unclaimed"], Claim.GRANTED, "a fate may be recorded without a claim")


async def _check_unknown(mine: Ledger, other: Ledger) -> None:
    keys = ["check-lost", "check-late", "check-doubt", "check-again"]
    await _claim(mine, keys, Claim.GRANTED, "free keys are granted")
    await mine.record([LedgerEntry(key, Status.UNKNOWN) for key in keys])
    await _claim(mine, keys, Claim.UNKNOWN, "what is unknown is not granted")
    await _claim(other, keys, Claim.UNKNOWN, "what is unknown is not granted to others")
    _require(set(keys) <= set(await _pending(other)), "pending() lists what is unknown")
    await mine.record([LedgerEntry("check-late", Status.SENT, "message-3")])
    await _claim(other, ["check-late"], Claim.ALREADY_SENT, "whoever claimed a key may say later that it was sent")
    await mine.record([LedgerEntry("check-lost", Status.HELD)])
    await _claim(other, ["check-lost"], Claim.UNKNOWN, "what may have been sent is not freed again")
    doubted = ["check-doubt", "check-again"]
    await _claim(other, doubted, Claim.GRANTED, "what is unknown is granted with resend_unknown", resend_unknown=True)
    await mine.record([LedgerEntry("check-doubt", Status.SENT, "message-4")])
    await _claim(mine, ["check-doubt"], Claim.ELSEWHERE, "a key that was claimed anew is not its first claimant's")
    await other.record([LedgerEntry("check-doubt", Status.FAILED), LedgerEntry("check-again", Status.SENT, "m")])
    await _claim(mine, ["check-doubt"], Claim.UNKNOWN, "a second attempt that failed does not undo the first")
    await _claim(mine, ["check-again"], Claim.ALREADY_SENT, "a second attempt may settle it")


async def _check_both(mine: Ledger, other: Ledger) -> None:
    """Recording and claiming in one go, where the ledger can."""
    if not isinstance(mine, BatchingLedger):
        return
    await _claim(mine, ["check-both-1"], Claim.GRANTED, "a free key is granted")
    sent = [LedgerEntry("check-both-1", Status.SENT, "message-8")]
    answers = await mine.record_and_claim(sent, ["check-both-1", "check-both-2", "check-lost"])
    expected = {"check-both-1": Claim.ALREADY_SENT, "check-both-2": Claim.GRANTED, "check-lost": Claim.UNKNOWN}
    _require(dict(answers) == expected, "record_and_claim claims after it has recorded")
    await _claim(other, ["check-both-2"], Claim.ELSEWHERE, "what was claimed while recording is claimed")
    held = [LedgerEntry("check-both-2", Status.HELD)]
    answers = await mine.record_and_claim(held, ["check-both-2", "check-lost"], resend_unknown=True)
    _require(set(answers.values()) == {Claim.GRANTED}, "record_and_claim grants what it has freed, and what is unknown")


async def _check_words(mine: Ledger, other: Ledger) -> None:
    """Keys are the caller's: any text."""
    keys = ["check ключ 키", "check\n\t'\"%;--", "check " + "x" * 5_000, "Check-1", "check-1 "]
    await _claim(mine, keys, Claim.GRANTED, "any text is a key, and case and space tell two apart")
    _require(set(await other.lookup(keys)) == set(keys), "any text is found again")
    _require(set(keys) <= set(await _pending(other)), "keys come back as they were given")
    await mine.record([LedgerEntry(key, Status.SENT, "message-5") for key in keys])
    _require(all(key not in repr(entry) for key, entry in (await mine.lookup(keys)).items()), "no repr shows a key")


async def _check_crowd(mine: Ledger, other: Ledger) -> None:
    keys = [f"check-crowd-{number}" for number in range(60)]
    granted: list[str] = []

    async def take(ledger: Ledger, some: Sequence[str]) -> None:
        answers = await ledger.claim(some)
        _require(set(answers) == set(some), "claim answers for each key")
        granted.extend(key for key, answer in answers.items() if answer is Claim.GRANTED)

    async with anyio.create_task_group() as tasks:
        for start in range(0, 60, 5):
            for ledger in (mine, other):
                tasks.start_soon(take, ledger, keys[start : start + 10])
                tasks.start_soon(take, ledger, keys[start : start + 3])
    _require(sorted(granted) == sorted(keys), "however many ask at once, each key is granted once")
    await mine.record([LedgerEntry(key, Status.SENT, "message-6") for key in keys])
    await other.record([LedgerEntry(key, Status.SENT, "message-6") for key in keys])


async def _check_cancelled(ledger: Ledger) -> None:
    """Cancel at every one of the first suspensions: the ledger has to work afterwards, and nothing is granted twice."""
    for patience in range(6):
        key, answers = f"check-cancelled-{patience}", list[Claim]()

        async def take(key: str = key, answers: list[Claim] = answers) -> None:
            answers.append((await ledger.claim([key]))[key])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            for _ in range(patience):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        answers.append((await ledger.claim([key]))[key])
        _require(answers.count(Claim.GRANTED) <= 1, "a cancelled claim is not granted to two")
        _require(set(answers) <= {Claim.GRANTED, Claim.ELSEWHERE}, "a cancelled claim is made, or is not")


async def _check_many(ledger: Ledger) -> None:
    keys = [f"check-many-{number}" for number in range(3_000)]
    _require(not await ledger.lookup(keys), "3,000 keys can be looked up at once")
    await _claim(ledger, keys, Claim.GRANTED, "3,000 keys can be claimed at once")
    await ledger.record([LedgerEntry(key, Status.SENT, f"id-{key}") for key in keys])
    found = await ledger.lookup(keys)
    _require(all(found[key].message_id == f"id-{key}" for key in keys), "3,000 fates can be recorded at once")


async def _check_expired(mine: Ledger, other: Ledger, expire: Callable[[], Awaitable[None]]) -> None:
    keys = ["check-lease-1", "check-lease-2", "check-lease-3"]
    await _claim(mine, keys, Claim.GRANTED, "free keys are granted")
    await expire()
    found = await other.lookup(keys)
    _require({entry.status for entry in found.values()} == {Status.UNKNOWN}, "a claim whose lease has ended is unknown")
    _require(set(keys) <= set(await _pending(other)), "pending() lists claims whose lease has ended")
    await _claim(other, keys, Claim.UNKNOWN, "a claim whose lease has ended is not granted to others")
    await mine.record([LedgerEntry(keys[0], Status.SENT, "message-7"), LedgerEntry(keys[1], Status.HELD)])
    await _claim(other, keys[:1], Claim.ALREADY_SENT, "after its lease, too, the claimant may say that it was sent")
    await _claim(other, keys[1:2], Claim.GRANTED, "after its lease, too, the claimant may give it back")
    await _claim(other, keys[2:], Claim.GRANTED, "with resend_unknown it is granted", resend_unknown=True)
    await _claim(mine, keys[2:], Claim.ELSEWHERE, "and then it is that one's", resend_unknown=True)


async def _claim(
    ledger: Ledger, keys: Sequence[str], answer: Claim, sentence: str, *, resend_unknown: bool = False
) -> None:
    answers = await ledger.claim(keys, resend_unknown=resend_unknown)
    _require(set(answers) == set(keys), "claim answers for each key")
    _require(set(answers.values()) == {answer}, f"{sentence} ({answer.value}, not {', '.join(set(answers.values()))})")


async def _pending(ledger: Ledger) -> list[str]:
    return [entry.key async for entry in ledger.pending()]
