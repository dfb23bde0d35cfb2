"""`RedisLimiter`, on every kind of server that is here; the moments are those of a fake clock, but where said."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import subprocess
import sys
import textwrap
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import pytest

from redis_server import Client, RedisServer, client, redis_server, server  # noqa: F401
from tanksend import Message, Priority, Sender
from tanksend.exceptions import (
    AccessDeniedError,
    ConnectionFailedError,
    DailyQuotaExceededError,
    OutcomeUnknownError,
    PartError,
    SettingError,
    ThrottlingError,
)
from tanksend.limiters import RedisLimiter
from tanksend.limiters._redis_link import Answer, Unreachable
from tanksend.limiters._redis_parts import Grant, Lease, Line, Outcomes, Place, Share
from tanksend.limiters._redis_script import KEYS
from tanksend.testing import FakeClock, RecordingTransport, check_rate_limiter
from tanksend.typing import Account, Demand, Signal, Slot

pytestmark = pytest.mark.anyio

BULK = Demand(1, 1)
URGENT = Demand(1, 1, Priority.TRANSACTIONAL)


class Source:
    """An account that says what it is told to say."""

    def __init__(self, *answers: Account | Exception) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def account(self) -> Account:
        self.calls += 1
        await anyio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def make(client: Client) -> Callable[..., RedisLimiter]:
    """Limiters that share one name, and the clock that they are given or have in common."""
    name, common = uuid.uuid4().hex, FakeClock()

    def make(rate: float | None = 50.0, clock: FakeClock = common, **options: Any) -> RedisLimiter:
        options = {"headroom": 1.0, "server_time": False, "clock": clock} | options
        return RedisLimiter(client, name, rate, **options)

    make.clock, make.name = common, name  # type: ignore[attr-defined]
    return make


async def use(limiter: RedisLimiter, demand: Demand = BULK) -> float:
    """Reserve, wait until it is due; the moment."""
    slot = await limiter.reserve(demand)
    await limiter._clock.sleep(slot.delay)
    return limiter._clock.monotonic()


# --- pace ------------------------------------------------------------------------------------------------------------


async def test_it_keeps_the_contract_of_a_limiter(make):
    """Never above the rate, debts, slots given back, feedback that never raises."""
    names = iter(range(100))
    client = make()._link._given
    await check_rate_limiter(
        lambda rate: RedisLimiter(client, f"{make.name}-{next(names)}", rate, headroom=1.0, clock=make.clock,
                                  server_time=False),
        make.clock,
    )  # fmt: skip


async def test_all_who_share_a_name_share_one_rate(make):
    """Four limiters together are as fast as one, and each gets its part."""
    used: list[tuple[float, int]] = []

    async def send(number: int) -> None:
        limiter = make()
        while make.clock.monotonic() < end:
            used.append((await use(limiter), number))

    end = make.clock.monotonic() + 11.0
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(send, number)
    used.sort()
    moments = [moment for moment, _ in used]
    assert all(later - earlier >= 0.02 - 1e-6 for earlier, later in itertools.pairwise(moments))
    assert (len(moments) - 1) / (moments[-1] - moments[0]) == pytest.approx(50.0, rel=0.01)
    shares = [sum(number == who for _, who in used) for number in range(4)]
    assert min(shares) > 0.2 * len(used)


async def test_one_round_trip_for_a_request(make, client):
    """In the long run: the beginning, where all ask at once, costs some more."""
    requests = 0

    async def send() -> None:
        nonlocal requests
        limiter = make()
        while make.clock.monotonic() < end:
            await use(limiter)
            requests += 1

    end = make.clock.monotonic() + 20.0
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(send)
    assert client.trips <= requests + 12


# --- lanes -----------------------------------------------------------------------------------------------------------


async def test_the_urgent_go_before_the_bulk_of_all_processes(make):
    """While four send bulk at 14 a second, a message of a fifth starts within two slots."""
    waits: list[float] = []

    async def bulk() -> None:
        limiter = make(14.0)
        while make.clock.monotonic() < end:
            await use(limiter)

    async def urgent() -> None:
        limiter = make(14.0)
        for number in range(40):
            await make.clock.sleep(0.7 + number * 0.013)
            slot = await limiter.reserve(URGENT)
            waits.append(slot.delay)
            await make.clock.sleep(slot.delay)

    end = make.clock.monotonic() + 40.0
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(bulk)
        tasks.start_soon(urgent)
    assert max(waits[1:]) < 2 / 14  # the first one comes in the first second, in which nothing goes


async def test_a_reserve_that_waits_for_its_turn_can_be_left_for_an_urgent_one(make):
    """Nothing is taken by it, and its place is kept."""
    limiter = make(1.0)
    await use(limiter)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(limiter.reserve, BULK)
            await make.clock.sleep(0.1)
            scope.cancel()
    slot = await limiter.reserve(URGENT)
    assert slot.delay == pytest.approx(0.9, abs=1e-6)
    assert (await limiter.reserve(BULK)).delay <= 1.0


# --- time and memory -------------------------------------------------------------------------------------------------


async def test_nothing_goes_in_the_first_second(make):
    """What was granted in the second before is not known."""
    assert (await make().reserve(URGENT)).delay == pytest.approx(1.0)


async def test_a_server_that_lost_its_memory_grants_nothing_for_a_second(make, client):
    """Once, not again for each of those who find out."""
    limiter, other = make(), make()
    for who in (limiter, other):
        await use(who, URGENT)
    client.redis.flushall()
    before = make.clock.monotonic()
    assert await use(limiter, URGENT) - before == pytest.approx(1.0)
    assert (await other.reserve(URGENT)).delay <= 0.02 + 1e-6


async def test_a_server_that_remembers_an_older_state_has_lost_some(make, client):
    """It was restored from a file: the serial of the grants tells."""
    limiter = make()
    await use(limiter, URGENT)
    key = limiter._link._keys[0]
    saved = client.redis.dump(key)
    for _ in range(3):
        await use(limiter, URGENT)
    client.redis.restore(key, 0, saved, replace=True)
    assert (await limiter.reserve(URGENT)).delay == pytest.approx(1.0)


async def test_a_script_that_was_flushed_is_loaded_again(make, client):
    """Valkey and Redis forget scripts when they are restarted."""
    limiter = make()
    await use(limiter)
    client.redis.script_flush()
    await use(limiter)


async def test_a_clock_that_jumps_back_neither_stalls_nor_bursts(make):
    """The other limiter's clock is an hour behind."""
    ahead, behind = make(), make(clock=FakeClock(start=1_000.0 - 3_600.0))
    for _ in range(3):
        await use(ahead, URGENT)
    delays = [(await behind.reserve(URGENT)).delay for _ in range(3)]
    assert delays == pytest.approx([0.04, 0.06, 0.08], abs=1e-6)  # the last question was one slot ago


