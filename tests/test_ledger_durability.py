"""
A sender with a ledger in SQLite: what is durable before a request leaves, what stops a batch, and what a fork may do.

The long runs, with processes that are killed, are in ``proof/ledger_kill.py``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from tanksend import Message, Sender, Status
from tanksend._sqlite import SQLiteFile
from tanksend.exceptions import HeldError
from tanksend.ledgers import SQLiteLedger
from tanksend.ledgers._book import SCHEMA
from tanksend.testing import RecordingTransport, SimulatedSES

pytestmark = pytest.mark.anyio

FROM = "no-reply@example.com"
PATIENCE = 170


@pytest.fixture
def path(tmp_path):
    """Where the ledger is, or will be."""
    return tmp_path / "ledger.db"


def letters(number, start=0):
    """Different messages, each with its key."""
    return [
        Message(f"p{each}@example.com", f"News {each}", "Hello", key=f"key-{each}") for each in range(start, number)
    ]


def environment(ses, **more):
    """What a process needs to send through *ses*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "COV_"))}
    aws = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": ses.region}
    return {**kept, **aws, "ENDPOINT": ses.url, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*", **more}


def rows(path):
    """Keys by status, as they are in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, status FROM entry"))


# --- before the request leaves ---------------------------------------------------------------------------------------

NUMBER = 40
TRACED = """
import os, sys
import anyio
from tanksend import Message, Sender, _sqlite
from tanksend.ledgers import SQLiteLedger
from tanksend.limiters import TokenBucketLimiter

_sqlite.SYNCHRONOUS = sys.argv[2]


async def main():
    sender = Sender(
        from_="no-reply@example.com",
        endpoint_url=os.environ["ENDPOINT"],
        ledger=SQLiteLedger(sys.argv[1]),
        limiter=TokenBucketLimiter(float("inf")),
        max_parallel=4,
    )
    messages = (Message(f"p{n}@example.com", "News", "Hello", key=f"key-{n:04}-") for n in range(int(sys.argv[3])))
    report = await sender.send_all(messages, on_result=lambda result: os.write(1, b"told %d\\n" % result.index))
    os._exit(not report.ok)


anyio.run(main)
"""
CALLS = "trace=fdatasync,fsync,sendto,sendmsg,write,writev,pwrite64"
BEGUN = re.compile(r"(\d+) +(\w+)\(\d+(?:<([^>]*)>)?(.*)")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")


def traced(path, synchronous):
    """The calls that a sender made which write and sync, in order, as strace tells them."""
    trace = path.with_name("trace")
    strace = ["strace", "-f", "-y", "-s", "100000", "-e", CALLS, "-o", trace, sys.executable, "-c", TRACED]
    with SimulatedSES(rate=-1, daily_quota=-1) as ses:
        command = [*map(str, [*strace, path, synchronous, NUMBER])]
        subprocess.run(command, check=True, timeout=PATIENCE, stdout=subprocess.DEVNULL, env=environment(ses))
        assert (NUMBER, {}) == (len(ses.inbox), ses.inbox.doubled())
    return trace.read_text(encoding="utf-8", errors="replace").splitlines()


def in_order(lines):
    """
    What happened: requests and what was told when the call began, writes and syncs of the log when they had ended.

    A call that another thread came between is shown in two lines.
    """
    unfinished = {}
    for line in lines:
        begun, resumed = BEGUN.match(line), RESUMED.match(line)
        if begun:
            thread, call, file, rest = begun.groups()
            if not (file or "").endswith(".db-wal"):
                yield from (("request", int(number)) for number in re.findall(r"p(\d+)@example\.com", rest)[:1])
                yield from (("told", int(number)) for number in re.findall(r'"told (\d+)', rest))
                continue
            keys = {int(number) for number in re.findall(r"key-(\d{4})-", rest)}
            what = ("sync", None) if "sync" in call else ("write", keys)
            if "<unfinished" in rest:
                unfinished[thread] = what
            else:
                yield what
        elif resumed and resumed[1] in unfinished:
            yield unfinished.pop(resumed[1])


def uncovered(lines):
    """Messages whose request left before a sync of the log covered their claim, or that were told of before another."""
    written, durable, since, found = set(), set(), set(), set()
    done = {"request": set(), "told": set()}
    for what, which in in_order(lines):
        if what == "write":
            written |= which
        elif what == "sync":
            durable |= written
            since |= written
            written = set()
        else:
            done[what].add(which)
            if which not in (durable if what == "request" else since):
                found.add(which)
            since.discard(which)  # what is told of it needs a sync of its own
    assert {"request": set(range(NUMBER)), "told": set(range(NUMBER))} == done
    return found


def test_every_request_comes_after_a_sync_that_covers_its_claim(path, needs):
    """And every result after one that covers its fate: seen from outside, in the calls that a sender makes."""
    needs(bool(shutil.which("strace")), "strace is not installed")
    assert set() == uncovered(traced(path, "FULL"))


def test_without_full_synchronous_the_proof_fails(path, needs):
    """So it is a proof."""
    needs(bool(shutil.which("strace")), "strace is not installed")
    assert set(range(NUMBER)) == uncovered(traced(path, "NORMAL"))


# --- what stops a batch ----------------------------------------------------------------------------------------------


@contextmanager
def small_disk(tmp_path, size="512k"):
    """A disk of its own, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may make a small disk here (mount -t tmpfs)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk, option):
    """Change that disk."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


class Batch:
    """A sender with a ledger, and what came of its batches."""

    def __init__(self, ledger, wire=None):
        self.wire = wire or RecordingTransport()
        self.results = []
        self._sender = Sender(from_=FROM, transport=self.wire, ledger=ledger, max_parallel=8)

    async def send(self, messages, on_result=None):
        """The report of one more batch."""
        self.results = []

        def keep(result):
            self.results.append(result)
            if on_result is not None:
                on_result(result)

        return await self._sender.send_all(messages, on_result=keep)

    @property
    def sent(self):
        """The keys of all that has left."""
        return [request.message.key for request in self.wire.requests]

    def stopped_cleanly(self, report, advice):
        """Every message has its fate, what was sent says so, and the rest say what to do."""
        assert len(self.results) == report.total
        fates = {result.message.key: result.status for result in self.results}
        assert report.total == len(fates)
        assert set(self.sent) == {key for key, fate in fates.items() if fate is Status.SENT}
        errors = [result.error for result in self.results if result.status is not Status.SENT]
        assert errors
        assert {Status.SENT, Status.HELD} >= set(fates.values())
        assert {HeldError} == set(map(type, errors))
        assert {"LedgerFailed"} == {error.code for error in errors}
        for error in errors:
            assert advice in str(error)
            assert "run the same batch again" in str(error)
        assert advice in report.note


def held_by_the_file(path, batch):
    """Nothing was sent whose intent was not durable."""
    assert set(batch.sent) <= set(rows(path))


async def resumed(path, batch, messages):
    """The same batch again, as another process would send it: nobody gets two, and who gets none is known."""
    async with SQLiteLedger(path) as ledger:
        report = await Batch(ledger, batch.wire).send(messages)
        counts = report.counts
        assert len(messages) == counts[Status.SENT] + counts[Status.ALREADY_SENT] + counts[Status.UNKNOWN]
        assert len(set(batch.sent)) == len(batch.sent)
        unknown = {entry.key async for entry in ledger.pending()}
        assert counts[Status.UNKNOWN] == len(unknown)
        assert {message.key for message in messages} - set(batch.sent) <= unknown


async def test_a_full_disk_stops_the_batch(tmp_path):
    """With room, the same batch goes on where it was, and nobody gets two."""
    with small_disk(tmp_path) as disk:
        path = disk / "ledger.db"
        ledger = SQLiteLedger(path)
        batch = Batch(ledger)
        messages = letters(2_000)
        report = await batch.send(messages)
        batch.stopped_cleanly(report, "Make room on it, then run again")
        held_by_the_file(path, batch)
        assert 0 < len(batch.sent) < len(messages)
        await ledger.aclose()
        remount(disk, "size=16m")
        await resumed(path, batch, messages)


async def test_a_disk_that_is_read_only_stops_the_batch(tmp_path):
    """Before anything is sent."""
    with small_disk(tmp_path, "16m") as disk:
        async with SQLiteLedger(disk / "ledger.db") as ledger:
            await ledger.claim(["made"])
        remount(disk, "ro")
        ledger = SQLiteLedger(disk / "ledger.db")
        batch = Batch(ledger)
        batch.stopped_cleanly(await batch.send(letters(200)), "Let this user write to the file and to its folder")
        await ledger.aclose()
        remount(disk, "rw")
        assert [] == batch.sent
        assert (await batch.send(letters(200))).ok
        await ledger.aclose()


async def test_a_ledger_that_becomes_read_only_stops_the_batch(path, monkeypatch):
    """The same where nobody may make a disk: SQLite refuses to write from the middle of the batch on."""
    ledger = SQLiteLedger(path)
    batch = Batch(ledger)
    write = SQLiteFile._write_group

    def refuse(self, connection, jobs):
        connection.execute(f"PRAGMA query_only={int(len(batch.sent) >= 20)}")
        return write(self, connection, jobs)

    with monkeypatch.context() as patched:
        patched.setattr(SQLiteFile, "_write_group", refuse)
        batch.stopped_cleanly(await batch.send(letters(200)), "Let this user write to the file and to its folder")
    held_by_the_file(path, batch)
    assert 20 <= len(batch.sent) < 200
    await ledger.aclose()


async def test_a_locked_ledger_stops_the_batch(path):
    """In its middle, when another program does not let go; and before anything is sent."""
    ledger = SQLiteLedger(path, lock_timeout=0.05)
    await ledger.lookup(["makes the file"])
    batch = Batch(ledger)
    with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)) as other:

        def lock(result):
            if result.index == 20:
                other.execute("BEGIN IMMEDIATE")

        batch.stopped_cleanly(await batch.send(letters(200), lock), "Close what has it open")
        held_by_the_file(path, batch)
        before = len(batch.sent)
        assert 20 <= before < 200
        more = Batch(ledger)
        more.stopped_cleanly(await more.send(letters(300, 200)), "Close what has it open")
        assert [] == more.sent
        other.execute("ROLLBACK")
    await ledger.aclose()
    await resumed(path, batch, letters(200))


async def test_a_newer_ledger_stops_the_batch(path):
    """It is left as it is."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(["made"])
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version={len(SCHEMA.steps) + 1}")
    ledger = SQLiteLedger(path)
    batch = Batch(ledger)
    batch.stopped_cleanly(await batch.send(letters(200)), "Upgrade it here")
    with pytest.raises(HeldError, match="Upgrade it here"):
        await Sender(from_=FROM, transport=batch.wire, ledger=ledger).send(letters(1)[0])
    await ledger.aclose()
    assert [] == batch.sent
    assert {"made"} == set(rows(path))


