from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tanksend
from tanksend import Message, SendReport, SendResult, Status
from tanksend.cli import _demo, main
from tanksend.cli._demo_report import (
    Audit,
    audit,
    bad_row_lines,
    domain_lines,
    fate_lines,
    glyph,
    median_second,
    shown_domain,
)
from tanksend.cli._people import each_once, read_people, suppressions
from tanksend.exceptions import HeldError, InvalidMessageError
from tanksend.testing import Delivered, Inbox, SimulatedSES

LAST_LINE = re.compile(
    r"sent (\d+) · suppressed (\d+) · invalid (\d+) · unknown (\d+) · failed (\d+) · held (\d+)"
    r" · doubled (\d+) · lost (\d+)"
)
FAST = ["demo", "--rate", "5000"]
NAMES = ("sent", "suppressed", "invalid", "unknown", "failed", "held", "doubled", "lost")
PACKAGE = Path(tanksend.__file__).parent


def _figures(output: str) -> dict[str, int]:
    """The numbers of the last line, which has to be written exactly so."""
    found = LAST_LINE.fullmatch(output.rstrip("\n").rpartition("\n")[2])
    assert found is not None, output
    return dict(zip(NAMES, map(int, found.groups()), strict=True))


def _run(*arguments: str) -> tuple[int, str]:
    """Run the demo here; its status and what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()):
        status = main([*FAST, *arguments])
    return status, stdout.getvalue()


@pytest.fixture(scope="module")
def shipped():
    """One run with the people that ship and faults, for all tests that look at it."""
    return _run()


# --- the whole -------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_or_doubled(shipped):
    """With faults on, the inbox agrees with every fate, and the exit status says so."""
    status, output = shipped
    figures = _figures(output)
    assert (0, 0, 0) == (status, figures["doubled"], figures["lost"])
    assert figures["sent"] > 450
    assert 0 < figures["unknown"] < 60


def test_each_person_has_one_fate(shipped):
    """The fates of the last line add up to the people in the file."""
    figures = _figures(shipped[1])
    people = each_once(read_people(_demo.PEOPLE))
    assert len(people) == sum(figures[name] for name in NAMES[:6])
    assert sum(person.judged is None for person in people) == figures["invalid"]
    assert sum(person.suppressed is not None for person in people) == figures["suppressed"]


def test_the_report_tells_fates_domains_pace_and_throttles(shipped):
    """All that the demo promises to show is there, IDN domains as their owners write them."""
    output = shipped[1]
    for text in ("600 rows in people.csv", "hanpost.example", "5000 allowed", "throttled", "reset-after", "line "):
        assert text in output
    assert "xn--" not in output


def test_it_names_nobody(shipped):
    """Neither an address nor a name is in what it prints."""
    output = shipped[1]
    for person in read_people(_demo.PEOPLE):
        assert not person.address.local or f"{person.address.local}@" not in output
        assert len(person.address.name) < 8 or person.address.name not in output


def _tampered(monkeypatch: pytest.MonkeyPatch, tamper) -> tuple[int, dict[str, int], str]:
    """Run the demo with somebody at the inbox before it is counted."""

    class Tampered(SimulatedSES):
        def stop(self) -> None:
            super().stop()
            items = list(self.inbox)
            self.inbox.clear()
            for item in tamper(items):
                self.inbox.add(item)

    monkeypatch.setattr(_demo, "SimulatedSES", Tampered)
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
        status = main([*FAST, "--no-faults"])
    return status, _figures(stdout.getvalue()), stderr.getvalue()


def test_a_doubled_message_is_found(monkeypatch):
    """A message that SES has twice is counted, and the demo fails."""
    status, figures, complaint = _tampered(monkeypatch, lambda items: [*items, items[7]])
    assert (1, 1, 0) == (status, figures["doubled"], figures["lost"])
    assert "1 delivered more than once" in complaint


def test_a_lost_message_is_found(monkeypatch):
    """A message that is called sent and that SES has not is counted, and the demo fails."""
    status, figures, complaint = _tampered(monkeypatch, lambda items: items[2:])
    assert (1, 0, 2) == (status, figures["doubled"], figures["lost"])
    assert "2 called sent, but not in the inbox" in complaint


def test_it_works_vendored_on_a_hostile_machine(tmp_path):
    """Under another name, with somebody's AWS settings, a dead proxy and a terminal that has few letters."""
    shutil.copytree(PACKAGE, tmp_path / "vendored", ignore=shutil.ignore_patterns("__pycache__"))
    hostile = {
        "AWS_PROFILE": "nobody",
        "AWS_CA_BUNDLE": str(tmp_path / "missing.pem"),
        "AWS_ENDPOINT_URL": "https://nowhere.invalid",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "PYTHONIOENCODING": "cp1252",
    }
    done = subprocess.run(
        [sys.executable, "-m", "vendored", "demo", "--rate", "5000", "--no-faults"],
        cwd=tmp_path,
        env={**os.environ, **hostile},
        capture_output=True,
        check=False,
        timeout=60,
    )
    output = done.stdout.decode("cp1252").replace("\r\n", "\n")
    figures = _figures(output)
    assert (0, 0) == (done.returncode, figures["unknown"])
    assert "??.example" in output
    assert "####" in output


