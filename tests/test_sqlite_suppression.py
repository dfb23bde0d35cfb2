from __future__ import annotations

import csv
import errno
import math
import random
import sqlite3
from contextlib import closing

import pytest

from tanksend._csv import seconds_of
from tanksend.exceptions import Problem, SettingError, StorageError
from tanksend.suppression import ImportReport, SQLiteSuppressionStore, _import, _sqlite as module
from tanksend.suppression._sorted import Sorted
from tanksend.testing import FakeClock, check_suppression_store
from tanksend.typing import Suppression, SuppressionReason

pytestmark = pytest.mark.anyio

BOUNCE, COMPLAINT, MANUAL = SuppressionReason.BOUNCE, SuppressionReason.COMPLAINT, SuppressionReason.MANUAL


@pytest.fixture
def path(tmp_path):
    """Where the list is, or will be."""
    return tmp_path / "suppression.db"


@pytest.fixture
def clock():
    """Time that the tests own."""
    return FakeClock(wall=1_000_000.0)


@pytest.fixture
async def store(path, clock):
    """An empty list."""
    async with SQLiteSuppressionStore(path, clock=clock) as store:
        yield store


@pytest.fixture
def given(tmp_path):
    """Writes a CSV file."""

    def write(content):
        file = tmp_path / "given.csv"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


async def everybody(store):
    """All entries, by address."""
    return {entry.address: entry async for entry in store.entries()}


# --- contract --------------------------------------------------------------------------------------------------------


async def test_it_keeps_its_contract(store):
    """The check that ships for everybody's stores."""
    await check_suppression_store(lambda: store)


async def test_it_survives(path, store, clock):
    """Another store of the same file, later, knows all that an entry says."""
    entry = Suppression("Kim.Lee@Example.com", COMPLAINT, at=1_700_000_000.25, evidence="event-1", expires_at=2e9)
    await store.add(entry)
    store.close()
    async with SQLiteSuppressionStore(path, clock=clock) as other:
        assert entry == await other.explain("KIM.LEE@example.com")
        assert None is await other.explain("somebody@example.com")
        assert "<SQLiteSuppressionStore>" == repr(other)
    assert {0o600} == {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}


@pytest.mark.parametrize("written", ["Kim <kim@bücher.example>", " KIM@XN--BCHER-KVA.example\n", "kim@bücher.example"])
async def test_a_person_is_known_in_every_spelling(store, written):
    """As in memory."""
    await store.add(Suppression(written))
    asked = ["kim@bücher.example", "Kim@xn--bcher-kva.example"]
    assert set(asked) == set(await store.lookup([*asked, "kim@example.com"]))
    assert await store.remove(asked[0])
    assert {} == await store.lookup(asked)


async def test_an_entry_ends_when_it_expires(store, clock):
    """Then it is as if it were not there."""
    await store.add(Suppression("kim@example.com", expires_at=1_000_060.0))
    await clock.sleep(59.0)
    assert {"kim@example.com"} == set(await everybody(store))
    await clock.sleep(1.0)
    assert {} == await everybody(store) == await store.lookup(["kim@example.com"])
    assert not await store.remove("kim@example.com")


async def test_no_address_keeps_the_others_from_being_looked_up(store):
    """Text that is no Unicode, or no address, is nobody's, or is found as it was put there."""
    odd = ["half\ud800@example.com", "", "@", "nul\0@example.com", "x" * 100_000]
    await store.add(Suppression("kim@example.com"), *(Suppression(text, evidence="\udfff") for text in odd[:1]))
    assert {"kim@example.com", odd[0]} == set(await store.lookup([*odd, "kim@example.com"]))
    assert await store.remove(odd[0])
    assert not await store.remove(odd[1])


async def test_pages_follow_each_other(store, monkeypatch):
    """However long the list is, some entries are read at a time, each once."""
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(module, "_ADDRESSES_AT_ONCE", 7)
    addresses = [f"person.{number:02}@example.com" for number in range(30)]
    await store.add(*map(Suppression, addresses))
    assert addresses == list(await everybody(store))
    assert set(addresses) == set(await store.lookup(addresses))


async def test_a_list_that_is_locked_says_so(path, store):
    """The error is this part's, and names no address."""
    await store.add(Suppression("kim@example.com"))
    async with SQLiteSuppressionStore(path, lock_timeout=0.01) as other:
        with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="The suppression list .* is locked") as caught:  # noqa: RUF043
                await other.add(Suppression("lee@example.com"))
            somebody.execute("ROLLBACK")
    assert ("suppression", "locked") == (caught.value.part, caught.value.code)


# --- import ----------------------------------------------------------------------------------------------------------


async def test_a_plain_list_is_imported(store, given):
    """One address a line, whatever ends the line; a byte order mark is no part of the first."""
    report = await store.import_csv(
        given(b"\xef\xbb\xbfKim@Example.com\r\n\r\n  lee@example.com  \nan@b\xc3\xbccher.example")
    )
    assert ImportReport(3, 3) == report
    assert "3 imported, 0 skipped" == str(report)
    assert {"Kim@Example.com", "lee@example.com", "an@bücher.example"} == set(await everybody(store))
    assert {MANUAL} == {entry.reason for entry in (await everybody(store)).values()}


