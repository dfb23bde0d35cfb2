from __future__ import annotations

import csv
import datetime as dt
import gc
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import anyio
import pytest

from tanksend import Status
from tanksend._forks import _watched
from tanksend._messages import key_tag
from tanksend.exceptions import LedgerError, SettingError
from tanksend.ledgers import SQLiteLedger, _sqlite as module
from tanksend.testing import FakeClock, check_ledger
from tanksend.typing import Claim, LedgerEntry

pytestmark = pytest.mark.anyio

GRANTED = Claim.GRANTED


@pytest.fixture
def path(tmp_path):
    """Where the ledger is, or will be."""
    return tmp_path / "ledger.db"


@pytest.fixture
def clock():
    """Time that the tests own."""
    return FakeClock(wall=1_000_000.0)


@pytest.fixture
async def opened(path, clock):
    """Opens ledgers of that file, and closes them."""
    found = []

    def make(**options):
        found.append(SQLiteLedger(path, **{"lease": 60.0, "clock": clock} | options))
        return found[-1]

    yield make
    for ledger in found:
        await ledger.aclose()


def run(script, *arguments, **options):
    """A process of its own that is started with *script*."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def integrity(path):
    """What SQLite itself finds wrong with the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


# --- contract --------------------------------------------------------------------------------------------------------


async def test_it_keeps_its_contract(opened, clock):
    """The check that ships for everybody's ledgers, on one file that all of them open."""
    await check_ledger(opened, expire=lambda: clock.sleep(61.0))


async def test_it_survives(path, opened):
    """Another ledger of the same file, later, knows all of it; text of any kind comes back as it was."""
    keys = ["order-1", "ключ", "half a pair \ud800", "nul\0nul", "x" * 100_000]
    first = opened()
    await first.claim([*keys, "lost"])
    await first.record([LedgerEntry(key, Status.SENT, f"id-{number}") for number, key in enumerate(keys)])
    await first.aclose()
    second = opened()
    found = await second.lookup([*keys, "lost", "unknown"])
    assert dict.fromkeys(keys, Status.SENT) | {"lost": Status.UNKNOWN} == {k: e.status for k, e in found.items()}
    assert "id-2" == found[keys[2]].message_id
    assert ["lost"] == [entry.key async for entry in second.pending()]
    await second.claim(["half another \ud800"])
    assert ["lost", "half another \ud800"] == [entry.key async for entry in second.pending()]


async def test_only_this_user_may_read_it(opened, path):
    """All files that it has."""
    ledger = opened()
    await ledger.claim(["a"])
    files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert {0o600} == set(files.values())
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm"} < set(files)
    assert 4 == len(files)
    assert "<SQLiteLedger>" == repr(ledger)


async def test_it_opens_again_after_it_was_closed(path, clock):
    """And closing what was never used does nothing."""
    async with SQLiteLedger(path, clock=clock) as ledger:
        await ledger.aclose()
        assert {"a": GRANTED} == await ledger.claim(["a"])
    assert {"ledger.db"} == {file.name for file in path.parent.iterdir()}
    assert Status.UNKNOWN is (await SQLiteLedger(path, clock=clock).lookup(["a"]))["a"].status
    await ledger.record([LedgerEntry("a", Status.SENT)])
    assert Status.SENT is (await ledger.lookup(["a"]))["a"].status
    ledger.close()


async def test_who_opens_again_lives_again(opened):
    """What he claimed before he closed stays unknown, to himself, too; what he claims now is his."""
    ledger, other = opened(), opened()
    await ledger.claim(["before", "known"])
    await ledger.aclose()
    assert {"before": Claim.UNKNOWN} == await other.claim(["before"])
    await ledger.claim(["after"])
    for one in (ledger, other):
        assert {"before": Claim.UNKNOWN, "after": Claim.ELSEWHERE} == await one.claim(["before", "after"])
    assert {"after": Claim.ELSEWHERE} == await other.claim(["after"], resend_unknown=True)
    await ledger.record([LedgerEntry("known", Status.SENT)])
    assert Status.SENT is (await other.lookup(["known"]))["known"].status