def test_the_environment_is_given_back(monkeypatch):
    """What the demo hides from itself is there again afterwards."""
    monkeypatch.setenv("AWS_PROFILE", "mine")
    before = dict(os.environ)
    with _demo._nobodys_account():
        assert "AWS_PROFILE" not in os.environ
    assert before == dict(os.environ)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that a program can send to itself alone")
def test_ctrl_c_still_gives_a_report(monkeypatch):
    """Stopped in the middle, it says what was sent and holds the rest, with the status of an interrupted program."""

    class Interrupting(SimulatedSES):
        def start(self) -> None:
            super().start()
            self.at_send(50, lambda: os.kill(os.getpid(), signal.SIGINT))

    monkeypatch.setattr(_demo, "SimulatedSES", Interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Who runs tests in the background ignores it.
    try:
        status, output = _run("--rate", "200", "--no-faults")
    finally:
        signal.signal(signal.SIGINT, before)
    figures = _figures(output)
    assert 130 == status
    assert figures["held"] > 0
    assert figures["sent"] >= 40


def test_stopped_before_anything_it_says_nothing(monkeypatch):
    """Without a report there is no last line to read wrongly."""
    show = _demo.Show((), ())
    assert 130 == show.report(SimulatedSES(), shipped=True, finished=False)


# --- the people that ship --------------------------------------------------------------------------------------------


def test_the_people_that_ship_are_nobody():
    """Each good address is in a domain that RFC 2606 keeps for examples: no real person can ever get a mail."""
    judged = [person.judged for person in read_people(_demo.PEOPLE) if person.judged]
    assert all(address.domain.endswith(".example") for address in judged)


def test_the_people_that_ship_are_of_all_kinds():
    """Four languages, IDN domains, many ways to be wrong, all reasons for suppression, some named twice."""
    people = read_people(_demo.PEOPLE)
    assert 600 == len(people)
    assert {"en", "id", "ja", "ko"} == {person.language for person in people}
    assert any(person.judged and "xn--" in person.judged.domain for person in people)
    reasons = {_demo.letter(person).check()[0].reason for person in people if person.judged is None}
    assert len(reasons) >= 20
    assert {"bounce", "complaint", "unsubscribe"} == {person.suppressed for person in people if person.suppressed}
    assert 585 == len(each_once(people))


def test_a_letter_is_personal_and_safe():
    """It has both parts, the name escaped in HTML, one-click unsubscribe and tags; SES would take each."""
    people = [person for person in read_people(_demo.PEOPLE) if person.judged]
    quoted = next(person for person in people if '"' in person.address.name)
    message = _demo.letter(quoted)
    assert quoted.address.name in message.text
    assert "&quot;" in message.html
    assert str(quoted.line) in message.unsubscribe.url
    assert [()] == list({_demo.letter(person).check() for person in people})


# --- one's own people ------------------------------------------------------------------------------------------------


def _file(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "own.csv"
    path.write_bytes(text.encode(encoding))
    return path


OWN = """\
Name, Email ,Suppressed
김철수,kim@example.com,
"Kim, Jr",jr@example.com
Both,one@example.com; two@example.com,
Secret,secret@@example.com,
Again, KIM@EXAMPLE.COM ,
Gone,gone@example.com,Bounce
Odd,odd@example.com,whatever
,nameless@example.com,
"""


def test_own_people_are_sent_to_and_bad_rows_named(tmp_path):
    """A file with a byte order mark, stray spaces and a short row: bad rows are named by line, and not repeated."""
    path = _file(tmp_path, OWN, "utf-8-sig")
    status, output = _run("--no-faults", "--csv", str(path))
    figures = _figures(output)
    assert (0, 3, 2, 2) == (status, figures["sent"], figures["suppressed"], figures["invalid"])
    assert re.search(r"line +4 +this is more than one address", output)
    assert re.search(r"line +5 +a character before", output)
    assert "8 rows in own.csv, 1 of them skipped" in output
    assert "ecret" not in output


def test_a_suppression_holds_for_every_spelling():
    """It is enough that one of a person's rows says so."""
    people = read_people(_demo.PEOPLE)
    assert 24 == len(suppressions(people))
    assert 1 == sum(
        person.suppressed is None and person.identity in {other.identity for other in people if other.suppressed}
        for person in people
    )


@pytest.mark.parametrize(
    ("text", "encoding", "reason"),
    [
        ("", "utf-8", "must name the columns"),
        ("naam,email\na,a@example.com\n", "utf-8", "must name the columns"),
        ("name,email\n김,kim@example.com\n", "euc-kr", "not UTF-8"),
        (f"name,email\n{'x' * 200_000},kim@example.com\n", "utf-8", "not CSV"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path, capsys, text, encoding, reason):
    """The text says what is wrong with the file and repeats nothing of it."""
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--csv", str(_file(tmp_path, text, encoding))])
    assert 2 == stopped.value.code
    said = capsys.readouterr().err
    assert reason in said
    assert "example.com" not in said


def test_a_missing_file_is_a_clear_error(tmp_path, capsys):
    """One line, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--csv", str(tmp_path / "missing.csv")])
    assert 2 == stopped.value.code
    assert "tanksend demo: missing.csv: " in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "0.5", "inf", "nan", "many"])
def test_a_rate_that_makes_no_sense_is_refused(rate, capsys):
    """SES has no rate below one, and the demo needs one to show that it keeps to it."""
    with pytest.raises(SystemExit) as stopped:
        main(["demo", f"--rate={rate}"])
    assert 2 == stopped.value.code
    assert "--rate: must be a number, 1 or more" in capsys.readouterr().err


def test_a_file_without_people_is_no_failure(tmp_path):
    """Nobody to write to: all figures are 0."""
    status, output = _run("--csv", str(_file(tmp_path, "name,email\n")))
    assert 0 == status
    assert {0} == set(_figures(output).values())


# --- the report ------------------------------------------------------------------------------------------------------


def _message(row: int) -> Message:
    return Message(to="a@example.com", subject="Hi", text="Hello", tags={"row": str(row)})


def _result(row: int, status: Status, **more) -> SendResult:
    return SendResult(row, _message(row), status, **more)


def _delivered(row: int, at: float = 0.0) -> Delivered:
    return Delivered(f"id-{row}", "f@example.com", ("a@example.com",), "Hi", {"row": str(row)}, None, None, at, at)


def _report(*results: SendResult) -> SendReport:
    report = SendReport()
    for result in results:
        report.add(result)
    return report


def _inbox(*items: Delivered) -> Inbox:
    inbox = Inbox()
    for item in items:
        inbox.add(item)
    return inbox


def test_the_audit_finds_each_kind_of_untruth():
    """Twice delivered, sent and not there, there and not sent, no fate, two fates; unknown and there is no untruth."""
    messages = [_message(row) for row in range(7)]
    report = _report(
        _result(0, Status.SENT, message_id="id-0"),
        _result(1, Status.SENT, message_id="id-1"),
        _result(2, Status.SENT, message_id="another"),
        _result(3, Status.HELD),
        _result(4, Status.UNKNOWN),
        _result(5, Status.UNKNOWN),
        _result(5, Status.UNKNOWN),
    )
    inbox = _inbox(*(_delivered(row) for row in (0, 0, 2, 3, 4)))
    found = audit(messages, report, inbox)
    assert Audit(doubled=1, lost=2, strays=1, fateless=2, arrived=1) == found
    assert 4 == len(found.complaints)


def test_remarks_say_why():
    """Held and failed messages show their codes, unknown ones what the inbox knows, absent fates nothing."""
    held = HeldError("later", code="Deadline")
    report = _report(*(_result(row, Status.HELD, error=held) for row in range(3)), _result(3, Status.UNKNOWN))
    lines = list(fate_lines(report, Audit(0, 0, 0, 0, 1)))
    assert lines[0].split() == ["sent", "0"]
    assert lines[3].endswith("SES has 1 of them, and none was sent again")
    assert lines[5].endswith("Deadline 3")


def test_bad_rows_are_cut_at_a_number():
    """More than asked for are counted only; an error without problems shows nothing."""
    error = InvalidMessageError("to: too odd")
    refused = [_result(row, Status.INVALID, error=error) for row in (1, 2, 3)] + [_result(4, Status.INVALID)]
    lines = list(bad_row_lines(refused, 2))
    assert ["  line     1  to: too odd", "  line     2  to: too odd", "  and 2 more"] == lines
    assert ["  line     4"] == [line.rstrip() for line in bad_row_lines(refused[3:], 2)]


@pytest.mark.parametrize(
    ("domain", "shown"),
    [
        ("example.com", "example.com"),
        ("xn--vo5bi2v.example", "우편.example"),
        ("xn--a.example", "xn--a.example"),
        ("", "(no domain)"),
        ("post.example>", "(no domain)"),
        ("l" * 50, "l" * 37 + "..."),
        ("우편.example", "우편.example"),
    ],
)
def test_domains_are_shown_as_their_owners_write_them(domain, shown):
    """Punycode is decoded where it can be; what is no domain is not repeated."""
    assert shown == shown_domain(domain)


def test_domains_line_up():
    """Wide letters take two columns, so the numbers stand below each other."""
    report = _report(
        SendResult(0, Message(to="a@우편.example", subject="Hi", text="Hello"), Status.SENT),
        SendResult(1, Message(to="a@an.example", subject="Hi", text="Hello"), Status.INVALID),
    )
    head, *lines = domain_lines(report)
    assert head.split() == ["sent", "invalid"]
    assert {len(lines[0]), len(lines[1])} == {len(head), len(head) - 2}


def test_the_median_second_shrugs_off_a_quiet_end():
    """A last retry that comes late does not hide the pace that was held."""
    items = [_delivered(row, at=row / 10) for row in range(50)] + [_delivered(51, at=7.0)]
    assert 10 == median_second(_inbox(*items))
    assert 2 == median_second(_inbox(_delivered(0), _delivered(1)))
    assert 0 == median_second(_inbox())


@pytest.mark.parametrize(("encoding", "made_of"), [("utf-8", "█"), ("ascii", "#"), ("nonsense", "#")])
def test_bars_are_made_of_what_can_be_shown(monkeypatch, encoding, made_of):
    """A terminal without block letters gets number signs."""

    class Stream(io.StringIO):
        pass

    stream = Stream()
    monkeypatch.setattr(Stream, "encoding", encoding, raising=False)
    monkeypatch.setattr(sys, "stdout", stream)
    assert made_of == glyph()


# --- progress --------------------------------------------------------------------------------------------------------


def _stderr(monkeypatch: pytest.MonkeyPatch, *, columns: int | None) -> io.StringIO:
    """Make stderr a terminal of so many columns; None for none at all."""
    stream = io.StringIO()
    stream.isatty = lambda: columns is not None  # type: ignore[method-assign]
    stream.fileno = lambda: 2  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns or 0, 24)))
    return stream


def test_a_terminal_with_tqdm_gets_its_bar(monkeypatch):
    """`progress=True` is what a user writes."""
    _stderr(monkeypatch, columns=80)
    monkeypatch.setattr(_demo, "find_spec", lambda _: object())
    assert _demo.progress() is True


def test_a_terminal_that_cannot_say_its_size_is_none(monkeypatch):
    """tqdm would show nothing there."""
    stream = _stderr(monkeypatch, columns=80)
    monkeypatch.setattr(_demo, "find_spec", lambda _: object())
    stream.fileno = io.StringIO().fileno
    assert _demo.progress() == _demo._PlainBar(steps=5)


@pytest.mark.parametrize(("columns", "shown", "lines"), [(80, 100, 1), (0, 5, 5), (None, 5, 5)])
def test_without_tqdm_there_is_a_plain_bar(monkeypatch, columns, shown, lines):
    """It is drawn over itself on a terminal; a log gets a line for each fifth."""
    stream = _stderr(monkeypatch, columns=columns)
    monkeypatch.setattr(_demo, "find_spec", lambda _: None)
    bar = _demo.progress()
    assert callable(bar)
    for done in range(1, 601):
        bar(done, 600)
    text = stream.getvalue()
    assert (shown, lines) == (text.count("%"), text.count("\n"))
    assert text.endswith("100%\n")


def test_a_bar_without_a_total_is_full():
    """The engine may not know how many there are."""
    bar = _demo._PlainBar(steps=5)
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        bar(3, None)
    assert stream.getvalue().endswith("100%\n")
