"""The rules that all ledgers share, and that they hold however two workers, crashes and leases come together."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tanksend import Status
from tanksend._messages import key_tag
from tanksend.exceptions import SettingError
from tanksend.ledgers import MemoryLedger, SQLiteLedger
from tanksend.ledgers._keys import digest, proof
from tanksend.ledgers._states import NOT_SENT, Row, View, as_seconds, claim, prove, record, settle
from tanksend.typing import Claim, LedgerEntry

ME, OTHER = 1, 2
NOW, LEASE = 1_000.0, 60.0
FREE = sorted(NOT_SENT)
KEPT = [*FREE, Status.SENT, Status.UNKNOWN]


def view(me=ME, now=NOW, dead=()):
    """Who looks, when, and who is dead."""
    return View(me, now, lambda number: number not in dead)


def claimed(by=ME, until=NOW + LEASE, *, doubt=False):
    """A claim."""
    return Row(None, by, until, doubt)


def entry(status, **fields):
    """What somebody knows of the key."""
    return LedgerEntry("k", status, **fields)


# --- claiming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [None, *(Row(status) for status in FREE)])
@pytest.mark.parametrize("resend", [False, True])
def test_a_free_key_is_granted(row, resend):
    """One that nobody knows, and one that was certainly not sent."""
    assert claim(row, view(), LEASE, resend_unknown=resend) == (
        Claim.GRANTED,
        Row(None, ME, until=NOW + LEASE, doubt=False, at=NOW),
    )


@pytest.mark.parametrize("owner", [ME, OTHER])
@pytest.mark.parametrize("resend", [False, True])
def test_an_open_claim_is_elsewhere(owner, resend):
    """Also for the holder that made it, and whatever is asked for."""
    assert claim(claimed(owner), view(), LEASE, resend_unknown=resend) == (Claim.ELSEWHERE, None)


@pytest.mark.parametrize(
    ("row", "looks"),
    [
        (Row(Status.UNKNOWN, OTHER), view()),
        (claimed(OTHER, until=NOW), view()),
        (claimed(ME, until=NOW), view()),
        (claimed(OTHER), view(dead={OTHER})),
    ],
)
def test_what_is_unknown_is_granted_to_those_who_ask_for_it(row, looks):
    """Recorded so, its lease ended, or its claimant dead: it takes resend_unknown, and the key is in doubt then."""
    assert claim(row, looks, LEASE) == (Claim.UNKNOWN, None)
    answer, after = claim(row, looks, LEASE, resend_unknown=True)
    assert (answer, after) == (Claim.GRANTED, Row(None, ME, NOW + LEASE, doubt=True, at=NOW))


@pytest.mark.parametrize("resend", [False, True])
def test_what_was_sent_is_never_granted(resend):
    """Whatever is asked for."""
    assert claim(Row(Status.SENT), view(), LEASE, resend_unknown=resend) == (Claim.ALREADY_SENT, None)


def test_a_claim_without_an_owner_lives_as_long_as_its_lease():
    """Nobody can be seen to be dead."""
    assert view().is_open(Row(None, None, NOW + 1))
    assert not view().is_open(Row(None, None, NOW))
    assert not view().is_open(Row(Status.SENT, ME, NOW + 1))


# --- recording -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [None, claimed(), claimed(until=0.0), *(Row(status) for status in FREE)])
@pytest.mark.parametrize("status", KEPT)
def test_the_claimant_records_what_it_knows(row, status):
    """Whether its lease has ended or not. Of an unknown fate it stays the one who may know more."""
    owner = ME if status is Status.UNKNOWN else None
    told = entry(status, message_id="m", error_code="c", at=5.0)
    assert record(row, told, view()) == Row(status, owner, message_id="m", error_code="c", at=5.0)


def test_an_entry_without_a_time_is_of_now():
    """The engine need not look at the clock."""
    after = record(claimed(), entry(Status.SENT), view())
    assert after is not None
    assert NOW == after.at


@pytest.mark.parametrize("status", KEPT)
@pytest.mark.parametrize("row", [claimed(OTHER), claimed(OTHER, until=0.0), Row(Status.UNKNOWN, OTHER)])
def test_nobody_records_for_somebody_else(row, status):
    """Also not when the lease has ended: the claimant may come back."""
    assert record(row, entry(status), view()) is None


@pytest.mark.parametrize("status", KEPT)
def test_sent_is_for_good(status):
    """Whoever says what."""
    assert record(Row(Status.SENT, ME), entry(status), view()) is None


@pytest.mark.parametrize("status", KEPT)
def test_of_an_unknown_fate_only_sent_is_news(status):
    """Once it may have been accepted, "not sent" is true of a later attempt at most."""
    after = record(Row(Status.UNKNOWN, ME), entry(status), view())
    assert (after is not None) is (status is Status.SENT)


@pytest.mark.parametrize("status", KEPT)
def test_a_key_in_doubt_never_becomes_free(status):
    """An earlier attempt may have been accepted, whatever the new one brought."""
    after = record(claimed(doubt=True), entry(status), view())
    assert after is not None
    assert after.status is (Status.SENT if status is Status.SENT else Status.UNKNOWN)
    assert after.owner == (None if status is Status.SENT else ME)


@pytest.mark.parametrize("status", [None, Status.ALREADY_SENT, Status.ELSEWHERE])
@pytest.mark.parametrize("row", [None, claimed(), Row(Status.HELD)])
def test_what_the_ledger_said_itself_changes_nothing(row, status):
    """A batch may hand in all its fates."""
    assert record(row, entry(status), view()) is None


# --- by hand, and by SES ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [Row(Status.UNKNOWN, OTHER), claimed(OTHER, until=NOW), claimed(ME, until=0.0)])
def test_an_unknown_fate_is_settled_by_hand(row):
    """Sent, or free again."""
    assert settle(row, Status.SENT, view(), "m") == Row(Status.SENT, message_id="m", at=NOW)
    assert settle(row, Status.HELD, view()) == Row(Status.HELD, at=NOW)


@pytest.mark.parametrize("row", [None, claimed(OTHER), Row(Status.SENT), Row(Status.FAILED)])
def test_what_is_not_unknown_is_not_settled_by_hand(row):
    """Above all no claim that somebody is working on."""
    assert settle(row, Status.SENT, view()) is None


@pytest.mark.parametrize("row", [claimed(OTHER), Row(Status.UNKNOWN, OTHER), Row(Status.HELD)])
def test_ses_knows_best(row):
    """Its event settles a key whoever thinks what of it."""
    assert prove(row, "m", NOW) == Row(Status.SENT, message_id="m", at=NOW)


@pytest.mark.parametrize("row", [None, Row(Status.SENT, message_id="first")])
def test_ses_tells_nothing_new_of_these(row):
    """Keys of other ledgers, and those that are settled."""
    assert prove(row, "m", NOW) is None


def test_a_row_shows_no_data():
    """Only how it stands."""
    assert "<Row sent>" == repr(Row(Status.SENT, message_id="secret"))
    assert "<Row claimed>" == repr(claimed())


# --- durations -------------------------------------------------------------------------------------------------------


def test_durations_are_seconds_or_timedeltas():
    """And a lease is above 0."""
    assert 90.0 == as_seconds(90) == as_seconds(dt.timedelta(minutes=1.5))
    assert 0.0 == as_seconds(0, least=0.0)
    for bad in (0, -1.0, float("nan"), dt.timedelta(0)):
        with pytest.raises(SettingError, match="above 0 seconds"):
            as_seconds(bad)
    with pytest.raises(SettingError, match="at least 0 seconds"):
        as_seconds(-1, least=0.0)


# --- keys and events -------------------------------------------------------------------------------------------------


@given(st.text(min_size=1))
def test_a_key_is_found_by_what_its_tag_says(key):
    """The tag on the message and the name in the ledger are the same 128 bits."""
    assert digest(key) == bytes.fromhex(next(iter(key_tag(key).values())))


def event(kind="Delivery", tags=None, **mail):
    """An event as SES publishes it."""
    tags = {name: [value] for name, value in key_tag("order-1").items()} if tags is None else tags
    return {"eventType": kind, "mail": {"messageId": "m-1", "tags": tags, **mail}}


@pytest.mark.parametrize("kind", ["Send", "Delivery", "Bounce", "Complaint", "DeliveryDelay", "Open", "Click"])
def test_an_event_proves_that_ses_took_the_message(kind):
    """All of these come after it was accepted."""
    assert proof(event(kind)) == (digest("order-1"), "m-1")


@pytest.mark.parametrize(
    "told",
    [
        event("Reject"),
        event("Rendering Failure"),
        event("Subscription"),
        event("SomethingNew"),
        event(tags={}),
        event(tags={"tanksend-key": []}),
        event(tags={"tanksend-key": ["00" * 16, "11" * 16]}),
        event(tags={"tanksend-key": "00" * 16}),
        event(tags={"tanksend-key": [7]}),
        event(tags={"tanksend-key": ["no hexadecimal"]}),
        event(tags={"tanksend-key": ["00" * 15]}),
        event(tags=["tanksend-key"]),
        {"eventType": "Delivery"},
        {"eventType": "Delivery", "mail": "m"},
        {},
        "an event",
        None,
    ],
)
def test_other_events_prove_nothing(told):
    """Events come from outside, and in kinds that nobody knows yet."""
    assert proof(told) is None


def test_an_event_without_an_id_proves_it_too():
    """The id is good to have."""
    assert proof(event(messageId=None)) == (digest("order-1"), None)


def test_real_events_prove_it_when_they_are_tagged(fixtures):
    """SES's own samples, with our tag among theirs."""
    proved = Counter()
    for path in sorted((fixtures / "events").glob("event-*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        assert proof(told) is None
        told["mail"].setdefault("tags", {}).update({name: [value] for name, value in key_tag("order-1").items()})
        if found := proof(told):
            assert (digest("order-1"), told["mail"]["messageId"]) == found
            proved[told["eventType"]] += 1
    assert {"Send", "Delivery", "Bounce"} <= set(proved)
    assert not {"Reject", "Rendering Failure", "Subscription"} & set(proved)


# --- two workers -----------------------------------------------------------------------------------------------------


class ManualClock:
    """Time that stands still."""

    def __init__(self):
        self.now = 1_000_000.0

    def wall(self):
        return self.now

    monotonic = wall


KEYS = [f"key-{number}" for number in range(3)]
workers = st.integers(0, 1)
some_keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4)


@attrs.define
class Worker:
    """One process: its ledger, and what it knows of the keys that it works on."""

    ledger: object
    known: dict[str, Status | None] = attrs.field(factory=dict)


class TwoWorkers(RuleBasedStateMachine):
    """
    Whatever two workers do, SES gets each message once at most.

    `accepted` counts what SES took, which nobody but SES and this machine knows.
    """

    resend = False
    tried = settings(max_examples=settings().max_examples * 3 // 5, stateful_step_count=40)

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.accepted = Counter()
        self.resent = Counter()
        self.begin()
        self.workers = [Worker(self.open()), Worker(self.open())]

    def begin(self):
        self.first = MemoryLedger(lease=LEASE, clock=self.clock)

    def open(self):
        return self.first.another()

    def kill(self, ledger):
        ledger.crash()

    def do(self, coroutine):
        return self.runner.run(coroutine)

    @rule(number=workers, keys=some_keys)
    def claim(self, number, keys):
        """Take keys that are not settled; lookup comes first, as in the engine."""
        worker = self.workers[number]
        seen = self.do(worker.ledger.lookup(keys))
        known = {key: found.status for key, found in seen.items()}
        answers = self.do(worker.ledger.claim(keys, resend_unknown=self.resend))
        assert set(keys) == set(answers)
        for key, answer in answers.items():
            assert (answer is Claim.ALREADY_SENT) is (known.get(key) is Status.SENT)
            if answer is Claim.GRANTED:
                self.resent[key] += known.get(key) is Status.UNKNOWN
                worker.known[key] = None

    @rule(number=workers, key=st.sampled_from(KEYS), accepted=st.booleans(), answered=st.booleans())
    def send(self, number, key, accepted, answered):
        """One request for a key that was granted, or one more after SES had refused it."""
        known = self.workers[number].known
        if key in known and known[key] in {None, Status.HELD}:
            self.accepted[key] += accepted
            known[key] = (Status.SENT if accepted else Status.HELD) if answered else Status.UNKNOWN

    @rule(number=workers, keys=some_keys)
    def record(self, number, keys):
        """Keep what is known; a claim that was never used is given back."""
        worker = self.workers[number]
        mine = [key for key in dict.fromkeys(keys) if key in worker.known]
        fates = {key: worker.known.pop(key) or Status.HELD for key in mine}
        self.do(worker.ledger.record([LedgerEntry(key, status) for key, status in fates.items()]))

    @rule(number=workers)
    def crash_and_resume(self, number):
        """The process dies; another takes its place."""
        self.kill(self.workers[number].ledger)
        self.workers[number] = Worker(self.open())

    @rule(share=st.sampled_from([0.4, 1.0]))
    def let_time_pass(self, share):
        """Leases end, also of those who are alive and go on."""
        self.clock.now += share * LEASE

    @precondition(lambda self: sum(self.accepted.values()))
    @rule(data=st.data())
    def hear_from_ses(self, data):
        """An event for something that SES took."""
        key = data.draw(st.sampled_from(sorted(+self.accepted)))
        told = {"eventType": "Send", "mail": {"messageId": "m", "tags": {n: [v] for n, v in key_tag(key).items()}}}
        self.do(self.workers[0].ledger.reconcile([told]))
        assert Status.SENT is self.do(self.workers[1].ledger.lookup([key]))[key].status

    @invariant()
    def each_is_sent_once_at_most(self):
        """Or as often as somebody asked for it."""
        for key, number in self.accepted.items():
            assert number <= 1 + self.resent[key]

    @invariant()
    def the_ledger_tells_the_truth(self):
        """Sent means that SES has it; free means that it has not, and that nobody may still send it."""
        for found in self.do(self.workers[0].ledger.lookup(KEYS)).values():
            if found.status is Status.SENT:
                assert self.accepted[found.key]
            elif found.status in NOT_SENT:
                assert not self.accepted[found.key]
                assert not any(found.key in worker.known for worker in self.workers)

    def teardown(self):
        self.runner.close()


class TwoResenders(TwoWorkers):
    """With resend_unknown, doubled at most as often as something unknown was granted."""

    resend = True


class TwoSQLiteWorkers(TwoWorkers):
    """The same with a file, whose processes die as by ``kill -9``."""

    tried = settings(max_examples=settings().max_examples // 4, stateful_step_count=30)

    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.ledgers = []

    def open(self):
        self.ledgers.append(SQLiteLedger(Path(self.folder.name) / "ledger.db", lease=LEASE, clock=self.clock))
        return self.ledgers[-1]

    def kill(self, ledger):
        """The system lets go of the lock, and the file stays."""
        descriptor, ledger._holder._descriptor = ledger._holder._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def teardown(self):
        for ledger in self.ledgers:
            ledger.close()
        self.folder.cleanup()
        super().teardown()


class TwoSQLiteResenders(TwoSQLiteWorkers):
    """With resend_unknown."""

    resend = True


def _case(machine):
    case = machine.TestCase
    case.settings = machine.tried
    return case


TestTwoWorkers = _case(TwoWorkers)
TestTwoResenders = _case(TwoResenders)
TestTwoSQLiteWorkers = _case(TwoSQLiteWorkers)
TestTwoSQLiteResenders = _case(TwoSQLiteResenders)
