"""`tanksend ledger`, on a file and on a real PostgreSQL."""

# ruff: noqa: F811  (fixtures are imported, and asked for by their names)

from __future__ import annotations

import os
import stat
import subprocess
import sys

import anyio
import pytest

from postgres_server import PostgresServer, postgres, postgres_server  # noqa: F401
from tanksend import Status
from tanksend.cli import main
from tanksend.ledgers import PostgresLedger, SQLiteLedger
from tanksend.typing import LedgerEntry

DAY = 86_400


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """Arguments that name a ledger with some keys, and how it is opened."""
    if request.param == "sqlite":
        path = str(tmp_path / "campaign.sqlite")
        arguments, opened = [path], lambda: SQLiteLedger(path)
    else:
        dsn, table = request.getfixturevalue("postgres").dsn, f"cli_{abs(hash(request.node.name))}"
        arguments, opened = [dsn, "--table", table], lambda: PostgresLedger(dsn, table=table)
    anyio.run(fill, opened)
    return arguments, opened


async def fill(opened):
    """Keys of several fates, the unknown ones among them."""
    async with opened() as ledger:
        await ledger.claim(["mail-1", "mail-2", "mail-3", "bell\a"])
        await ledger.record(
            [
                LedgerEntry("mail-1", Status.SENT, "id-1", at=DAY),
                LedgerEntry("mail-2", Status.UNKNOWN, error_code="ReadTimeout", at=DAY),
                LedgerEntry("bell\a", Status.UNKNOWN, at=2 * DAY),
            ]
        )


async def fates(opened, *keys):
    """What the ledger says."""
    async with opened() as ledger:
        return {key: entry.status for key, entry in (await ledger.lookup(keys)).items()}


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    """The server of these tests is always young, and dead is dead."""
    monkeypatch.setattr("tanksend.ledgers._postgres_link.GRACE_SECONDS", 0.0)


def test_it_counts_and_lists(place, capsys):
    """Counts by fate, and the unknown ones by their names, which a terminal can show."""
    assert main(["ledger", *place[0]]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert "1  sent" in lines
    assert any(line.startswith("3  unknown: ") for line in lines)
    assert "unknown (3 of 3):" in lines
    assert "  1970-01-02T00:00:00+00:00  mail-2  ReadTimeout" in lines
    assert "  1970-01-03T00:00:00+00:00  bell\\x07" in lines
    assert "\a" not in said.out
    assert said.err == ""


@pytest.mark.parametrize(("limit", "listed"), [("1", 1), ("0", 0), ("3", 3)])
def test_a_long_list_is_cut(place, capsys, limit, listed):
    """And says so."""
    assert main(["ledger", *place[0], "--limit", limit]) == 0
    said = capsys.readouterr().out
    assert f"unknown ({listed} of 3):" in said
    assert len([line for line in said.splitlines() if line.startswith(("  19", "  20"))]) == listed


def test_it_settles_by_hand(place, capsys):
    """Each key by itself; one that cannot be settled is named, and the rest is done."""
    arguments, opened = place
    settle = ["--settle", "mail-2", "sent", "--settle", "mail-1", "not-sent", "--settle", "bell\a", "not-sent"]
    assert main(["ledger", *arguments, *settle]) == 1
    said = capsys.readouterr()
    assert "mail-2: sent\nbell\\x07: not-sent\n" in said.out
    assert "mail-1: left as it is, its fate is not unknown" in said.err
    expected = {"mail-1": Status.SENT, "mail-2": Status.SENT, "bell\a": Status.FAILED}
    assert anyio.run(fates, opened, *expected) == expected


def test_it_keeps_the_message_id_that_somebody_found(place):
    """As evidence."""
    arguments, opened = place
    assert main(["ledger", *arguments, "--settle", "mail-2", "sent", "--message-id", "id-2"]) == 0

    async def look():
        async with opened() as ledger:
            return (await ledger.lookup(["mail-2"]))["mail-2"].message_id

    assert anyio.run(look) == "id-2"


def test_it_exports_and_forgets(place, capsys, tmp_path):
    """First the one, then the other."""
    arguments, opened = place
    target = tmp_path / "keys.csv"
    assert main(["ledger", *arguments, "--csv", str(target), "--purge", "1", "--purge-unknown"]) == 0
    said = capsys.readouterr().out
    assert f"4 keys written to {target}\n3 keys forgotten\n" in said
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert "mail-1,sent,id-1,,1970-01-02T00:00:00+00:00" in target.read_text(encoding="utf-8").splitlines()
    assert anyio.run(fates, opened, "mail-1", "mail-2", "mail-3") == {"mail-3": Status.UNKNOWN}


def test_nothing_unknown_is_no_list(tmp_path, capsys):
    """The usual end of a campaign."""
    path = tmp_path / "done.sqlite"

    async def fill():
        async with SQLiteLedger(path) as ledger:
            await ledger.claim(["a"])
            await ledger.record([LedgerEntry("a", Status.SENT)])

    anyio.run(fill)
    assert main(["ledger", str(path)]) == 0
    assert "unknown (" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no/such/file.sqlite"], "there is no file no/such/file.sqlite"),
        (["postgresql://u:secret@[h/d"], "the DSN must be"),
        (["host=127.0.0.1 sslmode=never password=secret"], "cannot be"),
        (["postgresql://u:secret@127.0.0.1:port/d"], "cannot be opened"),
        (["postgresql://h/d", "--table", "No"], "table must be"),
    ],
)
def test_a_ledger_that_cannot_be_opened(arguments, text, capsys, needs):
    """It is not made, and no secret is repeated."""
    needs("psycopg")
    assert main(["ledger", *arguments]) == 1
    said = capsys.readouterr()
    assert text in said.err
    assert "secret" not in said.out + said.err