# --- forks -----------------------------------------------------------------------------------------------------------

FORKS = """
import json, os, random, sys, threading, warnings
import anyio
from tanksend import Message, Status, SyncSender
from tanksend.ledgers import SQLiteLedger
from tanksend.limiters import TokenBucketLimiter
from tanksend.suppression import SQLiteSuppressionStore
from tanksend.typing import Suppression

warnings.simplefilter("ignore", DeprecationWarning)
folder, turns, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SQLiteSuppressionStore(folder + "/store.db", lock_timeout=100.0)
sender = SyncSender(
    from_="no-reply@example.com", endpoint_url=os.environ["ENDPOINT"], suppression=store,
    ledger=SQLiteLedger(folder + "/ledger.db", lock_timeout=100.0), limiter=TokenBucketLimiter(float("inf")),
)


def letter(key):
    return Message(f"{key}@example.com", key, "Hello", key=key)


def batch(name, turn):
    # Keys that both send, in an order of one's own, and some that only one does.
    keys = [f"shared-{turn}-{number}" for number in range(each)] + [f"{name}-{turn}-{number}" for number in range(each)]
    random.shuffle(keys)
    anyio.run(store.add, Suppression(f"{name}-{turn}-0@example.com"))
    report = sender.send_all(map(letter, keys))
    counts = {status.name: number for status, number in report.counts.items() if number}
    os.write(1, json.dumps([name, counts]).encode() + b"\\n")


def busy():
    # Goes on while the others fork.
    number = 0
    while not stop.is_set():
        report = sender.send_all([letter(f"busy-{number}-{turn}") for turn in range(20)])
        assert report.ok, report
        number += 1


stop = threading.Event()
batch("before", -1)
thread = threading.Thread(target=busy)
thread.start()
for turn in range(turns):
    child = os.fork()
    if not child:
        batch("child", turn)
        if turn % 2:
            sender.close()
        os._exit(0)
    batch("parent", turn)
    assert os.waitpid(child, 0)[1] == 0, turn
stop.set()
thread.join()
sender.close()
"""