async def test_the_keys_are_on_one_node_of_a_cluster_and_expire(make, client):
    """All of them have the name in braces, and 26 hours to live."""
    limiter = make()
    limiter.learn_from(Source(Account(50, 1_000, 3)))
    await use(limiter)
    keys = [key.decode() for key in client.redis.keys(f"*{make.name}*")]
    assert keys
    assert all(key in {f"tanksend:{{{make.name}}}:{end}" for end in KEYS} for key in keys)
    assert all(93_500 < client.redis.ttl(key) <= 93_600 for key in keys)


# --- leases ----------------------------------------------------------------------------------------------------------


async def test_above_200_a_second_20_ms_are_leased_at_once(make, client):
    """Ten recipients for one round trip, each at its own moment; what was not sent is not counted."""
    limiter = make(500.0)
    moments = [await use(limiter) for _ in range(100)]
    assert all(later - earlier >= 0.002 - 1e-6 for earlier, later in itertools.pairwise(moments))
    assert moments[-1] - moments[0] == pytest.approx(99 * 0.002, abs=0.004)
    assert client.trips <= 12
    await use(limiter)
    await make.clock.sleep(1.0)
    await use(limiter, attrs.evolve(URGENT, recipients=30, at_least=30))
    assert limiter.figures.spent == 131


async def test_a_leased_slot_is_given_back_to_the_day(make):
    """Its time lapses; what does not count for the day is not counted."""
    limiter = make(500.0)
    await limiter.reserve(BULK)
    slot = await limiter.reserve(Demand(2, 2))
    await limiter.reserve(Demand(1, 1, uncounted=1))
    await limiter.release(slot)
    await limiter.release(slot)
    await make.clock.sleep(1.0)
    await limiter.reserve(Demand(20, 20))
    assert limiter.figures.spent == 21


