from __future__ import annotations

import os
import warnings

import pytest

from tanksend import _forks


class Thing:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def before_fork(self):
        self.told.append("before")

    def after_fork_in_parent(self):
        self.told.append("parent")

    def after_fork_in_child(self):
        self.told.append("child")


@pytest.fixture
def things(monkeypatch):
    """Nobody is watched but these."""
    monkeypatch.setattr(_forks, "_watched", type(_forks._watched)())
    things = [Thing(), Thing()]
    for thing in things:
        _forks.watch(thing)
    return things


def test_all_are_told_before_and_after(things):
    """In the parent as in the child; one that came between has its turn next time."""
    _forks._before()
    _forks._in_parent()
    late = Thing()
    _forks.watch(late)
    _forks._before()
    _forks._in_child()
    assert [["before", "parent", "before", "child"]] * 2 == [thing.told for thing in things]
    assert ["before", "child"] == late.told
    assert [] == _forks._resting


def test_who_is_gone_is_told_nothing(things):
    """Being watched keeps nobody alive."""
    things.pop()
    assert 1 == len(_forks._watched)


def test_a_real_fork_tells_them(things):
    """Through Python's own hooks."""
    reading, writing = os.pipe()
    child = _fork()
    if not child:
        os.write(writing, " ".join(things[0].told).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"before child" == os.read(reading, 100)
    assert ["before", "parent"] == things[0].told
    os.close(reading)
    os.close(writing)


def _fork():
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    with warnings.catch_warnings():
        # From 3.12 on Python warns of forks beside threads, which is what this is for.
        warnings.simplefilter("ignore")
        return os.fork()


def test_a_fork_that_nobody_told_of_is_seen(monkeypatch):
    """The process is another one."""
    assert not _forks.was_forked_unseen()
    monkeypatch.setattr(_forks, "_process", -1)
    assert _forks.was_forked_unseen()


def test_a_fork_before_anything_was_watched_harms_nobody(monkeypatch):
    """A pool of processes that imported this and makes its ledgers in the children, as `multiprocessing` does."""
    monkeypatch.setattr(_forks, "_process", -1)
    monkeypatch.setattr(_forks, "_registered", [])
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None, raising=False)
    _forks.watch(Thing())
    assert not _forks.was_forked_unseen()


def test_a_child_that_hears_of_a_fork_too_late_says_so(things, monkeypatch):
    """A server that embeds Python may fork first and tell afterwards: nothing came to rest."""
    monkeypatch.setattr(_forks, "_process", -1)
    _forks._in_child()
    assert _forks.was_forked_unseen()
    assert [] == things[0].told