async def test_columns_are_found_by_name(store, given):
    """In any order, as SES and others call them, and what nobody knows is passed over."""
    report = await store.import_csv(
        given(
            "Last Update Time,Reason,Note,EmailAddress,expires_at\n"
            "2023-11-14T22:13:20Z,BOUNCE,x,a@example.com,\n"
            "2023-11-15T07:13:20+09:00,complaint,x,b@example.com,2033-05-18 03:33:20\n"
            "1700000000.5,,x,c@example.com,2e9,and more\n"
            ",unsubscribe,x,d@example.com\n"
        )
    )
    assert (4, 0) == (report.imported, report.skipped)
    assert {
        "a@example.com": Suppression("a@example.com", BOUNCE, at=1.7e9),
        "b@example.com": Suppression("b@example.com", COMPLAINT, at=1.7e9, expires_at=2e9),
        "c@example.com": Suppression("c@example.com", MANUAL, at=1.7e9 + 0.5, expires_at=2e9),
        "d@example.com": Suppression("d@example.com", "unsubscribe"),
    } == await everybody(store)


async def test_without_names_the_columns_stand_in_our_order(store, given):
    """Address, reason, time, evidence, end."""
    await store.import_csv(given("a@example.com,bounce,1,event-1,2e9\n"))
    assert Suppression("a@example.com", BOUNCE, 1.0, "event-1", 2e9) == await store.explain("a@example.com")


async def test_bad_rows_are_named_and_skipped(store, given):
    """By their line, with what is wrong, and without the address; the others are there."""
    report = await store.import_csv(
        given(
            b"address,reason,at\n"
            b"a@example.com,bounce,1\n"
            b"secret.person,bounce,1\n"
            b"b@example.com,boring,1\n"
            b"c@example.com,bounce,yesterday\n"
            b"d\xff@example.com,bounce,1\n"
            b'"e@exam\nple.com",bounce,1\n'
            b",bounce,1\n"
            b"f..f@example.com,bounce,1\n"
            b"g@example.com,bounce,1\n"
        )
    )
    assert {"a@example.com", "g@example.com"} == {*await everybody(store)} - {"f..f@example.com"}
    found = {problem.field: problem.reason for problem in report.problems}
    assert {"line 3", "line 4", "line 5", "line 6", "line 8", "line 9"} <= set(found)
    assert "has an unknown reason: it is one of bounce, complaint, unsubscribe, manual" == found["line 4"]
    assert "has something in at that is no time: write 2026-11-24T09:00:00Z" == found["line 5"]
    assert "is not UTF-8" == found["line 6"]
    assert found["line 3"].startswith("has an address that cannot be used: ")
    assert "secret" not in str(report) + repr(report)
    assert len(report.problems) == report.skipped


async def test_what_is_no_csv_is_one_bad_row(store, given):
    """A cell without end would take all of the rest with it; the parser gives up on it first."""
    report = await store.import_csv(given("a@example.com\n" + "x" * 140_000 + "\nb@example.com\n"))
    assert (Problem("line 2", "is not CSV"),) == report.problems
    assert {"a@example.com", "b@example.com"} == set(await everybody(store))


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('a@example.com\n"x@example.com\nb@example.com\nc@example.com', [2]),
        ('a@example.com\n"x@example.com\nb@example.com\nc@example.com,manual,,"said ""no"""\n', [2]),
        ('x@example.com,manual,,"no end\na@example.com\nb@example.com\nc@example.com\n', [1]),
        ('a@example.com\n\nx@example.com,manual,,"no end\nb@example.com\nc@example.com,manual,,"said no"\n', [3]),
        ('"x@example.com\na@example.com\n"x@example.com\nb@example.com\nc@example.com\n', [1, 3]),
        ('"x@example.com\n' + "a@example.com\n" * 9_400 + "b@example.com\nc@example.com\n", [1]),
        ('a@example.com\nx@example.com,boring,,"over\ny@example.com"\nb@example.com,manual,,"\n"\nc@example.com', [2]),
    ],
)
async def test_a_forgotten_quote_takes_nobody_with_it(store, given, text, bad):
    """Whoever is on the lines that follow is in the list; evidence may go over lines, where its quotes are in order."""
    report = await store.import_csv(given(text))
    assert [f"line {number}" for number in bad] == [problem.field for problem in report.problems]
    assert {"a@example.com", "b@example.com", "c@example.com"} == set(await everybody(store))
    assert len(bad) == report.skipped


@pytest.mark.parametrize(
    ("cell", "at"), [("20231114", 1_699_920_000.0), ("1700000000", 1.7e9), ("nan", None), ("inf", math.inf)]
)
def test_a_number_is_a_time_unless_it_is_a_day(cell, at):
    """An end in 1970 would suppress nobody, and one that is no number everybody for good."""
    if at is None:
        with pytest.raises(ValueError, match="isoformat"):
            seconds_of(cell)
    else:
        assert at == seconds_of(cell)


