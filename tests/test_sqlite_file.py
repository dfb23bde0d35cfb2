"""What can be wrong with a file, that each of these has an error that says what to do, and that nothing is harmed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import attrs
import pytest

from tanksend import _sqlite
from tanksend._sqlite import Database, Place, Schema
from tanksend._sqlite_errors import code_of, told
from tanksend.exceptions import LedgerError, SettingError, StorageError
from tanksend.ledgers import SQLiteLedger
from tanksend.suppression import SQLiteSuppressionStore
from tanksend.typing import Claim, Suppression

pytestmark = pytest.mark.anyio

FIRST = Schema("ledger", 0x74657374, (("CREATE TABLE t (a INTEGER)",),))
SECOND = attrs.evolve(FIRST, steps=(*FIRST.steps, ("ALTER TABLE t ADD COLUMN b", "UPDATE t SET b = a * 2")))
WAIT = 0.05


@pytest.fixture
def path(tmp_path):
    """Where the file is, or will be."""
    return tmp_path / "file.db"


@pytest.fixture
def open_database(path):
    """Opens databases of that file, and closes them."""
    found = []

    def make(schema=FIRST, lock_timeout=WAIT):
        found.append(Database(Place(str(path)), schema, lock_timeout))
        return found[-1]

    yield make
    for database in found:
        database.close()


def put(number):
    """Work that writes one row."""
    return lambda connection: connection.execute("INSERT INTO t (a) VALUES (?)", (number,))


def rows(connection):
    """Work that reads all rows."""
    return connection.execute("SELECT * FROM t").fetchall()


@contextmanager
def small_disk(tmp_path, options="size=512k"):
    """A disk of its own, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root may make a small disk here (mount -t tmpfs)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_file_is_made_with_the_newest_version(open_database, path):
    """All steps at once, and only this user may read it."""
    database = open_database(SECOND)
    database.write(put(1))
    assert [(1, None)] == database.read(rows)
    assert 2 == database.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0])
    assert 2 == database.read(lambda c: c.execute("PRAGMA synchronous").fetchone()[0])
    assert {0o600} == {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}


def test_an_older_file_is_brought_up_to_date(open_database):
    """Its rows stay."""
    old = open_database(FIRST)
    old.write(put(4))
    old.close()
    assert [(4, 8)] == open_database(SECOND).read(rows)


def test_a_migration_that_fails_changes_nothing(open_database):
    """The old version can still use it."""
    open_database(FIRST).write(put(4))
    broken = attrs.evolve(FIRST, steps=(*FIRST.steps, ("ALTER TABLE t ADD COLUMN b", "no SQL")))
    with pytest.raises(LedgerError):
        open_database(broken).read(rows)
    assert [(4,)] == open_database(FIRST).read(rows)


def test_a_newer_file_is_left_alone(open_database, path):
    """This version does not know what it means."""
    newer = open_database(SECOND)
    newer.write(put(1))
    newer.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"newer version of this library. Upgrade it") as caught:
        open_database(FIRST).write(put(2))
    assert ("newer", "ledger") == (caught.value.code, caught.value.part)
    assert before == path.read_bytes()