async def test_what_is_without_limit_is_not_paced(make):
    """A hundred at once, after the first second."""
    limiter = make(math.inf)
    await use(limiter)
    before = make.clock.monotonic()
    for _ in range(100):
        assert await use(limiter) == before


# --- slots given back ------------------------------------------------------------------------------------------------


async def test_a_slot_that_was_given_back_is_no_longer_counted(make):
    """In part, too: for certain are only those that surely counted."""
    limiter = make()
    slot = await limiter.reserve(Demand(10, 10, uncounted=4))
    await limiter.release(attrs.evolve(slot, recipients=5))
    await use(limiter, URGENT)
    assert limiter.figures.spent == 6
    await limiter.release(Slot(0.0, 1, "foreign"))
    assert Grant(5, 3).give_back(5) == (5, 3)


async def test_an_answer_that_comes_after_its_asker_has_gone_is_given_back(server, client):
    """On the real clock: the question hangs in its thread while its task is cancelled."""
    limiter = RedisLimiter(client, uuid.uuid4().hex, 0.001, headroom=1.0)
    await limiter._tell("claim", "")
    hangs, goes, done = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        client.before = lambda: None
        hangs.set()
        goes.wait(60)
        client.after = give_back

    def give_back() -> None:
        client.after = done.set

    client.before = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.reserve, URGENT)
        await anyio.to_thread.run_sync(hangs.wait)
        tasks.cancel_scope.cancel()
    goes.set()
    assert await anyio.to_thread.run_sync(done.wait, 60)
    client.after = lambda: None
    assert (await limiter.reserve(URGENT)).delay <= 1.0
    assert limiter.figures.spent == 1


async def test_an_answer_that_came_just_before_its_asker_went_is_given_back(make):
    """The thread had ended, and the task was cancelled before it could look."""
    from tanksend.limiters._redis_link import _Errand

    undone: list[Answer] = []
    answer = Answer(["slot", "0", "1", *["0"] * 5, "0", ""], 0.0)
    errand = _Errand(lambda: answer, undone.append)
    errand.run()
    await errand.abandon()
    assert undone == [answer]
    refused = _Errand(lambda: answer, lambda _: _raise(Unreachable("gone")))
    refused.run()
    await refused.abandon()
    quiet = _Errand(lambda: answer, None)
    quiet.run()
    await quiet.abandon()


def _raise(error: Exception) -> None:
    raise error


# --- without a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def mortal(server: RedisServer) -> Iterator[RedisServer]:
    """A server that may be killed."""
    with RedisServer(server._program) as own:
        yield own


