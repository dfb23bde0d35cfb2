from __future__ import annotations

import csv
import sys
import types
import warnings

import pytest

from tanksend import Message, SendResult, Status
from tanksend._progress import Outlet
from tanksend._report import row_of
from tanksend.exceptions import SettingError

MESSAGE = Message("kim@example.com", "Hi", "Hello")


def result(index):
    """A message that was sent."""
    return SendResult(index, MESSAGE, Status.SENT, f"id-{index}")


def outlet(messages=(), *, progress=None, on_result=None, save_to=None):
    """An outlet for these."""
    return Outlet(messages, progress=progress, on_result=on_result, save_to=save_to)


class Bar:
    """What tqdm would show."""

    made: list[Bar]
    breaks = False

    def __init__(self, **options):
        self.options = options
        self.shown = 0
        self.closed = 0
        type(self).made.append(self)

    def update(self, n):
        self.shown += n

    def close(self):
        self.closed += 1
        if self.breaks:
            raise RuntimeError("the notebook is gone")


@pytest.fixture
def bars(monkeypatch):
    """All bars that are made."""
    Bar.made = []
    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    return Bar.made


def test_nothing_asked_for_is_nothing_done(tmp_path, bars):
    """No bar, no file, no call."""
    for progress in (None, False):
        quiet = outlet([MESSAGE], progress=progress)
        assert quiet.put(result(0)) is None
        quiet.close()
    assert bars == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("messages", "total"), [([MESSAGE] * 3, 3), ((), 0), (iter([MESSAGE]), None)])
def test_a_callable_is_told_how_far_it_is(messages, total):
    """How many have their fate, and how many there are where that is known."""
    told = []
    out = outlet(messages, progress=lambda done, of: told.append((done, of)))
    out.put(result(0))
    out.put(result(1))
    out.close()
    assert told == [(1, total), (2, total)]


def test_a_bar_is_shown_and_closed(bars):
    """With the number of messages, when it is known."""
    out = outlet([MESSAGE] * 2, progress=True)
    out.put(result(0))
    out.put(result(1))
    (bar,) = bars
    assert (bar.options, bar.shown, bar.closed) == ({"total": 2, "unit": "mail"}, 2, 0)
    out.close()
    assert bar.closed == 1
    outlet(iter(()), progress=True).close()
    assert bars[1].options["total"] is None


def test_the_real_bar(capsys):
    """tqdm itself takes what it is told."""
    pytest.importorskip("tqdm")
    out = outlet([MESSAGE], progress=True)
    out.put(result(0))
    out.close()
    assert "1/1" in capsys.readouterr().err


def test_a_bar_without_tqdm_is_a_setting_error(monkeypatch, tmp_path):
    """It says what to install, before anything is sent, and the file of an earlier run is still whole."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    path = tmp_path / "out.csv"
    path.write_text("kept")
    with pytest.raises(SettingError, match=r"tanksend\[notebook\]"):
        outlet(progress=True, save_to=path)
    assert path.read_text() == "kept"


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path, bars):
    """Before anything is sent, and without a bar left on the screen."""
    with pytest.raises(FileNotFoundError):
        outlet(progress=True, save_to=tmp_path / "none" / "out.csv")
    assert bars == []


def test_the_length_is_not_asked_for_in_vain():
    """Some collections load everything to know it."""

    class Costly(list):
        def __len__(self):
            raise AssertionError("it was asked for")

    outlet(Costly()).close()
    outlet(Costly(), progress=False).close()
    with pytest.raises(AssertionError):
        outlet(Costly(), progress=print)


def test_what_the_callback_returns_comes_back():
    """So that an async one can be awaited."""
    out = outlet(on_result=lambda each: each.index * 2)
    assert [out.put(result(index)) for index in (1, 2)] == [2, 4]


def test_every_row_is_saved(tmp_path):
    """Each is in the file at once, for whoever is killed next; closing again is harmless."""
    path = tmp_path / "out.csv"
    out = outlet(save_to=str(path))
    for index in range(3):
        out.save(row_of(result(index)))
        with path.open(newline="") as file:
            assert [row[2] for row in csv.reader(file)] == ["message_id", "id-0", "id-1", "id-2"][: index + 2]
    out.close()
    out.close()
    assert outlet().save is None


@pytest.mark.parametrize("wrong", [{"progress": "yes"}, {"progress": 1}, {"on_result": "yes"}])
def test_what_cannot_be_called_is_refused(wrong, tmp_path):
    """By its name, before anything is sent, and the file of an earlier run is still whole."""
    path = tmp_path / "out.csv"
    path.write_text("kept")
    (name,) = wrong
    with pytest.raises(TypeError, match=name):
        outlet(save_to=path, **wrong)
    assert path.read_text() == "kept"


def test_a_notebook_without_widgets_is_not_warned_of(monkeypatch):
    """Tqdm says so, in red, when it is first loaded there, and then draws its bar in letters."""
    real = pytest.importorskip("tqdm.auto")
    module = types.ModuleType("tqdm.auto")

    def look(name):
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", stacklevel=1)
        return getattr(real, name)

    module.__getattr__ = look
    monkeypatch.setitem(sys.modules, "tqdm.auto", module)
    outlet(progress=True).close()


def test_the_file_is_closed_whatever_the_bar_does(tmp_path, bars, monkeypatch):
    """Rows are worth more than a bar."""
    monkeypatch.setattr(Bar, "breaks", True)
    path = tmp_path / "out.csv"
    out = outlet(progress=True, save_to=path)
    out.save(row_of(result(0)))
    with pytest.raises(RuntimeError):
        out.close()
    with pytest.raises(ValueError, match="closed"):
        out.save(row_of(result(1)))
    assert "id-0" in path.read_text()
    assert bars[0].closed == 1