def test_a_table_that_is_not_there_is_not_made(postgres: PostgresServer, capsys):
    """Whoever looks changes nothing."""
    assert main(["ledger", postgres.dsn, "--table", "nobodys"]) == 1
    assert "is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--settle", "a", "perhaps"],
        ["--message-id", "x"],
        ["--message-id", "x", "--settle", "a", "not-sent"],
        ["--purge", "-1"],
        ["--purge", "nan"],
        ["--purge-unknown"],
    ],
)
def test_options_that_make_no_sense(options, capsys):
    """They are refused before anything is opened."""
    with pytest.raises(SystemExit) as caught:
        main(["ledger", "no/such/file", *options])
    assert caught.value.code == 2
    assert "tanksend ledger: error:" in capsys.readouterr().err


def test_as_a_process(tmp_path):
    """`python -m tanksend ledger`, with a terminal that knows little."""
    path = str(tmp_path / "campaign.sqlite")

    async def fill():
        async with SQLiteLedger(path) as ledger:
            await ledger.claim(["ключ"])
            await ledger.record([LedgerEntry("ключ", Status.UNKNOWN)])

    anyio.run(fill)
    command = [sys.executable, "-m", "tanksend", "ledger", path]
    done = subprocess.run(
        command, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    )
    assert b"\\u043a\\u043b\\u044e\\u0447" in done.stdout


def test_a_reader_that_has_seen_enough(tmp_path, monkeypatch, capsys):
    """`… | head` is no error to speak of, and Python has nothing to complain of when it ends."""
    path = str(tmp_path / "campaign.sqlite")
    anyio.run(fill, lambda: SQLiteLedger(path))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["ledger", path]) == 1
    assert capsys.readouterr().err == ""


def test_ctrl_c_ends_it(place, monkeypatch):
    """Without a traceback."""

    async def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tanksend.cli._ledger._run", interrupted)
    assert main(["ledger", *place[0]]) == 130


def test_an_empty_file_stays_empty(tmp_path, capsys):
    """Whoever looks changes nothing."""
    path = tmp_path / "empty"
    path.touch()
    assert main(["ledger", str(path)]) == 1
    assert "it is empty" in capsys.readouterr().err
    assert path.read_bytes() == b""


def test_the_command_is_named_in_the_help(capsys):
    """Beside the others."""
    assert main(["--help"]) == 0
    assert "\n  ledger " in capsys.readouterr().out