async def test_what_is_asked_for_together_is_synced_together(opened):
    """Durability costs one sync for a group, and not one for each message."""
    ledger = opened()
    await ledger.claim(["first"])
    groups = []
    serve = ledger._file._writer._serve
    ledger._file._writer._serve = lambda jobs: (groups.append(len(jobs)), serve(jobs))

    async def one(number):
        await ledger.claim([f"key-{number}"])
        await ledger.record([LedgerEntry(f"key-{number}", Status.SENT, "m")])

    async with anyio.create_task_group() as tasks:
        for number in range(300):
            tasks.start_soon(one, number)
    assert 600 == sum(groups)
    assert len(groups) < 100
    assert 300 == (await ledger.counts())[Status.SENT]


async def test_claims_and_fates_of_one_group_see_each_other(opened):
    """In the order in which they were asked for."""
    ledger, answers = opened(), {}
    await ledger.claim(["warm"])

    async def ask(name):
        answers[name] = await ledger.claim(["a", "b"])

    with closing(sqlite3.connect(ledger._file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            fates = [LedgerEntry("a", Status.SENT), LedgerEntry("b", Status.HELD)]
            for use in ((ask, "before"), (ledger.record, fates), (ask, "after")):
                tasks.start_soon(*use)
                await anyio.wait_all_tasks_blocked()
            other.execute("ROLLBACK")
    assert {"a": GRANTED, "b": GRANTED} == answers["before"]
    assert {"a": Claim.ALREADY_SENT, "b": GRANTED} == answers["after"]


async def test_a_key_that_is_forgotten_and_claimed_in_one_group_is_kept(opened):
    """The row that was there is gone: there has to be another one."""
    ledger, answers = opened(), {}
    await ledger.record([LedgerEntry("a", Status.SENT, at=1.0)])

    async def ask(name):
        answers[name] = await ledger.claim(["a"])  # who is woken first is chance

    async def forget():
        """A purge that has looked how far it has to go."""
        await ledger._file.write(lambda book: module._purge(book, places=(0, 9), before=2.0, now=2.0, unknown=False))

    with closing(sqlite3.connect(ledger._file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            for use in ((ask, "before"), (forget,), (ask, "after")):
                tasks.start_soon(*use)
                await anyio.wait_all_tasks_blocked()
            other.execute("ROLLBACK")
    assert {"before": {"a": Claim.ALREADY_SENT}, "after": {"a": GRANTED}} == answers
    assert {"a": Claim.ELSEWHERE} == await opened().claim(["a"])


@pytest.mark.parametrize("asks", ["lookup", "claim", "record", "counts", "settle", "aclose"])
async def test_fates_that_could_not_be_written_are_written_later(opened, path, asks):
    """Nobody else knows them: with the file writable again, the same ledger says them with whatever it does next."""
    ledger = opened(lock_timeout=0.05)
    await ledger.claim(["a", "b"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError):
            await ledger.record([LedgerEntry("a", Status.SENT)])
        with pytest.raises(LedgerError):
            await ledger.record_and_claim([LedgerEntry("b", Status.HELD)], ["c"])
        other.execute("ROLLBACK")
    arguments = {
        "record": [[LedgerEntry("d", Status.FAILED)]],
        "settle": ["d", Status.SENT],
        "counts": [],
        "aclose": [],
    }
    await getattr(ledger, asks)(*arguments.get(asks, [["d"]]))
    found = await opened().lookup(["a", "b", "c"])
    assert {"a": Status.SENT, "b": Status.HELD} == {key: entry.status for key, entry in found.items()}


async def test_fates_outlast_a_closing_that_could_not_write_them(opened, path):
    """The ledger that knows them is there still."""
    ledger = opened(lock_timeout=0.05)
    await ledger.claim(["a"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError):
            await ledger.record([LedgerEntry("a", Status.SENT)])
        await ledger.aclose()
        other.execute("ROLLBACK")
    assert Status.UNKNOWN is (await opened().lookup(["a"]))["a"].status
    ledger.close()
    assert Status.SENT is (await opened().lookup(["a"]))["a"].status


async def test_whatever_ses_calls_it_is_kept(opened):
    """JSON can say half a surrogate pair; that is no reason to lose the fates of a whole group."""
    ledger, odd = opened(), "\ud800"
    await ledger.record([LedgerEntry("a", Status.SENT, odd), LedgerEntry("b", Status.FAILED, error_code=odd)])
    found = await ledger.lookup(["a", "b"])
    assert (odd, odd) == (found["a"].message_id, found["b"].error_code)
    await ledger.claim(["b"])
    await ledger.record([LedgerEntry("b", Status.UNKNOWN, error_code=odd)])
    assert [odd] == [entry.error_code async for entry in ledger.pending()]


async def test_a_mistake_of_one_does_not_touch_the_others(opened, monkeypatch):
    """Each piece of work in a group is its own."""
    ledger = opened()
    failed = []

    async def fail():
        def work(book):
            raise LookupError("a mistake")

        with pytest.raises(LookupError):
            await ledger._file.write(work)
        failed.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.claim, ["a"])
        tasks.start_soon(fail)
        tasks.start_soon(ledger.claim, ["b"])
    assert [True] == failed
    assert {"a", "b"} == set(await ledger.lookup(["a", "b"]))


async def test_a_cancelled_claim_is_made(opened):
    """Whoever asked has it, and the next request is served."""
    ledger = opened()
    await ledger.claim(["warm"])
    with closing(sqlite3.connect(ledger._file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ledger.claim, ["a"])
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        other.execute("ROLLBACK")
    assert {"a": Claim.ELSEWHERE, "b": GRANTED} == await ledger.claim(["a", "b"])


def test_it_serves_several_loops_and_threads_at_once(path):
    """Each key goes to one of them."""
    ledger, granted = SQLiteLedger(path), []

    async def take():
        for start in range(0, 60, 3):
            answers = await ledger.claim([f"key-{number}" for number in range(start, start + 3)])
            granted.extend(key for key, answer in answers.items() if answer is GRANTED)

    threads = [threading.Thread(target=anyio.run, args=(take,), kwargs={"backend": b}) for b in ("asyncio", "trio") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert sorted(f"key-{number}" for number in range(60)) == sorted(granted)


async def test_the_log_does_not_grow_for_ever(opened, path, monkeypatch):
    """It is copied into the file beside the writer, and begins anew."""
    monkeypatch.setattr("tanksend._sqlite._CHECKPOINT_PAGES", 100)
    ledger, sizes = opened(), []
    for turn in range(40):
        keys = [f"key-{turn}-{number}" for number in range(50)]
        await ledger.claim(keys)
        await ledger.record([LedgerEntry(key, Status.SENT, "m" * 60) for key in keys])
        await ledger._file._tidier.ask(lambda _: None)
        sizes.append(path.with_name("ledger.db-wal").stat().st_size)
    assert max(sizes) < 150_000 < path.stat().st_size


async def test_threads_and_files_go_when_the_ledger_does(path, clock):
    """Nobody has to close it."""
    ledger = SQLiteLedger(path, clock=clock)
    await ledger.claim(["a"])
    await ledger.lookup(["a"])
    threads = [ledger._file._writer._thread, ledger._file._reader._thread]
    watched = len(_watched)
    del ledger
    gc.collect()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    del thread, threads
    gc.collect()
    assert len(_watched) < watched
    assert [] == list(path.parent.glob("*-holder-*"))


# --- other processes -------------------------------------------------------------------------------------------------

HOLD = """
import sys, anyio
from tanksend.ledgers import SQLiteLedger
async def main():
    ledger = SQLiteLedger(sys.argv[1])
    print(len(await ledger.claim(sys.argv[2:])), flush=True)
    sys.stdin.read()
anyio.run(main)
"""


async def test_a_claim_ends_with_its_process(opened, path):
    """Elsewhere while it lives; unknown as soon as it is killed, long before its lease ends."""
    ledger = opened(clock=None)
    with run(HOLD, path, "a", "b") as process:
        assert "2\n" == process.stdout.readline()
        assert {"a": Claim.ELSEWHERE, "c": GRANTED} == await ledger.claim(["a", "c"], resend_unknown=True)
        assert None is (await ledger.lookup(["a"]))["a"].status
        assert 3 == (await ledger.counts())[None]
        process.kill()
        assert -signal.SIGKILL == process.wait(60)
    left = set(path.parent.glob("*-holder-*"))
    assert Status.UNKNOWN is (await ledger.lookup(["a"]))["a"].status
    assert {"a": Claim.UNKNOWN} == await ledger.claim(["a"])
    assert (1, 2) == ((await ledger.counts())[None], (await ledger.counts())[Status.UNKNOWN])
    assert {"b": GRANTED} == await ledger.claim(["b"], resend_unknown=True)
    assert {"d": GRANTED} == await opened(clock=None).claim(["d"])
    assert 1 == len(left - set(path.parent.glob("*-holder-*")))


CHILD = """
    begun, begin = os.pipe()
    if os.fork():
        os.read(begun, 1)
        os.kill(os.getpid(), 9)
    os.write(begin, b"x")
    sys.stdin.read()
"""


async def test_whoever_is_forked_keeps_nobody_alive(opened, path):
    """A child that was forked with an open ledger has the lock's file open, too; it lets go of it."""
    with run("import os" + HOLD.replace("    sys.stdin.read()\n", CHILD), path, "a") as process:
        assert "1\n" == process.stdout.readline()
        assert -signal.SIGKILL == process.wait(60)
        assert {"a": Claim.UNKNOWN} == await opened(clock=None).claim(["a"])


FORK = """
import os, random, sys, threading
import anyio
from tanksend import Status
from tanksend.ledgers import SQLiteLedger
from tanksend.suppression import SQLiteSuppressionStore
from tanksend.typing import LedgerEntry, Suppression

folder, turns = sys.argv[1], 12
ledger = SQLiteLedger(folder + "/ledger.db", lock_timeout=100.0)
store = SQLiteSuppressionStore(folder + "/store.db", lock_timeout=100.0)
stop = threading.Event()


async def busy(name):
    # Goes on while the others fork.
    number = 0
    while not stop.is_set():
        number += 1
        key = f"{name}-{number}"
        await ledger.claim([key])
        await store.add(Suppression(f"{key}@example.com"))
        await ledger.record([LedgerEntry(key, Status.SENT, "m")])
        assert (await ledger.lookup([key]))[key].status is Status.SENT


async def share(name, turn):
    # Shared keys in an order of one's own: each is granted to one.
    keys = [f"shared-{turn}-{number}" for number in range(20)]
    random.shuffle(keys)
    granted = []
    for key in keys:
        if (await ledger.claim([key]))[key] == "granted":
            granted.append(key)
            await ledger.record([LedgerEntry(key, Status.SENT, name)])
    await store.add(Suppression(f"{name}-{turn}@example.com"))
    assert len(await store.lookup([f"{name}-{turn}@example.com"])) == 1
    return granted


thread = threading.Thread(target=anyio.run, args=(busy, "busy"))
thread.start()
anyio.run(ledger.claim, ["the parent's"])
for turn in range(turns):
    child = os.fork()
    if not child:
        anyio.run(share, "child", turn)
        assert anyio.run(ledger.claim, ["the parent's"]) == {"the parent's": "elsewhere"}
        if turn % 2:
            ledger.close(), store.close()
        os._exit(0)
    anyio.run(share, "parent", turn)
    assert os.waitpid(child, 0)[1] == 0, turn
stop.set()
thread.join()
anyio.run(ledger.record, [LedgerEntry("the parent's", Status.SENT, "m")])
ledger.close(), store.close()
print("well")
"""


def test_parent_and_child_both_go_on_after_a_fork(tmp_path, needs):
    """While threads are busy with both files, again and again: every key goes to one, and the files are sound."""
    needs(hasattr(os, "fork"), "there is no fork here")
    with run(FORK, tmp_path) as process:
        assert "well\n" == process.communicate(timeout=170)[0]
    assert 0 == process.returncode
    assert [("ok",)] == integrity(tmp_path / "ledger.db") == integrity(tmp_path / "store.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        found = dict(connection.execute("SELECT status, count(*) FROM entry GROUP BY status"))
        shared = connection.execute("SELECT count(*) FROM entry WHERE key LIKE 'shared-%'").fetchone()
    assert [1] == list(found)
    assert (12 * 20,) == shared


async def test_a_fork_past_python_is_refused(opened, monkeypatch):
    """Nothing could be closed before it, so nothing here can be trusted."""
    ledger = opened()
    await ledger.claim(["a"])
    with monkeypatch.context() as patched:
        patched.setattr("tanksend._forks._process", -1)
        for use in (ledger.claim, ledger.lookup):
            with pytest.raises(LedgerError, match="forked past Python"):
                await use(["b"])
    assert {"b": GRANTED} == await ledger.claim(["b"])


async def test_where_files_cannot_be_locked_only_the_lease_tells(opened, clock, monkeypatch):
    """Windows has no flock, and some file systems have none either."""
    monkeypatch.setattr("tanksend.ledgers._holders.fcntl", None)
    first, second = opened(), opened()
    await first.claim(["a"])
    assert {"a": Claim.ELSEWHERE} == await second.claim(["a"])
    await clock.sleep(61.0)
    assert {"a": Claim.UNKNOWN} == await second.claim(["a"])


async def test_a_lock_that_cannot_be_made_is_an_error(opened, monkeypatch):
    """Nothing is claimed by somebody who would look dead."""

    def refuse(descriptor, operation):
        raise PermissionError(13, "no")

    ledger = opened()
    monkeypatch.setattr("tanksend.ledgers._holders.fcntl.flock", refuse)
    with pytest.raises(LedgerError, match="Let this user write to the file and to its folder"):
        await ledger.claim(["a"])
    monkeypatch.undo()
    assert {"a": GRANTED} == await ledger.claim(["a"])


# --- durability ------------------------------------------------------------------------------------------------------

DURABLE = """
import os, socket, sys
import anyio
from tanksend import Status, _sqlite
from tanksend.ledgers import SQLiteLedger
from tanksend.typing import LedgerEntry

_sqlite.SYNCHRONOUS = sys.argv[2]


async def main():
    ledger = SQLiteLedger(sys.argv[1])
    here, there = socket.socketpair()
    await ledger.claim(["first"])
    for number in range(20):
        os.write(1, b"claiming %d\\n" % number)
        await ledger.claim([f"key-{number}"])
        here.send(b"request %d" % number)
        await ledger.record([LedgerEntry(f"key-{number}", Status.SENT, "m")])
        os.write(1, b"recorded %d\\n" % number)
    os._exit(0)


anyio.run(main)
"""


def traced(path, synchronous):
    """What the script did, in order: ``claiming``, ``sync``, ``request``, ``recorded``."""
    command = ["strace", "-f", "-e", "trace=fdatasync,fsync,sendto,write", "-o", f"{path}.trace", sys.executable, "-c"]
    subprocess.run([*command, DURABLE, path, synchronous], check=True, timeout=120, stdout=subprocess.DEVNULL)
    trace = path.with_name(f"{path.name}.trace").read_text()
    # A call that another thread came between is shown twice; it counts when it has come back.
    called = re.findall(r'(f(?:data)?sync)(?: resumed>|\(\d+)\) += 0|"(claiming|request|recorded) \d', trace)
    return ["sync" if sync else word for sync, word in called]


def test_every_request_comes_after_a_sync_that_covers_its_claim(path, needs):
    """Seen from outside, in the calls that the process makes. Fates, too, are synced before they are told."""
    needs(bool(shutil.which("strace")), "strace is not installed")
    done = traced(path, "FULL")
    assert 20 == done.count("request") == done.count("recorded")
    for number, what in enumerate(done):
        if what in {"request", "recorded"}:
            assert "sync" == done[number - 1]


def test_without_full_synchronous_the_proof_fails(path, needs):
    """So it is a proof."""
    needs(bool(shutil.which("strace")), "strace is not installed")
    done = traced(path, "NORMAL")
    assert 20 == done.count("request")
    assert "claiming" == done[done.index("request") - 1]


# --- looking after it ------------------------------------------------------------------------------------------------


async def test_counts_and_pending_tell_how_it_stands(opened, clock):
    """A claim that nobody may be working on counts as unknown, and keeps its place in the order."""
    ledger = opened()
    await ledger.claim(["c", "a", "d", "b"])
    await ledger.record([LedgerEntry("d", Status.SENT), LedgerEntry("b", Status.UNKNOWN)])
    counts = await ledger.counts()
    assert (2, 1, 1, 0) == (counts[None], counts[Status.SENT], counts[Status.UNKNOWN], counts[Status.HELD])
    assert [("c", None), ("a", None), ("b", Status.UNKNOWN)] == [(e.key, e.status) async for e in ledger.pending()]
    await clock.sleep(60.0)
    counts = await ledger.counts()
    assert (0, 3) == (counts[None], counts[Status.UNKNOWN])


async def test_pages_follow_each_other(opened, monkeypatch):
    """However many are pending, some are read at a time, in order, and each once."""
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(module, "_KEYS_AT_ONCE", 7)
    ledger = opened()
    keys = [f"key-{number}" for number in range(30)]
    await ledger.claim(keys)
    assert keys == [entry.key async for entry in ledger.pending()]
    assert set(keys) == set(await ledger.lookup(keys))


async def test_unknown_fates_are_settled_by_hand(opened):
    """As sent, or so that the key is free again; nothing else is."""
    ledger = opened()
    await ledger.claim(["a", "b", "c"])
    assert not await ledger.settle("a", Status.SENT)
    await ledger.record([LedgerEntry(key, Status.UNKNOWN) for key in "abc"])
    assert await ledger.settle("a", Status.SENT, message_id="m")
    assert await ledger.settle("b", Status.FAILED)
    assert not await ledger.settle("nobody", Status.SENT)
    assert {"a": Claim.ALREADY_SENT, "b": GRANTED, "c": Claim.UNKNOWN} == await ledger.claim(["a", "b", "c"])
    assert "m" == (await ledger.lookup(["a"]))["a"].message_id
    with pytest.raises(SettingError, match="SENT"):
        await ledger.settle("c", Status.ELSEWHERE)


async def test_events_settle_keys(opened, fixtures):
    """SES's own samples, as they would come for our messages."""
    ledger = opened()
    await ledger.claim(["bounce", "delivery", "reject", "send"])
    await ledger.record([LedgerEntry("bounce", Status.UNKNOWN), LedgerEntry("delivery", Status.HELD)])
    events = []
    for kind in ("bounce", "delivery", "reject", "send", "open"):
        told = json.loads((fixtures / "events" / f"event-{kind}-1.json").read_text(encoding="utf-8"))
        told["mail"]["tags"].update({name: [tag] for name, tag in key_tag(kind).items()})
        events += [told, told, {}]
    assert 3 == await ledger.reconcile(events)
    assert 0 == await ledger.reconcile([])
    found = await ledger.lookup(["bounce", "delivery", "reject", "send", "open"])
    sent = {key for key, entry in found.items() if entry.status is Status.SENT and entry.message_id}
    assert {"bounce", "delivery", "send"} == sent
    assert {"reject"} == set(found) - sent


async def test_no_csv_takes_the_place_of_the_ledger(opened, path):
    """A slip with the names must not cost what is known of a campaign."""
    ledger = opened()
    await ledger.claim(["a"])
    with pytest.raises(SettingError, match="a file of its own"):
        await ledger.to_csv(path)
    assert {"a"} == set(await ledger.lookup(["a"]))


async def test_old_keys_are_forgotten(opened, clock, monkeypatch):
    """By age; unknown ones only when asked for, and claims not while somebody may be working on them."""
    monkeypatch.setattr(module, "_PURGED_AT_ONCE", 2)
    ledger = opened(lease=500.0)
    keys = [f"sent-{number}" for number in range(5)]
    await ledger.claim([*keys, "unknown", "lost"])
    await ledger.record([*(LedgerEntry(key, Status.SENT) for key in keys), LedgerEntry("unknown", Status.UNKNOWN)])
    await clock.sleep(100.0)
    await ledger.claim(["open"])
    assert 0 == await ledger.purge(dt.timedelta(seconds=100))
    assert 5 == await ledger.purge(99.0)
    assert 1 == await ledger.purge(0, unknown=True)
    await clock.sleep(401.0)
    assert 1 == await ledger.purge(0, unknown=True)
    assert {"open"} == set(await ledger.lookup([*keys, "unknown", "lost", "open"]))
    assert {"sent-1": GRANTED} == await ledger.claim(["sent-1"])
    with pytest.raises(SettingError):
        await ledger.purge(-1)


async def test_it_is_written_as_csv(opened, tmp_path):
    """All keys in their order; only this user may read it, and no spreadsheet runs it."""
    ledger = opened()
    await ledger.claim(["=order()", "order-2", "half \ud800"])
    await ledger.record(
        [LedgerEntry("=order()", Status.SENT, "m-1"), LedgerEntry("order-2", Status.HELD, None, "Held")]
    )
    target = tmp_path / "out.csv"
    target.write_text("what was in it")
    target.chmod(0o644)
    assert 3 == await ledger.to_csv(target)
    assert 0o600 == target.stat().st_mode & 0o777
    with target.open(newline="") as file:
        rows = list(csv.reader(file))
    at = "1970-01-12T13:46:40+00:00"
    assert [
        ["key", "status", "message_id", "error", "at"],
        ["'=order()", "sent", "m-1", "", at],
        ["order-2", "held", "", "Held", at],
        ["half \\ud800", "claimed", "", "", at],
    ] == rows
    with pytest.raises(FileNotFoundError):
        await ledger.to_csv(tmp_path / "nowhere" / "out.csv")


def test_a_lease_is_above_zero(path):
    """Anything else would be a claim that nobody can use."""
    with pytest.raises(SettingError):
        SQLiteLedger(path, lease=0)