def test_parent_and_child_both_go_on_after_a_fork(tmp_path, needs):
    """With ledger, list and connections open and busy: each key goes once, and the files are sound."""
    needs(hasattr(os, "fork"), "there is no fork here")
    turns, each = 8, 30
    with SimulatedSES(rate=-1, daily_quota=-1) as ses:
        command = [sys.executable, "-c", FORKS, str(tmp_path), str(turns), str(each)]
        process = subprocess.run(
            command, env=environment(ses), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (0, "") == (process.returncode, process.stderr)
        arrived = ses.inbox.deliveries()
        subjects = [subject for _, subject in arrived]
    assert {1} == set(arrived.values())
    said = [json.loads(line) for line in process.stdout.splitlines()]
    shared = (turns + 1) * each
    assert shared == sum(subject.startswith("shared") for subject in subjects)
    assert (2 * turns + 1) * (each - 1) == sum(
        subject.startswith(("parent", "child", "before")) for subject in subjects
    )
    assert {"SENT", "SUPPRESSED", "ALREADY_SENT", "ELSEWHERE"} >= {fate for _, counts in said for fate in counts}
    assert [1] * (2 * turns + 1) == [counts["SUPPRESSED"] for _, counts in said]
    assert shared + (2 * turns + 1) * (each - 1) == sum(counts["SENT"] for _, counts in said)
    for name in ("ledger.db", "store.db"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    assert set(subjects) == {key for key, status in rows(tmp_path / "ledger.db").items() if status == 1}