async def test_it_holds_out_for_the_server(mortal, caplog):
    """A reserve waits while the server is away, and one second more, for its memory is lost."""
    clock = FakeClock()
    client = Client(mortal)
    limiter = RedisLimiter(client, "held", 50.0, clock=clock, server_time=False)
    await use(limiter)
    mortal.kill()

    async def come_back() -> None:
        await clock.sleep(3.0)
        mortal.start()

    began = clock.monotonic()
    with caplog.at_level(logging.INFO, "tanksend"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            moment = await use(limiter, URGENT)
    assert 4.0 <= moment - began <= 4.3
    assert [record.message.split("(")[0].strip() for record in caplog.records] == [
        "Redis cannot be reached",
        "Redis can be reached again",
    ]
    client.redis.close()


async def test_it_goes_on_with_its_share(mortal):
    """A quarter of the rate without the server; what was sent so is counted as soon as it is back."""
    clock = FakeClock()
    client = Client(mortal)
    limiter = RedisLimiter(client, "shared", 40.0, headroom=1.0, when_unreachable=0.25, clock=clock, server_time=False)
    await use(limiter)
    mortal.kill()
    moments = [await use(limiter) for _ in range(21)]
    assert moments[-1] - moments[0] == pytest.approx(2.0)
    slot = await limiter.reserve(Demand(5, 5))
    await limiter.release(slot)
    before = clock.monotonic()
    await limiter.feedback(Signal(1, ThrottlingError()))
    await limiter.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await use(limiter) - before > 5.0
    mortal.start()
    await clock.sleep(10.0)
    assert await use(limiter, URGENT) >= before
    assert limiter.figures.spent == 23  # the first one was in the memory that was lost
    slot = await limiter.reserve(URGENT)
    assert slot.delay <= 1 / 40 + 1e-6
    client.redis.close()


async def test_a_question_without_an_answer_counts_as_granted(make, client):
    """It may have been heard: the next slot comes after the one that got lost."""
    import redis

    limiter = make(1.0)
    await use(limiter, URGENT)

    def lose() -> None:
        client.after = lambda: None
        raise redis.exceptions.TimeoutError

    client.after = lose
    before = make.clock.monotonic()
    assert await use(limiter, URGENT) - before == pytest.approx(2.0, abs=0.01)
    assert limiter.figures.spent == 3


@pytest.mark.parametrize(
    ("text", "passes"), [("LOADING it", True), ("-READONLY you", True), ("NOPERM no", False), ("ERR what", False)]
)
async def test_errors_of_the_server_pass_or_do_not(make, client, text, passes):
    """A replica or a server that loads will do better; wrong rights will not, and feedback says so without raising."""
    import redis

    limiter = make()
    error = redis.exceptions.NoPermissionError(text) if text[:6] == "NOPERM" else redis.exceptions.ResponseError(text)
    times = iter(range(2))

    def fail() -> None:
        if passes and next(times, None) is None:
            return
        raise error

    client.before = fail
    if passes:
        assert (await limiter.reserve(URGENT)).recipients == 1
        return
    with pytest.raises(PartError, match="refuses") as raised:
        await limiter.reserve(URGENT)
    assert raised.value.part == "limiter"
    await limiter.feedback(Signal(1, ThrottlingError()))


# --- what SES says ---------------------------------------------------------------------------------------------------


async def test_the_account_is_asked_once_for_all(make):
    """Rate and quota are known to everybody, also to those who cannot ask, and are read again after 15 minutes."""
    source = Source(Account(20, 1_000, 400, production_access=False), Account(40, 2_000, 500))
    limiter, other = make(None), make(None)
    for who in (limiter, other):
        who.learn_from(source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, limiter)
        tasks.start_soon(use, other)
    assert source.calls == 1
    figures = other.figures
    assert (figures.granted_rate, figures.rate, figures.daily_quota, figures.source) == (20, 20, 1_000, "GetAccount")
    assert figures.production_access is False
    assert figures.enforcement_status == "HEALTHY"
    assert figures.spent in (401, 402)
    deaf = make(None, fallback_rate=1.0)
    await use(deaf, URGENT)
    assert deaf.figures.granted_rate == 20
    await make.clock.sleep(900.0)
    await use(limiter)
    await limiter.feedback(Signal(1))
    assert source.calls == 2
    await use(other)
    await other.feedback(Signal(1))
    assert (source.calls, other.figures.granted_rate) == (2, 40)


async def test_the_first_reading_is_waited_for_and_given_up(make):
    """Who asks may be gone: after ten seconds somebody else does."""
    limiter = make(None)
    limiter.learn_from(Source(Account(20, -1, 0)))
    await limiter._tell("claim", "")
    before = make.clock.monotonic()
    await use(limiter)
    assert 10.0 <= make.clock.monotonic() - before < 11.2
    assert limiter.figures.daily_quota == math.inf


async def test_a_denial_is_remembered_for_all(make, caplog):
    """One call, one warning that names the action, and the fallback."""
    source = Source(AccessDeniedError())
    for _ in range(2):
        limiter = make(None, fallback_rate=10.0)
        limiter.learn_from(source)
        for _ in range(3):
            await use(limiter)
            await limiter.feedback(Signal(1))
        await make.clock.sleep(2_000.0)
    assert source.calls == 1
    assert (limiter.figures.granted_rate, limiter.figures.source) == (10.0, "fallback")
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert "ses:GetAccount" in warnings[0]


async def test_a_reading_that_failed_is_tried_again(make):
    """After a minute; until then it goes at the fallback."""
    source = Source(ConnectionFailedError(), Account(30, -1, 0))
    limiter = make(None, fallback_rate=10.0)
    limiter.learn_from(source)
    limiter.learn_from(Source(AccessDeniedError()))
    await use(limiter)
    assert limiter.figures.granted_rate == 10.0
    await make.clock.sleep(60.0)
    await use(limiter)
    await limiter.feedback(Signal(1))
    await use(limiter)
    assert (source.calls, limiter.figures.granted_rate) == (2, 30.0)


async def test_throttles_slow_everybody_down(make):
    """Two refusals at full pace mean a neighbour; a pause means stop."""
    limiter, other = make(), make()
    await use(limiter)
    for _ in range(2):
        await limiter.feedback(Signal(1, ThrottlingError()))
        await make.clock.sleep(0.5)
    await use(other)
    assert other.figures.rate < 50.0
    assert other.figures.throttles == 2
    before = make.clock.monotonic()
    await other.feedback(Signal(1, ThrottlingError(pause=True)))
    assert await use(limiter) - before == pytest.approx(5.0, abs=0.1)


async def test_the_day_is_held_by_all_together(make):
    """600 of 1,000 are free: all of them go, and no more; bulk leaves what is reserved."""
    source = Source(Account(200, 1_000, 400))
    limiters = [make(None, reserve_for_transactional=100) for _ in range(2)]
    for limiter in limiters:
        limiter.learn_from(source)
    for number in range(500):
        await use(limiters[number % 2])
    with pytest.raises(DailyQuotaExceededError) as raised:
        await limiters[0].reserve(BULK)
    resume_at = raised.value.resume_at
    assert resume_at is not None
    assert 86_000 < resume_at - make.clock.wall() <= 86_460
    assert (await limiters[0].reserve(attrs.evolve(URGENT, recipients=100, at_least=100))).recipients == 100
    with pytest.raises(DailyQuotaExceededError):
        await limiters[1].reserve(URGENT)
    await use(limiters[1], Demand(1, 1, Priority.TRANSACTIONAL, uncounted=1))


async def test_it_can_wait_for_the_day(make):
    """Until there is room again."""
    limiter = make(None, when_quota_spent="wait")
    limiter.learn_from(Source(Account(50, 10, 0)))
    await use(limiter, Demand(10, 10))
    before = make.clock.monotonic()
    for _ in range(10):
        await limiter.feedback(Signal(1))
    assert 86_300 < await use(limiter) - before < 86_600


async def test_what_ses_says_of_its_quota_stands(make):
    """With an unknown quota, for 15 minutes; a demand that will never fit has no moment."""
    limiter = make()
    await use(limiter)
    await limiter.feedback(Signal(1, DailyQuotaExceededError()))
    with pytest.raises(DailyQuotaExceededError) as raised:
        await limiter.reserve(URGENT)
    assert raised.value.resume_at == pytest.approx(make.clock.wall() + 900.0)
    small = RedisLimiter(limiter._link._given, make.name + "-small", clock=make.clock, server_time=False)
    small.learn_from(Source(Account(50, 10, 0)))
    with pytest.raises(DailyQuotaExceededError) as raised:
        await small.reserve(Demand(20, 20))
    assert raised.value.resume_at is None


async def test_outcomes_are_told_with_the_next_question(make, client):
    """Taken, perhaps taken and not taken; and no round trip for any of them."""
    limiter = make()
    await use(limiter, Demand(10, 10))
    trips = client.trips
    await limiter.feedback(Signal(4))
    await limiter.feedback(Signal(3, OutcomeUnknownError()))
    await limiter.feedback(Signal(3, ConnectionFailedError()))
    assert client.trips == trips
    await use(limiter, URGENT)
    assert limiter.figures.spent == 8


# --- processes, settings ---------------------------------------------------------------------------------------------


async def test_a_sender_paces_by_it(server):
    """On the real clock, over worker threads, with a client of its own."""
    limiter = RedisLimiter(server.url, uuid.uuid4().hex, 400.0)
    async with Sender(from_="a@example.com", transport=RecordingTransport(), limiter=limiter) as sender:
        report = await sender.send_all([Message(f"user{index}@example.com", "Hi", "Hello") for index in range(20)])
    assert report.ok
    assert limiter.figures.spent >= 20
    limiter.close()
    await limiter.reserve(URGENT)
    limiter.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_connection(server):
    """And none of its parent's slots; both go on."""
    script = textwrap.dedent("""
        import os, sys
        import anyio
        from tanksend.limiters import RedisLimiter
        from tanksend.typing import Demand, Signal

        async def use():
            slot = await limiter.reserve(Demand(1, 1))
            return slot

        limiter = RedisLimiter(sys.argv[1], sys.argv[2], 500.0)
        slot = anyio.run(use)
        child = os.fork()
        if child == 0:
            anyio.run(limiter.feedback, Signal(1))
            anyio.run(limiter.release, slot)
            anyio.run(use)
            os._exit(0)
        anyio.run(use)
        assert os.waitpid(child, 0)[1] == 0
        print(limiter._link._own.connection_pool.pid == os.getpid())
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, server.url, uuid.uuid4().hex],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_repr_says_how_fast(make):
    """And nothing of where."""
    assert repr(make()) == "<RedisLimiter rate=50 of 50 (setting)>"
    assert repr(make(None)) == "<RedisLimiter rate=14 of 14 (fallback)>"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a{b}"},
        {"rate": 0.0},
        {"fallback_rate": -1.0},
        {"headroom": 0.0},
        {"headroom": 1.1},
        {"when_quota_spent": "stop"},
        {"reserve_for_transactional": -1},
        {"when_unreachable": "stop"},
        {"when_unreachable": 0.0},
        {"when_unreachable": 1.5},
        {"url_or_client": "http://127.0.0.1"},
    ],
)
def test_settings_out_of_range_are_refused(needs, wrong):
    """At once, and by name."""
    needs("redis")
    with pytest.raises(SettingError):
        RedisLimiter(**({"url_or_client": "redis://127.0.0.1:1", "name": "x"} | wrong))


def test_without_redis_py_it_says_what_to_install(monkeypatch):
    """The extra is optional."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingError, match=r"tanksend\[redis\]"):
        RedisLimiter("redis://127.0.0.1:1", "x")


def test_the_package_has_no_other_limiters():
    """Only what is named is loaded by name."""
    import tanksend.limiters

    with pytest.raises(AttributeError, match="NoSuchLimiter"):
        _ = tanksend.limiters.NoSuchLimiter


# --- the small machines ----------------------------------------------------------------------------------------------


def test_a_lease_lapses_piece_by_piece():
    """A moment that is missed by less than an interval can still be used."""
    lease = Lease(10.0, 5, 0.01, until=10.07)
    lease.lapse(10.009)
    assert (lease.left, lease.due) == (5, 10.0)
    lease.lapse(10.025)
    assert (lease.left, lease.due) == (3, pytest.approx(10.02))
    lease.take(URGENT)
    lease.lapse(10.2)
    assert (lease.left, lease.end()) == (0, 4)


def test_the_line_forgets_old_places():
    """The first turn is the next; giving up clears it."""
    line = Line()
    for turn in (3.0, 1.0, 2.0):
        line.put(Place(turn, f"place {turn:g}"))
    assert line.take(2.05) == Place(2.0, "place 2")
    assert line.leave(2.05) == "place 3"
    assert line.leave(2.05) == ""
    assert line.take(0.0) is None


def test_outcomes_that_may_have_been_heard_are_not_told_twice():
    """But what would be sent uncounted is."""
    outcomes = Outcomes(1, 2, 3, -4)
    told = outcomes.hand_over()
    assert (told, outcomes) == (Outcomes(1, 2, 3, -4), Outcomes())
    outcomes.take_back(told)
    assert outcomes == Outcomes(1, 0, 0, 0)
    outcomes.take_back(Outcomes(beside=5))
    assert outcomes.beside == 5


def test_a_share_pays_for_what_was_refused():
    """Once more, or with a pause."""
    share = Share(1.0)
    assert share.grant(0.0, Demand(2, 2), 10.0)[0] == 1.0
    share.refused(0.0, 3, 10.0, 0.0)
    assert share.paid == pytest.approx(1.5)
    share.refused(5.0, 3, 10.0, 5.0)
    assert share.paid == pytest.approx(10.0)


def test_moments_are_never_early(make):
    """The clocks' difference is the smallest that can be true; a jump is believed."""
    link = make()._link
    clock = link._clock
    assert link._offset_of(clock.monotonic() - 0.5, 400.0) == 600.0
    assert link._offset_of(clock.monotonic() - 0.5, 400.4) == pytest.approx(599.6)
    assert link._offset_of(clock.monotonic() - 0.5, 400.2) == pytest.approx(599.6)
    assert link._offset_of(clock.monotonic() - 0.5, 100.0) == 900.0
    assert json.loads(make()._words(Account(1, 1, 0)))["sending_enabled"] is True
