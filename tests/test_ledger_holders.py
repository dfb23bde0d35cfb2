from __future__ import annotations

import errno
import os

import pytest

from tanksend.ledgers import _holders
from tanksend.ledgers._holders import Holder


@pytest.fixture
def holders(tmp_path):
    """Two who hold claims in the same ledger."""
    holders = [Holder(str(tmp_path / "ledger [1].db")) for _ in range(2)]
    yield holders
    for holder in holders:
        holder.let_go()


def kill(holder):
    """As `kill -9` does: the lock is gone, the file stays."""
    os.close(holder._descriptor)
    holder._descriptor = None


def test_who_holds_lives(holders, tmp_path):
    """To himself always, to others while he holds."""
    first, second = holders
    assert first.alive(first.number)
    assert not second.alive(first.number + 1)
    first.hold()
    first.hold()
    assert second.alive(first.number)
    assert [0o600] == [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()]
    kill(first)
    assert not second.alive(first.number)


def test_the_dead_do_not_come_back(holders):
    """What was said of their claims must not change; whoever claims again is somebody new, and is known to live."""
    first, second = holders
    number = first.hold()
    first.let_go()
    first.let_go()
    assert not second.alive(number)
    assert first.hold() == first.number != number
    assert {number} == first.past
    assert [False, True] == [second.alive(number), second.alive(first.number)]


def test_the_next_one_sweeps_up(holders, tmp_path):
    """The files of the dead, and nobody else's."""
    first, second = holders
    first.hold()
    kill(first)
    (tmp_path / "ledger [1].db").touch()
    (tmp_path / "another.db-holder-1").touch()
    second.hold()
    left = {file.name for file in tmp_path.iterdir()}
    assert {"another.db-holder-1", "ledger [1].db", f"ledger [1].db-holder-{second.number:016x}"} == left


def test_each_is_looked_at_once(holders, monkeypatch):
    """In one glance, however many of its keys there are."""
    first, second = holders
    first.hold()
    looked = []
    original = _holders._is_locked
    monkeypatch.setattr(_holders, "_is_locked", lambda file: looked.append(file) or original(file))
    alive = second.glance()
    assert [True, True] == [alive(first.number), alive(first.number)]
    assert 1 == len(looked)


def test_a_file_that_is_swept_away_too_early_is_made_again(holders, monkeypatch):
    """Between its making and its locking somebody may take it for one of the dead."""
    first, second = holders
    original, swept = _holders._lock, []

    def late(descriptor, *, exclusive):
        if exclusive and len(swept) < 2:
            swept.append(True)
            first._file(first.number).unlink()
            if len(swept) == 2:
                raise OSError(errno.EAGAIN, "somebody looks at it")
        original(descriptor, exclusive=exclusive)

    monkeypatch.setattr(_holders, "_lock", late)
    first.hold()
    assert 2 == len(swept)
    assert second.alive(first.number)


def test_what_cannot_be_told_is_not_death(holders, monkeypatch):
    """Only a proof makes a claim unknown before its lease ends."""
    first, second = holders
    first.hold()
    kill(first)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert second.alive(first.number)
    with monkeypatch.context() as patched:
        patched.setattr(_holders, "_lock", refuse)
        assert second.alive(first.number)
        with pytest.raises(PermissionError):
            second.hold()
    assert not second.alive(first.number)


def test_a_child_is_somebody_else(holders):
    """The claims are the parent's, and the child's copy of the lock must not outlive him."""
    first, second = holders
    first.hold()
    number = first.number
    first.before_fork()
    first.after_fork_in_parent()
    assert (number, True) == (first.number, second.alive(number))
    first.after_fork_in_child()
    assert number != first.number
    assert not second.alive(number)
    first.after_fork_in_child()