async def test_no_csv_takes_the_place_of_the_list(store, path):
    """A slip with the names must not cost the list; nor must a file of it be opened by hand, which drops its locks."""
    await store.add(Suppression("kim@example.com"))
    for use in (store.to_csv, store.import_csv):
        for name in (path, f"{path}-wal"):
            with pytest.raises(SettingError, match="a file of its own"):
                await use(name)
    assert {"kim@example.com"} == set(await everybody(store))


async def test_not_all_problems_are_kept(store, given, monkeypatch):
    """A file that is something else altogether must not fill the memory."""
    monkeypatch.setattr(_import, "_PROBLEMS_KEPT", 2)
    report = await store.import_csv(given("a@example.com\n" + "nobody\n" * 5))
    assert (6, 1, 5, 2) == (report.rows, report.imported, report.skipped, len(report.problems))


async def test_the_last_of_two_entries_for_a_person_holds(store, given):
    """As if they had been added one after the other, and what was there before is replaced."""
    await store.add(Suppression("kim@example.com", evidence="old"))
    await store.import_csv(given("KIM@example.com,bounce,1\nother@example.com\nkim@Example.com,complaint,2\n"))
    assert Suppression("kim@Example.com", COMPLAINT, 2.0) == await store.explain("kim@example.com")
    assert 2 == len(await everybody(store))


async def test_a_long_file_is_imported_in_parts(store, given, monkeypatch):
    """In the order of the people, whatever the file's is."""
    monkeypatch.setattr(module, "_ROWS_IMPORTED_AT_ONCE", 9)
    numbers = list(range(100))
    random.Random(1).shuffle(numbers)
    report = await store.import_csv(given("".join(f"person.{number}@example.com\n" for number in numbers)))
    assert (100, 100) == (report.imported, len(await everybody(store)))


async def test_an_empty_file_has_nobody(store, given):
    """And so has one that only names its columns."""
    assert ImportReport(0, 0) == await store.import_csv(given(""))
    assert ImportReport(0, 0) == await store.import_csv(given("email,reason\n"))


async def test_a_file_without_addresses_is_refused(store, given, tmp_path):
    """Nothing of it would be found; one that is not there is the system's error."""
    with pytest.raises(SettingError, match='none of them is "address"'):
        await store.import_csv(given("name,reason\nKim,bounce\n"))
    with pytest.raises(FileNotFoundError):
        await store.import_csv(tmp_path / "nowhere.csv")


# --- export ----------------------------------------------------------------------------------------------------------


async def test_what_is_exported_can_be_imported(store, tmp_path, clock):
    """Every field comes back; no spreadsheet runs a cell; only this user may read it."""
    entries = [
        Suppression("=cmd@example.com", BOUNCE, 1_700_000_000.25, "=evidence", 2e9),
        Suppression("+kim@example.com", COMPLAINT, evidence="'-quoted"),
        Suppression("an@bücher.example", expires_at=1e15),
        Suppression("past@example.com", expires_at=1.0),
    ]
    await store.add(*entries)
    target = tmp_path / "out.csv"
    assert 3 == await store.to_csv(target)
    assert 0o600 == target.stat().st_mode & 0o777
    with target.open(newline="", encoding="utf-8") as file:
        assert not any(cell.startswith(("=", "+")) for line in csv.reader(file) for cell in line)
    async with SQLiteSuppressionStore(tmp_path / "other.db", clock=clock) as other:
        assert 3 == (await other.import_csv(target)).imported
        found = await everybody(other)
    for entry in (entries[0], entries[2]):
        assert entry == found[entry.address]
    assert COMPLAINT is found["+kim@example.com"].reason


# --- sorting ---------------------------------------------------------------------------------------------------------


def test_rows_come_back_sorted():
    """By their first column, then in the order in which they came."""
    rows = [(str(number % 10), number) for number in range(100)]
    found = Sorted(2)
    found.put(rows[:60])
    found.put(rows[60:])
    got = []
    while some := found.some(7):
        got += some
    found.close()
    found.close()
    assert sorted(rows) == got


def test_no_room_to_sort_is_said_to_be_that():
    """The folder for temporary files may be full, and its disk another one than that of the list."""
    entries = Sorted(1)
    entries._opened().execute("PRAGMA max_page_count=2")
    with pytest.raises(OSError, match="make room in the folder for temporary files") as caught:
        entries.put([("x" * 10_000,)])
    assert errno.ENOSPC == caught.value.errno
    entries.close()


def test_sorting_lets_a_fork_pass():
    """It comes to rest before, and what was begun is the parent's."""
    found = Sorted(1)
    found.put([("b",), ("a",)])
    found.before_fork()
    found.after_fork_in_child()
    found.before_fork()
    found.after_fork_in_parent()
    assert [("a",), ("b",)] == found.some(9)
    found.close()


async def test_what_is_no_suppression_is_refused_by_its_type(tmp_path):
    """Before anything of it is written."""
    store = SQLiteSuppressionStore(tmp_path / "list.db")
    with pytest.raises(TypeError, match="not str"):
        await store.add(Suppression("a@example.com"), "b@example.com")
    assert {} == await store.lookup(["a@example.com"])
    store.close()