def test_many_may_make_it_at_once(path):
    """Processes that start together all find it, and lose nothing."""
    script = (
        "import sys\n"
        "from tanksend._sqlite import Database, Place, Schema\n"
        "schema = Schema('ledger', 0x74657374, (('CREATE TABLE t (a INTEGER)',),))\n"
        "database = Database(Place(sys.argv[1]), schema, 60)\n"
        "for number in range(20):\n"
        "    database.write(lambda c: c.execute('INSERT INTO t VALUES (?)', (number,)))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(4)]
    assert [0] * 4 == [process.wait(120) for process in running]
    with closing(sqlite3.connect(path)) as connection:
        assert [(80,)] == connection.execute("SELECT count(*) FROM t").fetchall()


def test_no_thread_opens_a_file_that_another_one_is_making(open_database, monkeypatch):
    """The descriptor that made it drops the locks of the whole process when it closes."""
    events, close, connect = [], os.close, sqlite3.connect

    def slow_close(descriptor):
        if not threads:
            threads.append(threading.Thread(target=open_database(lock_timeout=60).read, args=(rows,)))
            threads[0].start()
            threads[0].join(WAIT)
            events.append("made")
        close(descriptor)

    def noted_connect(*arguments, **options):
        events.append("opened")
        return connect(*arguments, **options)

    threads = []
    monkeypatch.setattr(os, "close", slow_close)
    monkeypatch.setattr(sqlite3, "connect", noted_connect)
    open_database(lock_timeout=60).read(rows)
    threads[0].join()
    assert "made" == events[0]
    assert {"opened"} == set(events[1:])


@pytest.mark.parametrize(
    ("faster", "code"), [(attrs.evolve(FIRST, application_id=1), "foreign"), (SECOND, "newer"), (FIRST, None)]
)
def test_a_file_that_somebody_else_makes_meanwhile(open_database, monkeypatch, faster, code):
    """Whether it is ours is judged again once nobody else can write: each of two might take an empty file for his."""
    original = Database._migrate

    def late(database, connection):
        monkeypatch.setattr(Database, "_migrate", original)
        open_database(faster).write(put(7))
        original(database, connection)

    monkeypatch.setattr(Database, "_migrate", late)
    if code is None:
        assert [(7,)] == open_database().read(rows)
    else:
        with pytest.raises(LedgerError) as caught:
            open_database().read(rows)
        assert code == caught.value.code
    assert (7,) == open_database(faster).read(rows)[0][:1]


# --- what is not ours ------------------------------------------------------------------------------------------------


def text_file(path):
    """No database at all."""
    path.write_text("This is no database, but somebody's notes. " * 50)


def somebodys_database(path):
    """One with a table."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()


def marked_database(path):
    """One that says whose it is."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id=7")


@pytest.mark.parametrize("make", [text_file, somebodys_database, marked_database])
def test_a_foreign_file_is_left_alone(open_database, path, make):
    """Whatever it is, and however it is used."""
    make(path)
    before = path.read_bytes()
    for use in (lambda: open_database().read(rows), lambda: open_database().write(put(1))):
        with pytest.raises(LedgerError, match=r"belongs to another program.*Name another file") as caught:
            use()
        assert "foreign" == caught.value.code
    assert before == path.read_bytes()


def test_an_empty_file_may_be_used(open_database, path):
    """Such as `mktemp` makes."""
    path.touch(0o600)
    open_database().write(put(1))
    assert [(1,)] == open_database().read(rows)


async def test_a_ledger_is_no_suppression_list(path):
    """And the other way round: the error names the part."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(["a"])
    async with SQLiteSuppressionStore(path) as store:
        with pytest.raises(StorageError, match=r"The suppression list .* belongs to another program") as caught:
            await store.add(Suppression("a@example.com"))
    assert ("suppression", "foreign") == (caught.value.part, caught.value.code)
    assert not isinstance(caught.value, LedgerError)


def test_a_damaged_file_is_said_to_be_damaged(open_database, path):
    """What SQLite finds out of order."""
    database = open_database()
    database.write(lambda c: c.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(50_000))))
    database.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"is damaged. Keep a copy") as caught:
        open_database().read(rows)
    assert "damaged" == caught.value.code
    assert "DatabaseError (SQLITE_CORRUPT" in caught.value.cause_type


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ":memory:", "a\0b"])
def test_a_path_names_a_file(name):
    """What is kept in memory survives nothing."""
    with pytest.raises(SettingError, match="a path to a file on a disk"):
        SQLiteLedger(name)


def test_links_and_relative_paths_are_followed(path, monkeypatch):
    """The files beside it have to be found under every name."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    assert {os.path.realpath(path)} == {_sqlite.absolute(name) for name in (path, link, "file.db")}


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """The file is not to be reached."""
    database = Database(Place(str(tmp_path / "nowhere" / "file.db")), FIRST, WAIT)
    with pytest.raises(LedgerError, match=r"nowhere/file.db cannot be opened or read. Check that its folder") as caught:
        database.read(rows)
    assert ("unreachable", "FileNotFoundError") == (caught.value.code, caught.value.cause_type)


