from __future__ import annotations

import csv
import os
import pickle
import stat
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from tanksend import Address, Message, Row, SendReport, SendResult, Status, _report
from tanksend._report import DomainCounts, RowFile
from tanksend.exceptions import BatchError, SendError, ThrottlingError
from tanksend.typing import LimiterFigures

MESSAGE = Message("kim@Example.com", "secret", "secret")


def result(index=0, status=Status.SENT, *, message=MESSAGE, to=("kim@example.com",), **fields):
    """What became of a message to these."""
    if status is Status.SENT:
        fields.setdefault("message_id", f"id-{index}")
    return SendResult(index, message, status, recipients=tuple(Address("", email) for email in to), **fields)


def report_of(*results, **options):
    """A report of these."""
    report = SendReport(**options)
    for each in results:
        report.add(each)
    return report


# --- counting --------------------------------------------------------------------------------------------------------


def test_an_empty_report():
    """Nothing to send is no failure."""
    report = SendReport()
    assert report.counts == dict.fromkeys(Status, 0)
    assert (report.total, report.rows, report.rows_cut, report.recipients) == (0, (), 0, 0)
    assert (report.duration, report.recipients_per_second, report.waited, report.throttled) == (0.0, 0.0, 0.0, 0)
    assert report.by_domain == {}
    assert report.ok
    assert (str(report), repr(report)) == ("nothing to send", "<SendReport nothing to send>")
    report.raise_for_failures()


@given(st.lists(st.tuples(st.sampled_from(Status), st.integers(1, 5), st.floats(0, 10)), max_size=60))
def test_a_report_counts_everything_once(made):
    """Messages by fate, recipients where SES took them, seconds added up."""
    report = report_of(
        *(
            result(index, status, to=[f"p{n}@example.com" for n in range(count)], waited=waited)
            for index, (status, count, waited) in enumerate(made)
        )
    )
    counted = Counter(status for status, _, _ in made)
    assert report.counts == {status: counted[status] for status in Status}
    assert report.total == len(made) == len(report.rows)
    assert report.recipients == sum(count for status, count, _ in made if status is Status.SENT)
    assert report.waited == pytest.approx(sum(waited for _, _, waited in made))
    assert report.ok is all(status in {Status.SENT, Status.ALREADY_SENT} for status, _, _ in made)
    assert sum(sum(counts.values()) for counts in report.by_domain.values()) == len(made)


def test_counts_cannot_be_changed():
    """They are a view for reading."""
    report = report_of(result())
    with pytest.raises(TypeError):
        report.counts[Status.SENT] = 5
    with pytest.raises(TypeError):
        report.by_domain["example.com"] = {}


def test_rows_are_cut_and_it_says_so():
    """The first ones are kept; the counts are of all."""
    report = report_of(*(result(index) for index in range(5)), keep=2)
    assert report.rows == (Row(0, Status.SENT, "id-0", None), Row(1, Status.SENT, "id-1", None))
    assert (report.rows_cut, report.total) == (3, 5)
    assert report_of(result(), keep=0).rows == ()
    many = SendReport()
    for _ in range(10_001):
        many.add(result())
    assert (len(many.rows), many.rows_cut) == (10_000, 1)


def test_the_pace_held():
    """Recipients, not messages, by the duration."""
    report = report_of(result(to=["a@example.com", "b@example.com"]), result(status=Status.HELD))
    report.duration = 4.0
    assert report.recipients_per_second == 0.5
    report.duration = 0.5
    assert report.recipients_per_second == 4.0


def test_the_text_of_a_report():
    """Fates in their order, however they came, and why it stopped."""
    report = report_of(result(status=Status.HELD), result(), result(status=Status.UNKNOWN), result())
    assert str(report) == "sent 2 · unknown 1 · held 1"
    report.note = "stopped: it was late"
    assert repr(report) == "<SendReport sent 2 · unknown 1 · held 1 (stopped: it was late)>"


def test_failures_can_be_raised():
    """With the whole report; a batch that was stopped is a failure, too."""
    report = report_of(result(), result(status=Status.ALREADY_SENT))
    report.raise_for_failures()
    report.note = "stopped"
    with pytest.raises(BatchError, match="sent 1 · already-sent 1"):
        report.raise_for_failures()
    bad = report_of(result(), result(status=Status.FAILED))
    with pytest.raises(BatchError) as caught:
        bad.raise_for_failures()
    assert caught.value.report is bad


