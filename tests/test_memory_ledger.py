from __future__ import annotations

import datetime as dt

import pytest

from tanksend import Status
from tanksend._messages import key_tag
from tanksend.exceptions import SettingError
from tanksend.ledgers import MemoryLedger
from tanksend.testing import FakeClock, check_ledger
from tanksend.typing import Claim, LedgerEntry

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock():
    """Time that the tests own."""
    return FakeClock(wall=1_000_000.0)


@pytest.fixture
def ledger(clock):
    """An empty ledger."""
    return MemoryLedger(lease=60.0, clock=clock)


async def test_it_keeps_its_contract(clock):
    """The check that ships for everybody's ledgers, with several holders of one."""
    first = MemoryLedger(lease=60.0, clock=clock)
    await check_ledger(first.another, expire=lambda: clock.sleep(61.0))


async def test_one_alone_keeps_its_contract_too():
    """On the system's clock, without waiting for leases."""
    ledger = MemoryLedger()
    await check_ledger(ledger.another)


async def test_who_crashes_leaves_unknown_fates(ledger):
    """Others see them at once, whatever the lease; the dead one's successor is somebody else."""
    other = ledger.another()
    await ledger.claim(["a"])
    ledger.crash()
    assert Status.UNKNOWN is (await other.lookup(["a"]))["a"].status
    assert {"a": Claim.UNKNOWN} == await ledger.claim(["a"])
    await ledger.record([LedgerEntry("a", Status.SENT)])
    assert Status.UNKNOWN is (await other.lookup(["a"]))["a"].status


async def test_unknown_fates_are_settled_by_hand(ledger):
    """As sent, or so that the key is free again; nothing else is."""
    await ledger.claim(["a", "b", "c"])
    assert not await ledger.settle("a", Status.SENT)
    await ledger.record([LedgerEntry(key, Status.UNKNOWN) for key in "abc"])
    assert await ledger.settle("a", Status.SENT, message_id="m")
    assert await ledger.settle("b", Status.FAILED)
    assert not await ledger.settle("nobody", Status.SENT)
    assert {"a": Claim.ALREADY_SENT, "b": Claim.GRANTED, "c": Claim.UNKNOWN} == await ledger.claim(["a", "b", "c"])
    assert "m" == (await ledger.lookup(["a"]))["a"].message_id
    with pytest.raises(SettingError, match="SENT"):
        await ledger.settle("c", Status.ELSEWHERE)


async def test_events_settle_keys(ledger):
    """Each once, and only keys of this ledger."""
    await ledger.claim(["a"])
    events = [
        {"eventType": kind, "mail": {"messageId": "m", "tags": {name: [tag] for name, tag in key_tag(key).items()}}}
        for kind, key in [("Send", "a"), ("Delivery", "a"), ("Send", "b"), ("Open", "a")]
    ]
    assert 1 == await ledger.reconcile([*events, {"eventType": "Send"}])
    assert Status.SENT is (await ledger.lookup(["a"]))["a"].status


async def test_counts_and_pending_tell_how_it_stands(ledger, clock):
    """A claim that nobody may be working on counts as unknown."""
    await ledger.claim(["a", "b", "c"])
    await ledger.record([LedgerEntry("a", Status.SENT), LedgerEntry("b", Status.UNKNOWN)])
    counts = await ledger.counts()
    assert (1, 1, 1, 0) == (counts[None], counts[Status.SENT], counts[Status.UNKNOWN], counts[Status.HELD])
    assert [("b", Status.UNKNOWN), ("c", None)] == sorted([(e.key, e.status) async for e in ledger.pending()])
    await clock.sleep(60.0)
    counts = await ledger.counts()
    assert (0, 2) == (counts[None], counts[Status.UNKNOWN])


async def test_old_keys_are_forgotten(ledger, clock):
    """By age; unknown ones only when asked for, and claims not while somebody may be working on them."""
    await ledger.claim(["sent", "unknown"])
    await ledger.record([LedgerEntry("sent", Status.SENT), LedgerEntry("unknown", Status.UNKNOWN)])
    await clock.sleep(100.0)
    await ledger.claim(["open"])
    assert 0 == await ledger.purge(dt.timedelta(seconds=100))
    assert 1 == await ledger.purge(99.0)
    assert 1 == await ledger.purge(0, unknown=True)
    assert {"open"} == set(await ledger.lookup(["sent", "unknown", "open"]))
    assert "<MemoryLedger 1 keys>" == repr(ledger)


def test_a_lease_is_above_zero():
    """Anything else would be a claim that nobody can use."""
    with pytest.raises(SettingError):
        MemoryLedger(lease=0)