@pytest.mark.parametrize("what", ["gone", "replaced"])
@pytest.mark.parametrize("closed", [False, True])
def test_a_file_that_was_moved_is_not_made_anew(open_database, path, what, closed):
    """What it knew would be forgotten, and everybody would get it twice."""
    database = open_database()
    database.write(put(1))
    if closed:
        database.close()
    for file in path.parent.iterdir():
        file.rename(file.with_name(f"moved-{file.name}"))
    if what == "replaced":
        path.touch()
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"was moved or deleted while it was in use. Put it back") as caught:
            database.write(put(2))
        assert "unreachable" == caught.value.code
    assert path.exists() is (what == "replaced")
    for file in path.parent.glob("moved-*"):
        file.rename(file.with_name(file.name.removeprefix("moved-")))
    database.write(put(3))
    assert [(1,), (3,)] == database.read(rows)


# --- locks, rights, room ---------------------------------------------------------------------------------------------


def test_a_locked_file_is_waited_for_and_then_an_error(open_database, path):
    """Reading goes on; writing says what to do; afterwards it works again."""
    database = open_database()
    database.write(put(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert [(1,)] == database.read(rows)
        with pytest.raises(LedgerError, match=r"is locked by another program. Close what has it open") as caught:
            database.write(put(2))
        assert ("locked", "OperationalError (SQLITE_BUSY)") == (caught.value.code, caught.value.cause_type)
        other.execute("ROLLBACK")
    database.write(put(3))
    assert [(1,), (3,)] == database.read(rows)


def test_a_file_that_is_locked_whole_cannot_even_be_read(open_database, path):
    """SQLite's exclusive mode, as some programs use it."""
    database = open_database()
    database.write(put(1))
    database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError) as caught:
            database.read(rows)
        assert "locked" == caught.value.code
        other.execute("ROLLBACK")


def test_a_read_only_file_says_who_has_to_do_what(tmp_path):
    """On a disk that is mounted for reading; the right to write is what is missing."""
    with small_disk(tmp_path) as disk:
        database = Database(Place(str(disk / "file.db")), FIRST, WAIT)
        database.write(put(1))
        database.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for use in (lambda: database.write(put(2)), lambda: database.read(rows)):
            with pytest.raises(LedgerError, match=r"cannot be written to. Let this user write") as caught:
                use()
            assert "read-only" == caught.value.code
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        database.write(put(3))
        assert [(1,), (3,)] == database.read(rows)
        database.close()


def test_a_file_without_the_right_to_write_is_read_only(open_database, path, monkeypatch):
    """As SQLite tells it to a user who is not root."""
    database = open_database()
    database.write(put(1))
    database.read(lambda c: c.execute("PRAGMA query_only=1"))
    with pytest.raises(LedgerError, match="cannot be written to") as caught:
        database.write(put(2))
    assert "read-only" == caught.value.code
    database.write(put(3))


async def test_a_full_disk_stops_and_loses_nothing(tmp_path):
    """What was granted is in the file; what is not in the file was not granted; with room it goes on."""
    with small_disk(tmp_path) as disk:
        ledger = SQLiteLedger(disk / "ledger.db")
        granted, keys, error = [], [], None
        for number in range(100_000):
            keys = [f"key-{number}-{place}" for place in range(50)]
            try:
                answers = await ledger.claim(keys)
            except LedgerError as raised:
                error = raised
                break
            granted += [key for key, answer in answers.items() if answer is Claim.GRANTED]
        assert "full" == error.code
        assert "disk is full. Make room on it, then run again" in str(error)
        assert granted
        assert set(granted) == set(await ledger.lookup(granted))
        assert not await ledger.lookup(keys)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)  # noqa: ASYNC221  (it is quick)
        assert {Claim.GRANTED} == set((await ledger.claim(keys)).values())
        await ledger.aclose()