def test_a_report_survives_pickling():
    """For those who send in another process."""
    report = report_of(result(), result(status=Status.HELD))
    again = pickle.loads(pickle.dumps(report))  # noqa: S301
    assert (again.counts, again.rows, again.by_domain) == (report.counts, report.rows, report.by_domain)


# --- domains ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        (result(to=["a@example.com", "b@example.org"]), "example.com"),
        (result(status=Status.SUPPRESSED, to=[], suppressed=(Address("", "a@example.net"),)), "example.net"),
        (result(status=Status.INVALID, to=[]), "example.com"),
        (result(status=Status.INVALID, to=[], message=Message([], "a", "b", cc="a@bücher.example")), "bücher.example"),
        (result(status=Status.INVALID, to=[], message=Message([], "a", "b")), "other"),
        (result(status=Status.INVALID, to=[], message=Message("a@b@kim at home.com", "a", "b")), "other"),
        (result(status=Status.INVALID, to=[], message=Message("a@host", "a", "b")), "other"),
        (result(status=Status.INVALID, to=[], message=Message(f"a@{'b.' * 200}com", "a", "b")), "other"),
        (result(status=Status.INVALID, to=[], message=Message("a@<script>.com", "a", "b")), "other"),
        (result(status=Status.INVALID, to=[], message="not a message"), "other"),
    ],
)
def test_each_message_counts_for_one_domain(given_, shown):
    """The first recipient's; what looks like none, and may be anything, is one of the others."""
    assert report_of(given_).by_domain == {shown: {given_.status: 1}}


small = st.lists(
    st.tuples(st.none() | st.sampled_from("abcdefghij"), st.sampled_from([Status.SENT, Status.HELD])), max_size=80
)


@given(small)
def test_folding_keeps_totals_exact(pairs):
    """However many domains there are, every message is counted once, and memory is bounded."""
    counts = DomainCounts()
    counts._CAPACITY = 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_report, "DOMAINS_SHOWN", 2)
        for domain, status in pairs:
            counts.add(domain, status)
            assert len(counts._counts) <= 4
        shown = counts.as_mapping()
    assert len(shown) <= 3
    totals = Counter()
    for by_status in shown.values():
        totals.update(by_status)
    assert totals == Counter(status for _, status in pairs)
    assert all(list(shown)[-1] == "other" for _ in "x" if "other" in shown)


@given(small)
def test_few_domains_are_counted_exactly(pairs):
    """Largest first, then by name."""
    counts = DomainCounts()
    for domain, status in pairs:
        counts.add(domain, status)
    expected = Counter(domain for domain, _ in pairs if domain)
    shown = {domain: sum(by_status.values()) for domain, by_status in counts.as_mapping().items()}
    others = shown.pop("other", 0)
    assert list(shown.items()) == sorted(expected.items(), key=lambda item: (-item[1], item[0]))
    assert others == sum(domain is None for domain, _ in pairs)


def test_a_large_domain_stays_visible_among_many_small_ones():
    """The thousand largest are shown, and no more is held than twice as many."""
    counts = DomainCounts()
    for number in range(10_000):
        counts.add(f"d{number}.example", Status.SENT)
        counts.add("large.example", Status.HELD)
        assert len(counts._counts) <= 2_000
    shown = counts.as_mapping()
    assert len(shown) == 1_001
    assert next(iter(shown)) == "large.example"
    assert shown["large.example"] == {Status.HELD: 10_000}
    assert sum(by_status.get(Status.SENT, 0) for by_status in shown.values()) == 10_000


def test_a_report_can_be_read_while_it_fills():
    """`last_report` of a batch that another thread sends."""
    report, stop = SendReport(keep=100), threading.Event()

    def fill():
        index = 0
        while not stop.is_set():
            report.add(result(index, list(Status)[index % 8], to=[f"a@d{index % 3_000}.example"]))
            index += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=fill)
    thread.start()
    try:
        for _ in range(20):
            assert str(report)
            assert report._repr_html_()
            assert report.total >= 0
            assert len(report.by_domain) <= 1_001
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


