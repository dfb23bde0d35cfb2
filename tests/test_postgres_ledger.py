"""`PostgresLedger`, on a real PostgreSQL that is killed, frozen and started again."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import functools
import gc
import itertools
import json
import logging
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

from postgres_server import PostgresServer, postgres, postgres_server  # noqa: F401
from tanksend import Status
from tanksend._messages import key_tag
from tanksend.exceptions import LedgerError, SettingError
from tanksend.ledgers import PostgresLedger, _postgres_link as link
from tanksend.ledgers._postgres_errors import code_of, passes
from tanksend.ledgers._postgres_rows import Errand, Rows, escaped, unescaped
from tanksend.ledgers._postgres_tables import _STEPS, Tables
from tanksend.testing import FakeClock, check_ledger
from tanksend.typing import Claim, LedgerEntry

pytestmark = pytest.mark.anyio

Make = Callable[..., PostgresLedger]
HARD = "nul\0 half\ud800 back\\u{41} ключ 😀"
SHORT = 0.3  # seconds of patience, where it is meant to end: for a server that is away, and for locks
LONG = 60.0
numbers = itertools.count()


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of these tests is always young, and dead is dead; who answers may take his time."""
    connect = link._connect
    monkeypatch.setattr(link, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(link, "_connect", lambda dsn, timeout: connect(dsn, max(timeout, LONG)))


@pytest.fixture
def table() -> str:
    """A table of the test's own."""
    return f"ledger_{next(numbers)}"


@pytest.fixture
def make(postgres: PostgresServer, table: str) -> Iterator[Make]:
    """Ledgers that share a table."""
    made: list[PostgresLedger] = []

    def make(dsn: str = postgres.dsn, **options: Any) -> PostgresLedger:
        made.append(PostgresLedger(dsn, **{"table": table, **options}))
        return made[-1]

    yield make
    for ledger in made:
        ledger.close()


@contextlib.contextmanager
def asking(postgres: PostgresServer, **options: Any) -> Iterator[Any]:
    """A connection of somebody else's."""
    import psycopg

    with psycopg.connect(postgres.dsn, autocommit=True, **options) as connection:
        yield connection


async def until_somebody_waits(postgres: PostgresServer) -> None:
    """For a lock that another session holds."""
    with asking(postgres) as connection:
        while connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            await anyio.sleep(0)


async def claim(ledger: PostgresLedger, *keys: str, **options: Any) -> list[Claim]:
    """The answers alone."""
    answers = await ledger.claim(keys, **options)
    return [answers[key] for key in keys]


def sent(*keys: str) -> list[LedgerEntry]:
    """What is recorded when they were sent."""
    return [LedgerEntry(key, Status.SENT, f"id-{len(key)}", at=5.0) for key in keys]


def event(key: str, kind: str = "Delivery") -> dict[str, Any]:
    """What SES says of a message."""
    tags = {name: [value] for name, value in key_tag(key).items()}
    return {"eventType": kind, "mail": {"messageId": f"id-{key[0]}", "tags": tags}}


def some(counts: Any) -> dict[str, int]:
    """Those that are not 0."""
    return {status.value if status else "claimed": number for status, number in counts.items() if number}


# --- the contract ----------------------------------------------------------------------------------------------------


async def test_it_keeps_the_contract(make: Make) -> None:
    """The checks that everybody's ledger may be held to, with leases that end."""
    clock = FakeClock(autojump=False)

    async def expire() -> None:
        clock.advance(61.0)

    await check_ledger(lambda: make(lease=dt.timedelta(minutes=1), clock=clock), expire=expire)


async def test_a_lease_ends_by_the_clock_of_the_server(make: Make) -> None:
    """Hosts whose clocks differ agree on it."""
    ledger, other = make(lease=0.000_1), make()
    assert [Claim.GRANTED] == await claim(ledger, "a")
    assert [Claim.UNKNOWN] == await claim(other, "a")
    assert {"unknown": 1} == some(await ledger.counts())


async def test_counts_settle_purge_and_export(make: Make, tmp_path: Any) -> None:
    """What an operator does with it."""
    ledger, target = make(), tmp_path / "fates.csv"
    await ledger.claim(["open", "sent", "lost", "gone", "=1+1", HARD])
    await ledger.record(
        [
            *sent("sent"),
            *(LedgerEntry(key, Status.UNKNOWN, at=5.0) for key in ("lost", "gone", "=1+1")),
            LedgerEntry(HARD, Status.FAILED, error_code="code\0", at=5.0),
        ]
    )
    assert {"claimed": 1, "sent": 1, "unknown": 3, "failed": 1} == some(await ledger.counts())
    assert {"open", "lost", "gone", "=1+1"} == {entry.key async for entry in ledger.pending()}

    assert await ledger.settle("lost", Status.SENT, message_id="id-9") is True
    assert await ledger.settle("gone", Status.HELD) is True
    assert [False] * 3 == [await ledger.settle(key, Status.SENT) for key in ("open", "sent", "nobody")]
    with pytest.raises(SettingError):
        await ledger.settle("lost", Status.UNKNOWN)
    assert "id-9" == (await ledger.lookup(["lost"]))["lost"].message_id
    assert "code\0" == (await ledger.lookup([HARD]))[HARD].error_code
    assert [Claim.GRANTED] == await claim(ledger, "gone")

    assert 6 == await ledger.to_csv(target)
    assert 0o600 == stat.S_IMODE(target.stat().st_mode)
    with target.open(encoding="utf-8", newline="") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert ("unknown", "") == (rows["'=1+1"]["status"], rows["'=1+1"]["message_id"])
    assert ("sent", "1970-01-01T00:00:05+00:00") == (rows["sent"]["status"], rows["sent"]["at"])

    assert 2 == await ledger.purge(dt.timedelta(days=1))
    assert {"claimed": 2, "sent": 1, "unknown": 1} == some(await ledger.counts())
    assert 1 == await ledger.purge(3600, unknown=True)
    assert {"open", "gone", "lost"} == set(await ledger.lookup(["open", "gone", "lost", "=1+1", HARD, "sent"]))


async def test_events_settle_what_is_unknown(make: Make) -> None:
    """SES says by the message's tag which key it has."""
    ledger = make()
    await ledger.claim(["a", "b", HARD])
    await ledger.record([LedgerEntry(HARD, Status.UNKNOWN)])

    events = [event(HARD), event("a"), event("a"), event("b", "Reject"), event("nobody"), {"eventType": "Send"}]
    assert 2 == await ledger.reconcile(events)
    found = await ledger.lookup(["a", "b", HARD])
    assert {"a": Status.SENT, "b": None, HARD: Status.SENT} == {key: entry.status for key, entry in found.items()}
    assert "id-n" == found[HARD].message_id


async def test_it_pages_through_many(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out or told twice between pages."""
    monkeypatch.setattr("tanksend.ledgers._postgres._ROWS_AT_ONCE", 3)
    monkeypatch.setattr("tanksend.ledgers._postgres_rows._LOOKED_AT_ONCE", 7)
    monkeypatch.setattr("tanksend.ledgers._postgres._PURGED_AT_ONCE", 4)
    ledger, keys = make(), [f"k{number}" for number in range(30)]
    await ledger.claim(keys)
    await ledger.record(sent(*keys[::2]))
    assert sorted(keys[1::2]) == sorted([entry.key async for entry in ledger.pending()])
    assert {"claimed": 15, "sent": 15} == some(await ledger.counts())
    assert 15 == await ledger.purge(1.0)
    assert {"claimed": 15} == some(await ledger.counts())


@given(st.text(), st.booleans())
def test_any_text_can_be_kept(text: str, foreign: bool) -> None:
    """Escaped text comes back as it was, and an old database can hold it."""
    kept = escaped(text, foreign=foreign)
    assert text == unescaped(kept)
    assert "\0" not in kept
    assert kept.isascii() or not foreign
    kept.encode()


async def test_keys_outside_the_alphabet_of_the_database(postgres: PostgresServer, make: Make) -> None:
    """Not every database holds all of Unicode."""
    with asking(postgres) as connection:
        connection.execute("CREATE DATABASE old_times ENCODING 'LATIN1' TEMPLATE template0")
    try:
        ledger = make(postgres.dsn.removesuffix("/postgres") + "/old_times")
        assert [Claim.GRANTED] * 2 == await claim(ledger, HARD, "é")
        assert {HARD, "é"} == {entry.key async for entry in ledger.pending()}
        await ledger.aclose()
    finally:
        with asking(postgres) as connection:
            connection.execute("DROP DATABASE old_times WITH (FORCE)")


# --- who lives -------------------------------------------------------------------------------------------------------


SCRIPT = """
import asyncio, os, sys
from tanksend import Status
from tanksend.ledgers import PostgresLedger
from tanksend.typing import Claim, LedgerEntry

async def main():
    ledger = PostgresLedger(os.environ["DSN"], table=os.environ["TABLE"])
{body}

asyncio.run(main())
"""


def script(postgres: PostgresServer, table: str, body: str) -> subprocess.Popen[str]:
    """A process with a ledger of its own."""
    text = SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    "))
    environment = {**os.environ, "DSN": postgres.dsn, "TABLE": table}
    return subprocess.Popen(
        [sys.executable, "-c", text], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


CLAIM_AND_WAIT = """
    await ledger.claim(["a", "b", "c"])
    print("claimed", flush=True)
    sys.stdin.readline()
"""


async def test_the_claims_of_a_process_that_was_killed_are_unknown(
    postgres: PostgresServer, table: str, make: Make
) -> None:
    """And they are open before, however long it takes; with `resend_unknown` they are granted anew."""
    ledger = make()
    with script(postgres, table, CLAIM_AND_WAIT) as process:
        assert process.stdout is not None
        assert "claimed\n" == process.stdout.readline()
        assert [Claim.ELSEWHERE] * 2 == await claim(ledger, "a", "b", resend_unknown=True)
        assert {"claimed": 3} == some(await ledger.counts())
        process.kill()
    await until_dead(ledger, "a")
    assert [Claim.UNKNOWN] == await claim(ledger, "a")
    assert {"unknown": 3} == some(await ledger.counts())
    assert {Status.UNKNOWN} == {entry.status async for entry in ledger.pending()}
    assert [Claim.GRANTED] == await claim(ledger, "b", resend_unknown=True)
    assert await ledger.settle("a", Status.FAILED) is True
    assert [Claim.GRANTED] == await claim(ledger, "a")


async def until_dead(ledger: PostgresLedger, key: str) -> None:
    """The server has noticed that the process has ended."""
    while (await ledger.lookup([key]))[key].status is None:
        await anyio.lowlevel.checkpoint()


async def test_a_ledger_that_was_closed_has_let_go(make: Make) -> None:
    """It may say later what it knows, and opens again for that."""
    async with make() as ledger:
        await ledger.claim(["a", "b"])
    other = make()
    assert [Claim.UNKNOWN] == await claim(other, "a")
    await ledger.record(sent("a"))
    assert [Claim.ALREADY_SENT, Claim.ELSEWHERE] == await claim(other, "a", "b")


async def test_a_ledger_that_is_gone_has_let_go(postgres: PostgresServer, table: str, make: Make) -> None:
    """Nobody closed it."""
    other, ledger = make(), PostgresLedger(postgres.dsn, table=table)
    await ledger.claim(["a"])
    del ledger
    gc.collect()
    await until_dead(other, "a")
    assert [Claim.UNKNOWN] == await claim(other, "a")


async def test_a_server_that_has_just_started_takes_nobody_for_dead(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who live have lost their sessions too, and have to come back first."""
    monkeypatch.setattr(link, "GRACE_SECONDS", 1e9)
    ledger, other = make(), make()
    await ledger.claim(["a"])
    await ledger.aclose()
    assert [Claim.ELSEWHERE] == await claim(other, "a", resend_unknown=True)


SHARE = """
    import random
    keys = [f"k{number}" for number in range(300)]
    random.shuffle(keys)
    mine = []
    async def take(key):
        answers = await ledger.claim([key])
        if answers[key] is Claim.GRANTED:
            mine.append(key)
            await ledger.record([LedgerEntry(key, Status.SENT, "id")])
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(0, 300, 30):
        await asyncio.gather(*(take(key) for key in keys[start:start + 30]))
    print(" ".join(mine), flush=True)
    await ledger.aclose()
"""


async def test_four_processes_share_what_there_is_to_send(postgres: PostgresServer, table: str, make: Make) -> None:
    """Each key goes to one of them, and nobody coordinates."""
    processes = [script(postgres, table, SHARE) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
        for process in processes:
            assert "ready\n" == process.stdout.readline()  # type: ignore[union-attr]
        for process in processes:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        taken = [key for process in processes for key in process.stdout.readline().split()]  # type: ignore[union-attr]
    assert [0] * 4 == [process.returncode for process in processes]
    assert sorted(f"k{number}" for number in range(300)) == sorted(taken)
    assert {"sent": 300} == some(await make().counts())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_both_go_on_after_a_fork(postgres: PostgresServer, table: str, make: Make) -> None:
    """The child claims for itself, and its parent's claims do not outlive the parent because a child does."""
    with script(postgres, table, FORK) as process:
        said = json.loads(process.stdout.readline())  # type: ignore[union-attr]
        assert ["elsewhere", "granted"] == said["child"]
        assert ["elsewhere", "granted", "granted"] == said["parent"]
        ledger = make()
        assert [Claim.ELSEWHERE] * 3 == await claim(ledger, "parent", "child", "more", resend_unknown=True)
        process.kill()
    try:
        await until_dead(ledger, "more")
        assert [Claim.UNKNOWN] * 3 == await claim(ledger, "parent", "child", "more")
    finally:
        os.kill(said["alive"], signal.SIGKILL)


FORK = """
    import json, threading
    await ledger.claim(["parent"])
    await ledger.lookup(["parent"])
    reading, writing = os.pipe()

    def child():
        async def work():
            answers = await ledger.claim(["parent", "child"])
            await ledger.record([LedgerEntry("child", Status.HELD)])
            os.write(writing, json.dumps(list(answers.values())).encode())
            await ledger.aclose()
        asyncio.events._set_running_loop(None)
        asyncio.new_event_loop().run_until_complete(work())
        os._exit(0)

    pid = os.fork()
    if not pid:
        child()
    os.waitpid(pid, 0)
    said = {"child": json.loads(os.read(reading, 1000))}
    said["parent"] = list((await ledger.claim(["parent", "child", "more"])).values())
    said["alive"] = os.fork()
    if not said["alive"]:
        threading.Event().wait()
    print(json.dumps(said), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_forked_process_takes_the_errand_of_another_for_its_own() -> None:
    """Two that are forked from one would else each find its own mark on the other's claims, and both send."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 3.12 on Python warns of forks beside threads
        child = os.fork()
    if not child:
        os.write(writing, str(Errand(len, ()).mark).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert str(Errand(len, ()).mark) != os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)


async def test_a_process_that_was_forked_unseen_is_told_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads are missing, so it would wait for ever."""
    ledger = make()
    await ledger.claim(["a"])
    monkeypatch.setattr(link, "was_forked_unseen", lambda: True)
    for call in (ledger.lookup, ledger.claim):
        with pytest.raises(LedgerError, match="forked past Python"):
            await call(["a"])


def test_threads_with_loops_of_their_own(make: Make) -> None:
    """One ledger, several event loops of both kinds."""
    ledger, granted = make(), list[str]()

    async def work() -> None:
        for number in range(20):
            answers = await ledger.claim([f"k{number}"])
            granted.extend(key for key, answer in answers.items() if answer is Claim.GRANTED)

    threads = [
        threading.Thread(target=anyio.run, args=(work,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio") * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(f"k{number}" for number in range(20)) == sorted(granted)


# --- a server that goes away -----------------------------------------------------------------------------------------


async def test_the_server_is_killed_and_started_again_meanwhile(postgres: PostgresServer, make: Make) -> None:
    """Calls wait for it; no key is granted twice, and no fate is lost."""
    ledger, other = make(), make()
    keys = [f"k{number}" for number in range(400)]
    granted: list[str] = []

    async def work(each: PostgresLedger, some: list[str]) -> None:
        for key in some:
            if [Claim.GRANTED] == await claim(each, key):
                granted.append(key)
                await each.record(sent(key))

    async with anyio.create_task_group() as tasks:
        for each in (ledger, other):
            for start in range(4):
                tasks.start_soon(work, each, keys[start::4])
        while len(granted) < 50:
            await anyio.lowlevel.checkpoint()
        await anyio.to_thread.run_sync(postgres.restart)
    assert sorted(keys) == sorted(granted)
    assert {"sent": 400} == some_of(await ledger.lookup(keys))


def some_of(found: Any) -> dict[str, int]:
    """How many of each fate."""
    fates = [entry.status.value if entry.status else "claimed" for entry in found.values()]
    return {fate: fates.count(fate) for fate in fates}


async def test_after_a_restart_it_is_known_to_live_again(postgres: PostgresServer, make: Make) -> None:
    """The same holder takes its lock anew, so its claims are its own."""
    ledger, other = make(), make()
    await ledger.claim(["a", "b"])
    await anyio.to_thread.run_sync(postgres.restart)
    assert [Claim.UNKNOWN] == await claim(other, "a")
    assert [Claim.GRANTED] == await claim(ledger, "c")
    assert [Claim.ELSEWHERE] * 2 == await claim(other, "a", "b", resend_unknown=True)
    await ledger.record(sent("a", "b"))
    assert [Claim.ALREADY_SENT] * 2 == await claim(other, "a", "b")


class Cut:
    """Loses the connection at a commit, *times* times: before it, or after it so that it was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, done: bool, times: float = 1) -> None:
        self.write, self.done, self.times = Rows._write, done, times
        cut = self.cut

        def write(rows: Rows, connection: Any, changes: Any) -> Any:
            return cut(rows, connection, changes)

        monkeypatch.setattr(Rows, "_write", write)

    def cut(self, rows: Rows, connection: Any, changes: Any) -> Any:
        import psycopg

        if self.times <= 0:
            return self.write(rows, connection, changes)
        self.times -= 1
        if self.done:
            self.write(rows, connection, changes)
        connection.close()
        raise psycopg.OperationalError("lost")


@pytest.mark.parametrize("done", [True, False])
async def test_a_commit_whose_answer_is_lost(make: Make, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Whether it was done is found out, and the answers are what they would have been."""
    ledger, other = make(), make()
    await ledger.claim(["lost", "late"])
    await ledger.record([LedgerEntry(key, Status.UNKNOWN) for key in ("lost", "late")])
    Cut(monkeypatch, done=done)
    assert [Claim.GRANTED, Claim.UNKNOWN] == await claim(ledger, "a", "lost")
    Cut(monkeypatch, done=done)
    assert [Claim.ELSEWHERE] == await claim(other, "a")
    Cut(monkeypatch, done=done)
    await ledger.record([LedgerEntry("a", Status.HELD), *sent("a")])
    assert [Claim.ALREADY_SENT] == await claim(other, "a")
    Cut(monkeypatch, done=done)
    assert [Claim.GRANTED] == await claim(ledger, "lost", resend_unknown=True)
    Cut(monkeypatch, done=done)
    assert await ledger.settle("late", Status.SENT) is True
    Cut(monkeypatch, done=done)
    assert 1 == await ledger.reconcile([event("lost")])


@pytest.mark.parametrize("done", [True, False])
async def test_who_got_an_error_may_ask_again(make: Make, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Nothing was sent for a claim that was not confirmed, so its key is granted; once."""
    ledger, other = make(timeout=SHORT), make()
    cut = Cut(monkeypatch, done=done, times=1e9)
    with pytest.raises(LedgerError) as caught:
        await claim(ledger, "a", "b")
    assert "unreachable" == caught.value.code
    cut.times = 0
    assert [Claim.UNKNOWN if done else Claim.GRANTED] == await claim(other, "b")
    assert [Claim.GRANTED] == await claim(ledger, "a")
    assert [Claim.ELSEWHERE] == await claim(ledger, "a")
    assert [Claim.ELSEWHERE] == await claim(other, "a")
    assert [Claim.GRANTED if done else Claim.ELSEWHERE] == await claim(ledger, "b")


async def test_a_server_that_does_not_come_back(
    postgres: PostgresServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that says what to do, no password anywhere, and nothing in the log."""
    caplog.set_level(logging.DEBUG)
    ledger = make(timeout=SHORT)
    await ledger.claim(["a"])
    await anyio.to_thread.run_sync(postgres.kill)
    try:
        for call in (ledger.lookup, ledger.claim):
            with pytest.raises(LedgerError, match="cannot be reached, or went away") as caught:
                await call(["a"])
            error = caught.value
            assert "unreachable" == error.code
            assert error.__cause__ is None
            assert str(postgres.port) in str(error)
            told = [str(error), repr(error), repr(ledger), caplog.text, str(pickle.loads(pickle.dumps(error)))]  # noqa: S301
            assert not [text for text in told if postgres.password in text or "told" in text.split()]
        assert [] == [record.getMessage() for record in caplog.records if record.name.startswith("psycopg")]
    finally:
        await anyio.to_thread.run_sync(postgres.start)
    assert [Claim.GRANTED] == await claim(ledger, "b")


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
async def test_a_server_that_is_frozen(postgres: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its connections and answers nothing."""
    ledger = make(timeout=SHORT)
    await ledger.claim(["a"])
    connection = ledger._desk._writing._connection
    assert connection is not None
    answer = functools.partial(link._answer, descriptor=connection.pgconn.socket, seconds=2 * SHORT)
    monkeypatch.setattr(connection, "wait", lambda gen, *_, **__: answer(gen))
    with asking(postgres) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tanksend'"
        pids = [pid for (pid,) in connection.execute(query)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LedgerError, match="cannot be reached, or went away"):
            await ledger.claim(["b"])
        assert [Claim.GRANTED] == await claim(ledger, "c")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


# --- what may be wrong with it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"dsn": "no such thing"},
        {"dsn": "postgresql://somebody:secret@[host/x"},
        {"table": "Upper"},
        {"table": "a b"},
        {"table": 'x"; DROP TABLE y; --'},
        {"table": "x" * 49},
        {"lease": 0},
        {"timeout": -1},
    ],
)
def test_settings_that_cannot_be_used(postgres: PostgresServer, options: dict[str, Any]) -> None:
    """They are refused at once, and no secret is repeated."""
    with pytest.raises(SettingError) as caught:
        PostgresLedger(**{"dsn": postgres.dsn, **options})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingError, match="tanksend\\[postgres\\]"):
        PostgresLedger("dbname=x")


async def test_a_table_in_a_schema(postgres: PostgresServer, make: Make, table: str) -> None:
    """Its name has a dot."""
    with asking(postgres) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS mail")
    assert [Claim.GRANTED] == await claim(make(table=f"mail.{table}"), "a")
    assert [Claim.ELSEWHERE] == await claim(make(table=f"mail.{table}"), "a")
    assert [Claim.GRANTED] == await claim(make(), "a")


async def test_many_who_come_first(make: Make) -> None:
    """The table is made once."""
    ledgers = [make() for _ in range(8)]
    answers: list[Claim] = []

    async def ask(ledger: PostgresLedger) -> None:
        answers.extend(await claim(ledger, "a"))

    async with anyio.create_task_group() as tasks:
        for ledger in ledgers:
            tasks.start_soon(ask, ledger)
    assert [Claim.ELSEWHERE] * 7 + [Claim.GRANTED] == sorted(answers)


async def test_who_comes_while_somebody_makes_the_table(postgres: PostgresServer, make: Make, table: str) -> None:
    """He may see half of it, waits, and finds it whole."""
    tables, answers = Tables(table), list[Claim]()

    async def ask() -> None:
        answers.extend(await claim(make(), "a"))

    with asking(postgres) as connection:
        connection.execute("SELECT pg_advisory_lock(%s::bigint)", (tables._turn,))
        for statement in _STEPS[0]:
            connection.execute(tables.statement(statement))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until_somebody_waits(postgres)
            connection.execute(f"CREATE TABLE {table}_about (version integer NOT NULL, identity bigint NOT NULL)")
            connection.execute(f"INSERT INTO {table}_about VALUES ({len(_STEPS)}, 1)")  # noqa: S608
            connection.execute("SELECT pg_advisory_unlock(%s::bigint)", (tables._turn,))
    assert [Claim.GRANTED] == answers


async def test_who_comes_while_somebody_makes_the_table_by_another_name(
    postgres: PostgresServer, make: Make, table: str
) -> None:
    """With its schema or without: they wait for locks that have nothing to do with each other."""
    tables, answers = Tables(f"public.{table}"), list[Claim]()

    async def ask() -> None:
        answers.extend(await claim(make(), "a"))

    with asking(postgres) as connection:
        connection.execute("BEGIN")
        tables._migrate(connection, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until_somebody_waits(postgres)
            connection.execute("COMMIT")
    assert [Claim.GRANTED] == answers


async def test_an_older_table_is_brought_up_to_date(
    postgres: PostgresServer, make: Make, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and what is in it stays."""
    old = make()
    await old.claim(["a"])
    more = (*_STEPS, ("ALTER TABLE {table} ADD COLUMN more text",))
    monkeypatch.setattr("tanksend.ledgers._postgres_tables._STEPS", more)
    for _ in range(2):
        assert [Claim.ELSEWHERE] == await claim(make(), "a")
    with asking(postgres) as connection:
        assert (2,) == connection.execute(f"SELECT version FROM {table}_about").fetchone()  # noqa: S608
        connection.execute(f"SELECT more FROM {table}")  # noqa: S608


@pytest.mark.parametrize(
    ("statement", "code", "text"),
    [
        ("UPDATE {table}_about SET version = 99", "newer", "newer version"),
        ("DROP TABLE {table}_about", "foreign", "another program"),
        ("ALTER TABLE {table}_about RENAME version TO other", "foreign", "another program"),
        ("DROP TABLE {table}; DROP TABLE {table}_about", "unreachable", "dropped, or replaced"),
        ("UPDATE {table}_about SET identity = 1", "unreachable", "dropped, or replaced"),
    ],
)
async def test_a_table_that_is_not_what_it_was(  # noqa: PLR0917
    postgres: PostgresServer, make: Make, table: str, statement: str, code: str, text: str
) -> None:
    """What is made anew in its place knows nothing, and would send mail twice."""
    ledger = make(timeout=SHORT)
    await ledger.claim(["a"])
    with asking(postgres) as connection:
        connection.execute(statement.format(table=table))
    await ledger.aclose()
    for call in (ledger.lookup, ledger.claim):
        with pytest.raises(LedgerError, match=text) as caught:
            await call(["a"])
        assert code == caught.value.code


async def test_a_table_that_is_dropped_in_use(postgres: PostgresServer, make: Make, table: str) -> None:
    """Nobody makes it anew."""
    ledger = make()
    await ledger.claim(["a"])
    with asking(postgres) as connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(LedgerError, match="dropped, or replaced"):
        await ledger.claim(["b"])


async def test_a_table_that_is_not_there(make: Make) -> None:
    """For who only wants to look."""
    with pytest.raises(LedgerError, match="is not there"):
        await make(create=False).counts()
    with pytest.raises(LedgerError, match="is not there") as caught:
        await make(table="no_such_schema.ledger").claim(["a"])
    assert "InvalidSchemaName (3F000)" == caught.value.cause_type


async def test_a_user_who_may_not_write(postgres: PostgresServer, make: Make, table: str) -> None:
    """He may look, if somebody lets him."""
    await make().claim(["a"])
    with asking(postgres) as connection:
        connection.execute(f"CREATE ROLE {table} LOGIN PASSWORD 'x'")
        connection.execute(f"GRANT SELECT ON {table}, {table}_about TO {table}")
    reader = make(f"host=127.0.0.1 port={postgres.port} dbname=postgres user={table} password=x")
    assert {"a"} == set(await reader.lookup(["a"]))
    with pytest.raises(LedgerError, match="cannot be written to") as caught:
        await reader.claim(["b"])
    assert ("read-only", "InsufficientPrivilege (42501)") == (caught.value.code, caught.value.cause_type)
    stranger = make(f"host=127.0.0.1 port={postgres.port} dbname=postgres user={table} password=wrong")
    with pytest.raises(LedgerError, match="refuses the connection") as caught:
        await stranger.claim(["b"])
    assert "unreachable" == caught.value.code


async def test_a_table_that_somebody_has_locked(postgres: PostgresServer, make: Make, table: str) -> None:
    """It is waited for, and not for ever; afterwards it works on the same session."""
    ledger, other = make(timeout=SHORT), make()
    await ledger.claim(["a"])
    with asking(postgres) as connection, connection.transaction():
        connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
        with pytest.raises(LedgerError, match="is locked by another program") as caught:
            await ledger.claim(["b"])
        assert "locked" == caught.value.code
        assert None is (await other.lookup(["a"]))["a"].status
    assert [Claim.GRANTED] == await claim(ledger, "b")


async def test_commits_wait_for_the_disk(postgres: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the database says by default; and no default makes groups see an old state of things."""
    seen: list[tuple[Any, ...]] = []
    work = Rows._write

    def write(rows: Rows, connection: Any, changes: Any) -> Any:
        query = "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')"
        seen.append(connection.execute(query).fetchone())
        return work(rows, connection, changes)

    monkeypatch.setattr(Rows, "_write", write)
    with asking(postgres) as connection:
        connection.execute("ALTER DATABASE postgres SET synchronous_commit = off")
        connection.execute("ALTER DATABASE postgres SET default_transaction_isolation = serializable")
        try:
            await make().claim(["a"])
        finally:
            connection.execute("ALTER DATABASE postgres RESET ALL")
    assert [("on", "read committed")] == seen


def test_what_its_errors_mean(needs: Callable[..., None]) -> None:
    """By their codes, whatever the language of their texts."""
    needs("psycopg")
    from psycopg import Error, InterfaceError, OperationalError, errors

    codes = {
        errors.DiskFull: "full",
        errors.DataCorrupted: "damaged",
        errors.ReadOnlySqlTransaction: "read-only",
        errors.SyntaxError: "unreachable",
    }
    assert codes == {kind: code_of(kind()) for kind in codes}
    passing: list[Error] = [
        errors.AdminShutdown(),
        errors.ConnectionFailure(),
        errors.DeadlockDetected(),
        InterfaceError("the connection is closed"),
        OperationalError("FATAL:  the database system is starting up"),
        OperationalError("FATAL:  sorry, too many clients already"),
        OperationalError("connection refused"),
    ]
    lasting: list[Error] = [errors.DiskFull(), OperationalError("FATAL:  role does not exist"), Error("what?")]
    assert [True] * len(passing) == [passes(error) for error in passing]
    assert [False] * len(lasting) == [passes(error) for error in lasting]


async def test_without_a_client_library_that_can_send_ahead(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is slower, and the same."""
    import psycopg

    monkeypatch.setattr(psycopg.Pipeline, "is_supported", staticmethod(lambda: False))
    ledger = make()
    assert [Claim.GRANTED] == await claim(ledger, "a")
    await ledger.record(sent("a"))
    assert [Claim.ALREADY_SENT] == await claim(ledger, "a")