def test_a_full_file_is_full_everywhere(open_database):
    """The same where nobody may make a small disk: SQLite is told to let the file not grow."""
    database = open_database()
    database.write(put(1))
    many = lambda c: c.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(5_000)))
    database.read(lambda c: c.execute("PRAGMA max_page_count=3"))
    with pytest.raises(LedgerError, match="disk is full") as caught:
        database.write(many)
    assert ("full", "OperationalError (SQLITE_FULL)") == (caught.value.code, caught.value.cause_type)
    assert [(1,)] == database.read(rows)
    database.write(put(2))


def test_an_error_in_the_middle_undoes_the_whole(open_database):
    """Also one that is not SQLite's."""
    database = open_database()
    database.write(put(1))

    def half(connection):
        put(2)(connection)
        raise LookupError("in the middle")

    with pytest.raises(LookupError):
        database.write(half)
    assert [(1,)] == database.read(rows)


def test_a_disk_without_shared_memory_is_not_used(open_database, monkeypatch):
    """Such as a network's: SQLite answers there that it goes on without its log."""
    original = _sqlite._one
    monkeypatch.setattr(_sqlite, "_one", lambda c, s: "delete" if "journal_mode" in s else original(c, s))
    with pytest.raises(LedgerError, match="on a disk of this machine") as caught:
        open_database().read(rows)
    assert "unreachable" == caught.value.code


def test_a_checkpoint_never_raises(open_database, path):
    """Whoever comes to tidy up holds up nobody."""
    database = open_database()
    database.write(put(1))
    database.checkpoint()
    with closing(sqlite3.connect(path)) as other:
        assert [(1,)] == other.execute("SELECT * FROM t").fetchall()
    database.close()
    text_file(path)
    database.checkpoint()


def test_a_checkpoint_waits_for_nobody_and_never_raises_either(open_database, path):
    """Somebody may have the whole file when the connection has to be opened for it."""
    first = open_database()
    first.write(put(1))
    first.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        open_database().checkpoint()
        other.execute("ROLLBACK")


# --- what errors stand for -------------------------------------------------------------------------------------------


def sqlite_error(code):
    """An error as the module makes it."""
    error = sqlite3.OperationalError("text of SQLite's")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (sqlite_error(8 | 1 << 8), "read-only"),
        (sqlite_error(6), "locked"),
        (sqlite_error(15), "locked"),
        (sqlite_error(10 | 4 << 8), "unreachable"),
        (sqlite_error(14), "unreachable"),
        (sqlite_error(1), "unreachable"),
        (sqlite3.ProgrammingError("no code at all"), "unreachable"),
        (PermissionError(13, "no"), "read-only"),
        (OSError(28, "no"), "full"),
        (OSError(5, "no"), "unreachable"),
        (OSError("no number"), "unreachable"),
    ],
)
def test_each_error_has_a_code(path, error, code):
    """Extended codes are those of their family."""
    assert code == code_of(str(path), error)


def test_an_input_error_on_a_full_disk_is_a_full_disk(path, monkeypatch):
    """SQLite cannot grow the file beside it that all share, and has no better word for it."""
    full = os.statvfs_result((4096, 4096, 10, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert "full" == code_of(str(path), sqlite_error(10))

    def fail(name):
        raise OSError(5, "no")

    monkeypatch.setattr(os, "statvfs", fail)
    assert "unreachable" == code_of(str(path), sqlite_error(10))


def test_what_cannot_be_opened_for_want_of_rights_is_read_only(path, monkeypatch):
    """A folder in which this user may not make files."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "read-only" == code_of(str(path), sqlite_error(14))
    assert "unreachable" == code_of(str(path.parent / "nowhere" / "file.db"), sqlite_error(14))


def test_texts_name_the_file_and_no_data(path):
    """SQLite's own text is not repeated."""
    error = told(str(path), "ledger", "full", sqlite_error(13))
    assert str(path) in str(error)
    assert "text of" not in str(error)
    assert error.cause_type == "OperationalError"