# --- why -------------------------------------------------------------------------------------------------------------


def failed(code, text="It is so", **fields):
    """A message that was not sent, and why."""
    return result(status=Status.FAILED, error=SendError(text, code=code, remedy="Do this"), **fields)


def test_a_report_says_why_messages_were_not_sent():
    """By code, the most frequent first, in the words of the first; in a notebook, and when it is raised."""
    report = report_of(result(), failed("Rare"), failed("Often", "First <b>"), failed("Often", "Second"))
    assert list(report.errors.items()) == [("Often", (2, "First <b>. Do this.")), ("Rare", (1, "It is so. Do this."))]
    assert report._repr_html_().endswith(
        "<p>Often (2): First &lt;b&gt;. Do this.</p><p>Rare (1): It is so. Do this.</p>"
    )
    with pytest.raises(BatchError, match=r"^sent 1 · failed 3; Often: First <b>\. Do this\.$"):
        report.raise_for_failures()


def test_why_a_batch_stopped_is_said_once():
    """The note has the words of the error already."""
    report = report_of(failed("Often"))
    report.note = "stopped: It is so"
    with pytest.raises(BatchError, match=r"^failed 1 \(stopped: It is so\)$"):
        report.raise_for_failures()


def test_an_error_without_a_code_goes_by_its_kind():
    """Those of a transport of somebody's own may have none."""
    error = SendError("It is so")
    error.code = None
    assert report_of(result(status=Status.FAILED, error=error)).errors == {"SendError": (1, "It is so.")}


def test_reasons_take_bounded_memory(monkeypatch):
    """What a server calls its errors is not ours to trust; a notebook shows the most frequent."""
    monkeypatch.setattr(_report, "CODES_KEPT", 7)
    report = report_of(*(failed(f"C{number}") for number in range(9)), failed("C3"))
    assert {code: number for code, (number, _) in report.errors.items()} == {
        "C3": 2, "other": 2, **dict.fromkeys(["C0", "C1", "C2", "C4", "C5", "C6"], 1)
    }  # fmt: skip
    assert report._repr_html_().count("It is so") == 5


# --- HTML and pandas -------------------------------------------------------------------------------------------------


def test_the_html_of_a_report():
    """Counts and domains in a table, figures below."""
    report = report_of(result(), result(status=Status.HELD, to=["a@example.org"]))
    report.duration, report.throttled = 2.0, 3
    assert report._repr_html_() == (
        "<table><tr><th>domain</th><th>sent</th><th>held</th></tr>"
        "<tr><td><b>all</b></td><td>1</td><td>1</td></tr>"
        "<tr><td>example.com</td><td>1</td><td>0</td></tr>"
        "<tr><td>example.org</td><td>0</td><td>1</td></tr>"
        "</table><p>2.0 s, 0.5 recipients/s, throttled 3</p>"
    )


def test_the_html_is_escaped():
    """Domains come from outside, and the note from an error."""
    report = report_of(result(to=["a@<script>alert(1)</script>&"]))
    report.note = '<img src="x">'
    text = report._repr_html_()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<p>&lt;img src=&quot;x&quot;&gt;</p>" in text


def test_the_html_says_what_it_leaves_out():
    """Twenty domains fit a page."""
    report = report_of(*(result(to=[f"a@d{number}.example"]) for number in range(22)))
    text = report._repr_html_()
    assert text.count("<td>d") == 20
    assert "<tr><td>… and 2 more</td></tr>" in text
    assert "more" not in report_of(*(result(to=[f"a@d{number}.example"]) for number in range(20)))._repr_html_()


def test_pandas():
    """A table of the rows, and an empty one has the columns, too."""
    pandas = pytest.importorskip("pandas")
    frame = report_of(result(), result(1, Status.HELD, error=ThrottlingError())).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["index", "status", "message_id", "error"]
    assert frame.astype(object).where(frame.notna(), None).to_numpy().tolist() == [
        [0, "sent", "id-0", None],
        [1, "held", None, "Throttling"],
    ]
    assert list(SendReport().to_pandas().columns) == ["index", "status", "message_id", "error"]


# --- files -----------------------------------------------------------------------------------------------------------


def read(path):
    """The cells of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_csv_of_the_rows(tmp_path):
    """What `rows` holds, under a head."""
    path = tmp_path / "out.csv"
    report_of(result(), result(1, Status.HELD, error=ThrottlingError()), result(2), keep=2).to_csv(path)
    assert read(path) == [
        ["index", "status", "message_id", "error"],
        ["0", "sent", "id-0", ""],
        ["1", "held", "", "Throttling"],
    ]


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_only_this_user_may_read_the_file(tmp_path, before):
    """Also when the file was there, with another mode and longer."""
    path = tmp_path / "out.csv"
    if before is not None:
        path.write_text("secret\n" * 100)
        path.chmod(before)
    mask = os.umask(0)
    try:
        SendReport().to_csv(str(path))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "index,status,message_id,error\n"


def test_a_device_keeps_its_mode(tmp_path):
    """Somebody who wants no file may say /dev/null, as root too: it must stay open to all."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        SendReport().to_csv(pipe)
        assert os.read(reader, 100) == b"index,status,message_id,error\r\n"
    finally:
        os.close(reader)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o666


def test_a_file_that_cannot_be_made_private_is_not_written(tmp_path, monkeypatch):
    """It belongs to somebody else; nothing stays open."""
    opened = []
    real = os.open

    def remember(*args):
        opened.append(real(*args))
        return opened[-1]

    def refuse(path, mode):
        raise PermissionError

    refuse_too = {*os.supports_fd, refuse}
    monkeypatch.setattr(os, "open", remember)
    monkeypatch.setattr(os, "supports_fd", refuse_too)
    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        RowFile(tmp_path / "out.csv")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[-1])


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_formulas_are_quoted(tmp_path, first):
    """A spreadsheet must not run what some server called a message id."""
    path = tmp_path / "out.csv"
    report_of(result(message_id=f"{first}cmd|' /C calc'!A0")).to_csv(path)
    assert read(path)[1][2] == f"'{first}cmd|' /C calc'!A0"


@given(st.text(st.characters(exclude_categories=[]), max_size=20))
@settings(max_examples=settings().max_examples // 2)
def test_any_id_can_be_written(tmp_path_factory, text):
    """Quotes, commas, line breaks, and what is no character."""
    path = tmp_path_factory.mktemp("rows") / "out.csv"
    with RowFile(path) as file:
        file.write(Row(0, Status.SENT, text, "a,b"))
    head, row = read(path)
    expected = text.encode("utf-8", "backslashreplace").decode()
    assert row[2].removeprefix("'") == expected.removeprefix("'")
    assert not row[2].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (len(head), row[0], row[3]) == (4, "0", "a,b")


def test_a_file_is_closed_whatever_happens(tmp_path):
    """What was written until then is there, and closing again is harmless."""
    path = tmp_path / "out.csv"
    file = RowFile(path)

    def fail():
        with file:
            file.write(Row(0, Status.SENT, "id", None))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(read(path)) == 2
    file.close()


# --- beside the account's rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("granted", "use"), [(50.0, 0.8), (float("inf"), None)])
def test_the_use_of_the_account_is_told_where_its_rate_is_known(granted, use):
    """Forty recipients in a second, of fifty: in the report, and in a notebook when the batch was a long one."""
    people = [f"p{number}@example.com" for number in range(40)]
    report = report_of(*(result(index, to=people) for index in range(60)))
    report.duration = 60.0
    report.limiter = LimiterFigures(granted, granted, daily_quota=None, spent=0.0, throttles=0, source="GetAccount")
    assert report.use_of_rate == use
    assert ("80.0% of the account's rate" in report._repr_html_()) is (use is not None)


def test_a_short_batch_is_not_held_against_the_rate():
    """Three messages take two turns: as a share of the rate that looks like more than all of it."""
    report = report_of(*(result(index) for index in range(3)))
    report.duration = 2 / 14
    report.limiter = LimiterFigures(14.0, 14.0, daily_quota=None, spent=0.0, throttles=0, source="GetAccount")
    assert report.use_of_rate > 1
    assert "of the account's rate" not in report._repr_html_()


def test_without_a_limiter_that_learns_there_is_no_use_of_the_account():
    """Nothing is known of its rate."""
    assert report_of(result()).use_of_rate is None
