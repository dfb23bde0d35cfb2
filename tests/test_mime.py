from __future__ import annotations

import base64
import io
import pickle
import random
import re
import string
import zipfile
from email import message_from_bytes, policy
from email.header import Header
from email.message import EmailMessage, Message as OldMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import getaddresses

import pytest
from hypothesis import assume, given, settings, strategies as st

from mail_readers import READERS, SENDER, Leaf, request_for
from tanksend import Address, Attachment, Message, Template, Unsubscribe
from tanksend._messages import _entities
from tanksend._messages._mime_text import decoded
from tanksend._mime import needs_raw, render
from tanksend.exceptions import InvalidMessageError

EVIL = "x\r\nBcc: evil@example.com\r\n\r\n<p>evil"
CALENDAR = "BEGIN:VCALENDAR\nVERSION:2.0\nMETHOD:REQUEST\nEND:VCALENDAR\n"
HEAD = b"From: a@example.com\nTo: kim@example.com\nSubject: Hi\nMIME-Version: 1.0\n"


def make(**fields):
    """A small message with some fields of its own."""
    return Message(**{"to": "kim@example.com", "subject": "Hi", "text": "Hello", **fields})


def rendered(message, **fields):
    """The mail of a message, as bytes."""
    return render(request_for(message, **fields))


def read(raw):
    """The mail as Python's parser sees it."""
    return message_from_bytes(raw, policy=policy.default)


def faults(message):
    """The fields that `check` names."""
    return [problem.field for problem in message.check()]


def of_text(text, **fields):
    """A mail of one text, in our bytes, without its head."""
    return rendered(make(text=text, **fields)).partition(b"\r\n\r\n")[2]


# --- headers ---------------------------------------------------------------------------------------------------------

INJECTIONS = {
    "subject": {"subject": EVIL},
    "from": {"from_": Address(EVIL, "a@example.com")},
    "from email": {"from_": Address("", f"a{EVIL}@example.com")},
    "to": {"to": [Address(EVIL, "a@example.com")]},
    "cc": {"cc": [Address(EVIL, "a@example.com")]},
    "reply-to": {"reply_to": [Address(EVIL, f"a{EVIL}@example.com")]},
    "header value": {"headers": {"X-A": EVIL}},
    "header value with a newline only": {"headers": {"X-A": "a\nBcc: evil@example.com"}},
    "file name": {"attachments": [Attachment(EVIL, b"")]},
    "korean file name": {"attachments": [Attachment(f"보고서{EVIL}", b"")]},
    "content type": {"attachments": [Attachment("a", b"", content_type=f"text/plain; a={EVIL}")]},
    "content type alone": {"attachments": [Attachment("a", b"", content_type=EVIL)]},
    "quoted parameter": {"attachments": [Attachment("a", b"", content_type=f'text/plain; a="{EVIL}"')]},
    "content id": {"attachments": [Attachment("a", b"", content_id=EVIL)]},
    "unsubscribe": {"unsubscribe": Unsubscribe(url=f"https://example.com/{EVIL}", mailto=f"{EVIL}@example.com")},
    "method": {"attachments": [Attachment("a", b"", method=EVIL)]},
}


@pytest.mark.parametrize("fields", INJECTIONS.values(), ids=INJECTIONS)
def test_no_field_can_end_a_header(fields):
    """Each is refused by name before; a writer that trusts nobody makes spaces of the line breaks besides."""
    message = make(**fields)
    assert faults(message)
    raw = rendered(message)
    assert read(raw)["bcc"] is None
    assert not re.search(rb"^(?:Bcc|<p>evil)", raw, re.MULTILINE)
    assert raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n")


@pytest.mark.parametrize("name", ["X\r\nBcc", "X-A: b\nBcc", "", "X A", "Ü", "X:"])
def test_the_name_of_a_header_cannot_carry_one(name):
    """`check` refuses it, and so does the writer."""
    message = make(headers={name: "evil@example.com"})
    assert faults(message)
    with pytest.raises(InvalidMessageError) as caught:
        rendered(message)
    assert "headers" == caught.value.problems[0].field
    assert "evil" not in str(caught.value)


def test_nothing_else_is_in_the_headers():
    """No Bcc; Date and Message-ID are left to SES; configuration set and tags are not part of the mail."""
    message = make(bcc="secret@example.com", cc="c@example.com", reply_to="r@example.com", headers={"X-A": "b"})
    raw = rendered(message, configuration_set="set", tags={"a": "b"})
    expected = "From To Cc Reply-To Subject X-A MIME-Version Content-Type Content-Transfer-Encoding".split()
    assert expected == read(raw).keys()
    assert b"secret" not in raw


def test_the_addresses_are_those_of_the_request():
    """Validated ones, without suppressed ones; the message's own are only what somebody asked for."""
    message = make(to="gone@example.com", cc="gone@example.com", reply_to="gone@example.com", from_="gone@example.com")
    raw = rendered(message, from_=SENDER, to=(Address("", "kim@example.com"),), cc=(), reply_to=())
    assert b"gone" not in raw
    assert b"From: Tank <no-reply@example.com>\r\nTo: kim@example.com\r\nSubject: Hi\r\n" == raw.partition(b"MIME")[0]


def test_long_lists_of_addresses_fold_between_words():
    """Never inside an address, which is where the standard library breaks some of them."""
    people = [
        Address("김철수" if n % 2 else f"Person, {n}", f"{'long' * 15}{n}@{'sub.' * 10}example.com") for n in range(50)
    ]
    raw = rendered(make(to=people))
    for person in people:
        assert f"{person.email}".encode() in raw
    assert max(map(len, raw.split(b"\r\n"))) < 200


def test_what_is_in_quotes_is_never_folded():
    """Neither a name nor an address, where RFC 5322 allows it: readers take the line break for a part of it."""
    people = [
        Address("Kim " * 12 + "Lee", '"a b c"@example.com'),
        Address("Kim, " * 20 + "Lee", "kim@example.com"),
        Address("", f'"{"a b " * 15}"@example.com'),
    ]
    raw = rendered(make(to=people * 3))
    assert all(f"{person.email}".encode() in raw for person in people)
    pairs = [(person.name, person.email) for person in people]
    assert pairs * 3 == getaddresses([message_from_bytes(raw)["to"]])


def test_words_of_a_header_that_are_encoded_already_stay():
    """SES's API takes such values as they are, and so does this."""
    raw = rendered(make(headers={"X-A": "=?UTF-8?B?6rmA?= and more"}))
    assert b"\r\nX-A: =?UTF-8?B?6rmA?= and more\r\n" in raw


def test_a_subject_keeps_to_the_width_of_encoded_words():
    """76 characters a line, the first one with its name (RFC 2047 section 2)."""
    for subject in ("김치 " * 100, "Zoë " * 100, "a" * 3000, "🎉" * 100):
        head = rendered(make(subject=subject)).partition(b"MIME-Version")[0]
        assert max(map(len, head.split(b"\r\n"))) <= 76


def test_a_fold_never_eats_or_makes_a_space():
    """Readers put one space for a fold, so that a wider gap may not be one."""
    for gap in range(1, 6):
        subject = (" " * gap).join(["word"] * 60)
        assert [subject] == list({str(read(rendered(make(subject=subject)))["subject"])})


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_the_same_content_makes_the_same_bytes():
    """Also in another message object; a seed changes the boundaries only."""

    def mail(seed=b""):
        html = '<img src="cid:a">'
        files = [Attachment("a.png", b"1", content_id="a"), Attachment("b.pdf", b"2"), Attachment.invitation(CALENDAR)]
        return render(request_for(make(html=html, attachments=files)), seed=seed)

    assert mail() == mail()
    assert mail(b"1") != mail(b"2")
    without = [re.sub(rb"=_[0-9a-f]{32}", b"", mail(seed)) for seed in (b"1", b"2")]
    assert without[0] == without[1]


def test_boundaries_differ_between_levels_and_messages():
    """A reader finds the end of each level by its own."""
    html = '<img src="cid:a">'
    files = [Attachment("a.png", b"1", content_id="a"), Attachment("b.pdf", b"2")]
    found = [
        re.findall(rb'boundary="?(=_[0-9a-f]+)', rendered(make(text=text, html=html, attachments=files)))
        for text in "ab"
    ]
    assert [3, 3] == [len(set(levels)) for levels in found]
    assert found[0][0] != found[1][0]


def test_the_shape_is_the_one_that_mail_clients_agree_on():
    """Alternatives from the plainest on, pictures beside their HTML, files after all."""
    files = [Attachment("a.png", b"1", content_id="a"), Attachment("b.pdf", b"2"), Attachment.invitation(CALENDAR)]
    mail = read(rendered(make(html='<img src="cid:a">', attachments=files)))
    assert [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "text/calendar",
        "application/pdf",
        "application/ics",
    ] == [part.get_content_type() for part in mail.walk()]
    assert "text/html" == mail.get_payload()[0].get_payload()[1]["content-type"].params["type"]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Hello", b"Hello"),
        ("a\nb\rc\r\nd", b"a\r\nb\r\nc\r\nd"),
        (".\nFrom x\nFromage\n..", b"=2E\r\n=46rom x\r\nFromage\r\n=2E."),
        ("a \nb\t", b"a=20\r\nb=09"),
        ("x" * 80, b"x" * 75 + b"=\r\nxxxxx"),
        ("." + "x" * 75, b"=2E=\r\n" + b"x" * 75),
        ("." * 76, b"=2E=\r\n=2E=\r\n=2E" + b"." * 73),
        ("From " + "x" * 68 + " ", b"=46rom " + b"x" * 68 + b"=\r\n=20"),
        ("From " + "x" * 70, b"=46=\r\nrom " + b"x" * 70),
        ("a\x00\x1b\x7f", b"YQAbfw==\r\n"),
        ("Grüße aus Köln, und noch ein paar Worte", b"Gr=C3=BC=C3=9Fe aus K=C3=B6ln, und noch ein paar Worte"),
        ("김치", b"6rmA7LmY\r\n"),
        ("김치\n", b"6rmA7LmYDQo=\r\n"),
    ],
)
def test_text_is_written_as(text, body):
    """Quoted-printable with nothing that a relay could take for its own, or base64 where that is smaller."""
    assert body == of_text(text)


@given(st.text(st.sampled_from(".From =\n\t x"), max_size=700))
@settings(max_examples=3 * settings().max_examples)
def test_quoted_printable_has_no_risky_or_long_line(text):
    """At most 76 characters, none beginning with a dot or "From ", none ending with a blank."""
    body = of_text(text)
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith((b".", b"From "))
        assert not line.endswith((b" ", b"\t"))


def test_half_a_surrogate_pair_is_refused_without_its_text():
    """JSON would carry it; mail cannot."""
    for fields in ({"text": "secret \ud800"}, {"html": "secret \udfff"}):
        with pytest.raises(InvalidMessageError) as caught:
            rendered(make(**fields))
        assert "secret" not in str(caught.value)
        assert "content" == caught.value.problems[0].field
        assert "UnicodeEncodeError" == caught.value.cause_type


def test_more_than_40_mb_is_refused():
    """With headers and boundaries, which SES writes otherwise for the simple form."""
    file = Attachment("a.bin", b"\0" * 30_650_600)
    assert make(attachments=[file]).check() == ()
    with pytest.raises(InvalidMessageError, match="40 MB"):
        rendered(make(attachments=[file]))


def test_a_template_is_refused():
    """Only SES can render it."""
    message = Message.from_template(Template(name="welcome"), to="kim@example.com")
    assert not needs_raw(request_for(message))
    with pytest.raises(InvalidMessageError) as caught:
        rendered(message)
    assert "template" == caught.value.problems[0].field


def test_what_the_simple_form_cannot_carry_goes_raw():
    """MIME that is made already, and invitations."""
    assert not needs_raw(request_for(make()))
    assert not needs_raw(request_for(make(attachments=[Attachment("a.pdf", b"", content_id="a")])))
    assert needs_raw(request_for(make(attachments=[Attachment("a.pdf", b""), Attachment.invitation(CALENDAR)])))
    assert needs_raw(request_for(Message.from_mime(HEAD + b"\nHello")))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_name_is_written_for_old_and_new_readers():
    """RFC 2231 where it belongs, and encoded-words where old Outlook looks."""
    raw = rendered(make(attachments=[Attachment("보고서 1.pdf", b"x")]))
    assert b'Content-Type: application/pdf; name="=?UTF-8?B?67O06rOg7IScIDEucGRm?="\r\n' in raw
    assert b"Content-Disposition: attachment;\r\n filename*=UTF-8''%EB%B3%B4%EA%B3%A0%EC%84%9C%201.pdf\r\n" in raw


def test_a_plain_file_name_is_written_plainly():
    """As most readers expect it; only what ends a string early for simple ones is encoded."""
    raw = rendered(make(attachments=[Attachment("a b.pdf", b""), Attachment("c.pdf", b""), Attachment('d;".pdf', b"")]))
    assert (
        b'Content-Type: application/pdf; name="a b.pdf"\r\nContent-Disposition: attachment; filename="a b.pdf"' in raw
    )
    assert b"Content-Type: application/pdf; name=c.pdf\r\nContent-Disposition: attachment; filename=c.pdf" in raw
    assert b"filename*=UTF-8''d%3B%22.pdf" in raw


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("a.pdf", None, "application/pdf"),
        ("A.PNG ", None, "image/png"),
        ("a", None, "application/octet-stream"),
        ("a.unknown", None, "application/octet-stream"),
        ("a.pdf", "image/x-own", "image/x-own"),
        ("a.pdf", "nonsense", "application/octet-stream"),
        ("a.pdf", "text/plain garbage", "application/octet-stream"),
        ("a.eml", "message/rfc822", "application/octet-stream"),
        ("a", "multipart/mixed; boundary=x", "application/octet-stream"),
        ("a.csv", 'text/csv; Charset="euc\\-kr"; name=other.csv; broken', "text/csv; charset=euc-kr"),
    ],
)
def test_the_type_of_a_file(name, given, expected):
    """The one that is given, or by the name; nothing that base64 may not carry."""
    part = read(rendered(make(attachments=[Attachment(name, b"", content_type=given)]))).get_payload()[1]
    assert name.strip() == part.get_filename().strip()
    assert [part.get_content_type(), part.get_param("charset")] == (
        [*expected.split("; charset="), None] if "charset" not in expected else expected.split("; charset=")
    )


def test_a_file_in_many_messages_is_encoded_once():
    """In either form; and each form is made of the other's work where that is done."""
    file = Attachment("a.bin", bytes(range(256)) * 10)
    rendered(make(attachments=[file]))
    assert file.wrapped is file.wrapped
    assert not file._encoded
    other = Attachment("a.bin", file.content)
    assert base64.b64decode(other.encoded) == base64.b64decode(other.wrapped) == file.content
    assert file.digest == other.digest
    assert file == pickle.loads(pickle.dumps(file))  # noqa: S301


def test_a_content_id_is_written_once_in_brackets():
    """Whether they were given or not."""
    for content_id in ("logo@example.com", "<logo@example.com>"):
        raw = rendered(make(html="x", attachments=[Attachment("a.png", b"", content_id=content_id)]))
        assert b"\r\nContent-ID: <logo@example.com>\r\n" in raw


# --- invitations -----------------------------------------------------------------------------------------------------


def test_an_invitation_is_a_version_of_the_message_and_a_file():
    """The first for Outlook and Gmail, the second for all others."""
    mail = read(rendered(make(attachments=[Attachment.invitation(CALENDAR, name="초대.ics")])))
    calendar, file = [part for part in mail.walk() if not part.is_multipart()][1:]
    assert ("text/calendar", "REQUEST", "UTF-8") == (
        calendar.get_content_type(),
        calendar.get_param("method"),
        calendar.get_param("charset"),
    )
    lines = CALENDAR.replace("\n", "\r\n").encode()
    assert lines == calendar.get_payload(decode=True) == file.get_payload(decode=True)
    assert ("application/ics", "초대.ics") == (file.get_content_type(), file.get_filename())


@pytest.mark.parametrize(
    ("ics", "method"),
    [
        (CALENDAR, "REQUEST"),
        (CALENDAR.encode(), "request"),
        (CALENDAR.replace("\n", "\r\n"), "REQUEST"),
        (CALENDAR.replace("REQUEST", "cancel "), "CANCEL"),
        (CALENDAR.replace("METHOD:REQUEST", "method;X-A=b:REQ\n UEST"), "REQUEST"),
        (CALENDAR.replace("END", "SUMMARY:회의\nEND"), "REQUEST"),
    ],
)
def test_an_invitation_whose_method_agrees_is_accepted(ics, method):
    """Bytes or text, any case, folded or not."""
    message = make(attachments=[Attachment.invitation(ics, method=method)])
    assert message.check() == ()
    assert f"method={method.upper()}".encode() in rendered(message)


@pytest.mark.parametrize(
    ("ics", "method", "field"),
    [
        (CALENDAR, "CANCEL", "method"),
        (CALENDAR.replace("METHOD:REQUEST\n", ""), "REQUEST", "method"),
        (CALENDAR.replace("METHOD", "METHOD:CANCEL\nMETHOD"), "REQUEST", "method"),
        (CALENDAR.replace("METHOD", "X-METHOD"), "REQUEST", "method"),
        (CALENDAR.replace("REQUEST", "INVITE"), "INVITE", "method"),
        (CALENDAR.encode("utf-16"), "REQUEST", "content"),
        (CALENDAR + "\ud800", "REQUEST", "content"),
    ],
)
def test_an_invitation_that_contradicts_itself_is_refused(ics, method, field):
    """Outlook would show it as a plain mail, or as the opposite of what it is."""
    invitation = Attachment.invitation(ics, method=method)
    assert [field] == [problem.field for problem in invitation.check()]
    assert [f"attachments[0].{field}"] == faults(make(attachments=[invitation]))


def test_a_calendar_with_a_long_run_of_blanks_is_soon_read():
    """It may come from outside; looking for the end of each blank again would take minutes."""
    blanks = CALENDAR.replace("REQUEST", f"REQUEST{' ' * 500_000}x")
    assert ["method"] == [problem.field for problem in Attachment.invitation(blanks).check()]
    assert () == Attachment.invitation(blanks.replace("x\n", "\t\n")).check()


def test_a_second_invitation_is_refused():
    """Which of two calendars beside the text a mail program shows is anybody's guess."""
    files = [Attachment.invitation(CALENDAR), Attachment("a.txt", b"1"), Attachment.invitation(CALENDAR)]
    assert ["attachments[2]"] == faults(make(attachments=files))
    assert [] == faults(make(attachments=files[:2]))


def test_an_invitation_counts_twice():
    """As a version of the message, and as a file."""
    calendar = Attachment.invitation(CALENDAR.replace("METHOD", f"X-A:{'a' * 3_000_000}\nMETHOD"))
    assert ["content"] == faults(make(text="a" * 26_000_000, attachments=[calendar]))


def test_an_invitation_of_a_wrong_type_is_a_programming_error():
    """As everywhere."""
    with pytest.raises(TypeError, match="ics"):
        Attachment.invitation(1)
    with pytest.raises(TypeError, match="method"):
        Attachment.invitation(CALENDAR, method=1)


# --- compression -----------------------------------------------------------------------------------------------------


def test_a_file_that_gets_smaller_is_zipped():
    """The same bytes each time, so that messages with it are reproducible; what it saved is told."""
    file = Attachment("../보고서.csv", b"a,b,c\n" * 1000, content_type="text/csv")
    small = file.compressed()
    assert ("../보고서.csv.zip", "application/zip") == (small.name, small.content_type)
    assert 0 == file.saved < small.saved == len(file.content) - len(small.content)
    assert small == file.compressed()
    assert small.content == file.compressed().content
    with zipfile.ZipFile(io.BytesIO(small.content)) as archive:
        assert [".._보고서.csv"] == archive.namelist()
        assert file.content == archive.read(".._보고서.csv")
        assert (1980, 1, 1, 0, 0, 0) == archive.infolist()[0].date_time
    assert small is small.compressed()


@pytest.mark.parametrize(
    "file",
    [
        Attachment("a.txt", b""),
        Attachment("a.txt", b"short"),
        Attachment("a.bin", random.Random(1).randbytes(5000)),
        Attachment("a.docx", b"PK\x03\x04" + b"0" * 5000),
        Attachment("a.pdf", b"%PDF-1.7" + b"0" * 5000),
        Attachment("a.jpg", b"\xff\xd8\xff" + b"0" * 5000),
        Attachment("a.mp4", b"\0\0\0\x20ftypisom" + b"0" * 5000),
        Attachment("a.webp", b"RIFF\n\n\0\0WEBP" + b"0" * 5000),
        Attachment("a.png", b"0" * 5000, content_id="logo"),
        Attachment("a.exe", b"0" * 5000),
        Attachment("a\n.txt", b"0" * 5000),
        Attachment("\ud800.txt", b"0" * 5000),
        Attachment("a" * 252, b"0" * 5000),
        Attachment.invitation(CALENDAR + "X" * 5000),
    ],
)
def test_a_file_that_gains_nothing_stays_itself(file):
    """Compressed already, too small, shown in the HTML, or refused anyway: zip is no way around a rule."""
    assert file is file.compressed()
    assert 0 == file.saved


# --- mail that is made already ---------------------------------------------------------------------------------------


def mime(body=b"\nHello", head=HEAD, **options):
    """A message of a mail in bytes."""
    return Message.from_mime(head + body, **options)


@pytest.mark.parametrize("wrong", [None, "From: a@example.com\n\nHello", bytearray(b"\nHello"), 1])
def test_only_a_mail_or_bytes_are_taken(wrong):
    """Text has no bytes to be sure of."""
    with pytest.raises(TypeError, match="mail must be"):
        Message.from_mime(wrong)


def test_a_part_that_is_none_is_a_programming_error():
    """The older interface lets anybody put anything in."""
    mail = MIMEMultipart()
    mail.attach("not a part")
    with pytest.raises(TypeError, match="a part"):
        Message.from_mime(mail)


def test_options_go_before_the_headers():
    """Recipients, subject, and headers of the same name."""
    head = HEAD + b"X-A: old\nX-B: kept\nList-Unsubscribe: <https://example.com/old>\nList-Unsubscribe-Post: old\n"
    options = {"to": "lee@example.com", "subject": "New", "headers": {"x-a": "new"}, "tags": {"a": "b"}, "key": "k"}
    message = mime(head=head, unsubscribe=Unsubscribe(mailto="off@example.com"), **options)
    assert message.check() == ()
    assert ("lee@example.com", {"a": "b"}, "k") == (message.to[0].email, message.tags, message.key)
    raw = rendered(message)
    assert b"\r\nSubject: New\r\nx-a: new\r\nList-Unsubscribe: <mailto:off@example.com>\r\nX-B: kept\r\nMIME" in raw
    assert b"old" not in raw
    kept = rendered(mime(head=head))
    assert b"X-A: old\r\nX-B: kept\r\nList-Unsubscribe: <https://example.com/old>\r\n" in kept


def test_files_can_be_added():
    """Around what the mail is; an invitation beside it."""
    mail = read(rendered(mime(attachments=[Attachment("a.pdf", b"%PDF"), Attachment.invitation(CALENDAR)])))
    kinds = "multipart/mixed multipart/alternative text/plain text/calendar application/pdf application/ics".split()
    assert kinds == [part.get_content_type() for part in mail.walk()]


def test_a_mail_without_from_to_and_subject_is_one():
    """The sender's default, options or the check say the rest."""
    message = Message.from_mime(b"From: \nTo: \n\nHello")
    assert (None, (), "") == (message.from_, message.to, message.subject)
    assert ["to"] == faults(message)


def test_what_ses_writes_and_what_tells_the_way_is_dropped():
    """A forwarded mail does not carry its past."""
    dropped = (
        "Date Message-ID Return-Path DKIM-Signature Received Delivered-To Resent-To ARC-Seal Sender Bcc X-Received"
    )
    head = HEAD + b"".join(f"{name}: trace@example.com\n".encode() for name in dropped.split()) + b"X-Kept: yes\n"
    message = mime(head=head)
    assert message.check() == ()
    assert b"trace" not in rendered(message)
    assert (("X-Kept", "yes"),) == message.mime.headers


def test_several_headers_of_one_kind_are_one_list():
    """For recipients; for From it is one too many."""
    message = Message.from_mime(
        b"From: a@example.com\nTo: b@example.com\nTo: c@example.com\nSubject: 1\nSubject: 2\n\nx"
    )
    assert ["b@example.com", "c@example.com"] == [address.email for address in message.to]
    assert "1" == message.subject
    assert ["from_"] == faults(Message.from_mime(b"From: a@example.com\nFrom: b@example.com\nTo: c@example.com\n\nx"))


BROKEN = [
    ("mime.headers[X-SES-CONFIGURATION-SET]", b"X-SES-CONFIGURATION-SET: x\n"),
    ("mime.headers[x-ses-message-tags]", b"x-ses-message-tags: a=b\n"),
    ("mime.headers[List-Unsubscribe]", b"List-Unsubscribe: <https://a.example>\n" * 2),
    ("mime.headers[X-A]", b"X-A: \xff\xfe\n"),
    ("mime.headers[X-A]", b"X-A: " + b"a" * 1000 + b"\n"),
    ("mime.headers[X-A]", b"X-A: =?utf-8?B?Cg==?=\n"),
    ("mime.headers[X-A]", b"X-A: a\x00b\n"),
    ("mime.headers[Errors-To]", "Errors-To: 김@example.com\n".encode()),
    ("mime.headers[number 5]", b"X" * 127 + b": a\n"),
    ("mime.subject", b"Subject: \xb1\xe8\n"),
    ("mime.cc", b"Cc: \xb1\xe8 <c@example.com>\n"),
    ("mime.reply_to", b"Reply-To: =?x-unknown?B?sei+uw==?= <c@example.com>\n"),
    ("mime.cc", b"Cc: =?utf-8?B?sei+uw==?= <c@example.com>\n"),
    ("mime.cc", b"Cc: =?rot13?Q?abc?= <c@example.com>\n"),
    ("mime.parts[0]", b"Content-Type: text/plain; charset=x-unknown\n\nHello"),
    ("mime.parts[0]", b"Content-Type: text/plain; charset=utf-8\n\n\xb1\xe8"),
    ("mime.parts[0]", b"Content-Type: text/plain; charset=base64\n\nHello"),
    ("mime.parts[0]", b"Content-Type: text/plain; charset=\xea\xb9\x80\n\nHello"),
    ("mime.parts[0]", b"Content-Type: text/plain\n\n\xb1\xe8"),
    ("mime.parts[0]", b"Content-Transfer-Encoding: x-own\n\nHello"),
    ("mime.parts[0]", b"Content-Type: multipart/mixed; boundary=x\n\nHello"),
    ("mime.parts[0].name", b"Content-Disposition: attachment; filename=setup.exe\n\nx"),
    ("mime.parts[0].name", b'Content-Type: application/pdf; name="a.JS "\n\nx'),
    ("mime.parts[0].name", b"Content-Disposition: attachment; filename=\xb1\xe8.pdf\n\nx"),
    ("mime.parts[0].name", b"Content-Disposition: attachment; filename*=x-unknown''%B1.pdf\n\nx"),
    ("mime.parts[0].name", b'Content-Disposition: attachment; filename="=?x-unknown?B?sei+uw==?="\n\nx'),
    ("subject", b"Subject: =?utf-8?Q?a=0ABcc:_x?=\n"),
    ("cc[0]", b"Cc: =?utf-8?Q?a=0ABcc:_x?= <c@example.com>\n"),
]


@pytest.mark.parametrize(("field", "more"), BROKEN, ids=range(len(BROKEN)))
def test_what_cannot_go_out_is_named(field, more):
    """By `check`, as with every message; nothing is raised, and the value is not repeated."""
    head = HEAD.replace(b"Subject: Hi\n", b"") if b"Subject" in more else HEAD
    message = mime(more if b"\n\n" in more else more + b"\nHello", head=head)
    problems = message.check()
    assert [field] == [problem.field for problem in problems]
    assert "example.com" not in problems[0].reason
    assert rendered(message).isascii()


def test_a_header_with_a_line_break_is_refused_by_name():
    """The older interface of the standard library lets one in."""
    for name, field in (("Subject", "subject"), ("To", "to[0]"), ("X-A", "mime.headers[X-A]")):
        mail = OldMessage()
        mail["From"] = "a@example.com"
        mail["Cc"] = "c@example.com"
        mail[name] = "kim@example.com\nBcc: evil@example.com"
        mail.set_payload("Hello")
        message = Message.from_mime(mail)
        assert [field] == faults(message)
        assert not re.search(rb"^Bcc", rendered(message), re.MULTILINE)


def test_parts_too_deep_or_too_many_are_refused():
    """Before the standard library walks into them, and before SES counts them."""

    def nested(depth):
        body = b"\nx"
        for level in range(depth):
            body = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%b\n--b%d--\n" % (level, level, body, level)
        return mime(body)

    assert nested(20).check() == ()
    assert ["mime.parts"] == faults(nested(40))
    assert ["mime.parts[0]"] == faults(nested(2000))
    flat = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 501 + b"--b--\n"
    assert ["mime.parts"] == faults(mime(flat))


def test_the_size_is_that_of_what_goes_out():
    """40 MB is the limit for it."""
    message = mime(b"\nHello")
    assert 0 < len(message.mime.content) == message.mime.encoded_bytes + 2
    for size, expected in ((30_650_000, []), (30_650_682, ["content"])):
        file = Attachment("a.bin", bytes(size))
        assert expected == faults(mime(b"\nHello", attachments=[file]))


def test_nothing_of_it_is_in_a_repr():
    """Sizes only."""
    message = mime(b"\nsecret", head=HEAD + b"X-A: secret\n")
    assert "secret" not in repr(message) + repr(message.mime) + repr(message.mime.part)
    assert message == pickle.loads(pickle.dumps(message))  # noqa: S301
    assert message == mime(b"\nsecret", head=HEAD + b"X-A: secret\n")


def test_signed_parts_are_not_touched():
    """A signature is over bytes, so they travel as they are, lines ended by CRLF."""
    signed = b'Content-Type: text/plain;\r\n\tcharset="iso-8859-1"\r\nContent-Transfer-Encoding: quoted-printable\r\n'
    signed += b"\r\nGr=FC=DFe =20\r\n\r\nFrom me\r\n"
    signature = b"Content-Type: application/pgp-signature; name=s.asc\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n"
    kind = (
        b'Content-Type: multipart/signed; micalg="pgp-sha256"; protocol="application/pgp-signature"; boundary=b\r\n\r\n'
    )
    message = mime(kind + b"--b\r\n" + signed + b"\r\n--b\r\n" + signature + b"\r\n--b--\r\n")
    assert message.check() == ()
    raw = rendered(message)
    assert b"\r\n" + signed + b"\r\n--" in raw
    assert b"\r\n" + signature + b"\r\n--" in raw
    assert "pgp-sha256" == read(raw).get_param("micalg")


@pytest.mark.parametrize(
    "signed",
    [
        b"Content-Type:text/plain\r\n\r\nHello\r\n",
        b"Content-Type:\r\n  text/plain;\r\n\tcharset=utf-8 \r\nX-A:  b\r\n \r\n c\r\n\r\nHello",
        b"Content-Type: message/rfc822\r\n\r\nSubject:x\r\n\r\nHello\r\n",
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\npre\r\n--c \r\n\r\nHello\r\n--c-- \r\npost\r\n",
        b"Content-Type:multipart/signed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c\r\nX:y\r\n\r\n\r\n--c--\r\n",
    ],
    ids=["no space", "folds", "a mail", "parts", "signed twice"],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_signed_parts_keep_what_the_parser_does_not_tell(signed, end):
    """Blanks after a colon, at the ends of lines and in folds, in parts of parts, too."""
    kind = b"Content-Type: multipart/signed; micalg=x; boundary=b\r\n\r\n--b\r\n"
    raw = kind + signed + b"\r\n--b\r\nContent-Type:application/x-sig\r\n\r\nx\r\n--b--\r\n"
    message = mime(raw.replace(b"\r\n", end))
    assert [] == faults(message)
    assert b"\r\n" + signed + b"\r\n--=_" in rendered(message)
    enclosed = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(raw)
    assert b"\r\n" + signed + b"\r\n--=_" in rendered(mime(enclosed.replace(b"\r\n", end)))


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: text/plain\n\n\xff",
        b"\n" + b"x" * 1000,
        b"\n\0",
        b"Content-Type: text/plain\n\nx\n--b",
        b"Content-Type: text/plain",
        b"\nx\n--b\n\nx\n--b--\n--b",
        b"Content-Type: application/x; name=a.exe\n\nMZ",
    ],
    ids=["8-bit", "long", "NUL", "not closed", "no body", "closed twice", "blocked"],
)
def test_signed_parts_that_cannot_travel_are_refused(body):
    """They would have to be changed, or SES refuses them."""
    message = mime(b"Content-Type: multipart/signed; boundary=b\n\n--b\n" + body + b"\n--b--\n")
    assert ["mime.parts"] == faults(message)


def test_signed_parts_of_an_object_are_what_the_standard_library_writes():
    """There is nothing else that they could have been."""
    parts = [MIMEText("Hello\n"), MIMEText("x", "x-sig")]
    mail = MIMEMultipart("signed", _subparts=parts)
    mail["To"] = "kim@example.com"
    message = Message.from_mime(mail)
    assert [] == faults(message)
    raw = rendered(message)
    assert all(b"\r\n" + part.as_bytes(policy=policy.SMTP) + b"\r\n--" in raw for part in parts)


def test_signed_text_where_parts_should_be_is_refused():
    """The standard library reads it, and raises when it writes it."""
    raw = (
        b"Content-Type: multipart/signed; boundary=b\n\n--b\nContent-Type: multipart/mixed; boundary=b\n\xea\xb9\x80\n"
    )
    assert {"mime.parts"} == set(faults(mime(raw)))


def test_a_boundary_that_is_not_ascii():
    """Nobody can find it."""
    raw = b"Content-Type: multipart/signed; boundary*=utf-8''%ea%b9%80\n\n--\xea\xb9\x80\n\nx\n--\xea\xb9\x80--\n"
    assert faults(mime(raw))


def test_a_forwarded_mail_stays_one():
    """No encoding may stand around it, so that its own parts are made safe; its headers are its own."""
    inner = (
        "From: 김 <kim@example.com>\nTo: Lee <lee@example.com>\nBcc: b@example.com\nSubject: 제목\nMIME-Version: 1.0\n"
    )
    inner += "X Y: no header\nX-Long: " + "x" * 2000 + "\nContent-Type: text/plain; charset=utf-8\n\n본문\n"
    kind = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nSee below\n--b\nContent-Type: message/rfc822\n\n"
    message = mime(kind + inner.replace("X Y: no header\n", "").encode() + b"\n--b--\n")
    assert message.check() == ()
    forwarded = read(rendered(message)).get_payload()[1].get_payload()[0]
    assert ("제목", "본문\r\n") == (forwarded["subject"], forwarded.get_content())
    assert ["김", "Lee"] == [forwarded[name].addresses[0].display_name for name in ("from", "to")]
    assert "x" * 2000 == forwarded["x-long"]


def test_an_enclosed_mail_in_base64_is_opened():
    """MIME forbids it, some gateways do it, and readers cope."""
    inner = "Subject: 제목\nContent-Type: text/plain; charset=utf-8\n\n본문\n".encode()
    kind = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nSee below\n--b\nContent-Type: message/rfc822\n"

    def enclosed(raw, encoding=b"base64"):
        return mime(kind + b"Content-Transfer-Encoding: " + encoding + b"\n\n" + raw + b"\n--b--\n")

    message = enclosed(base64.encodebytes(inner))
    assert [] == faults(message)
    forwarded = read(rendered(message)).get_payload()[1].get_payload()[0]
    assert ("제목", "본문\r\n") == (forwarded["subject"], forwarded.get_content())
    bad = b"Content-Type: text/plain; charset=x-unknown\n\nx\n"
    assert ["mime.parts[1]"] == faults(enclosed(base64.encodebytes(bad)))
    assert ["mime.parts[1]"] == faults(enclosed(b"YQ"))
    assert ["mime.parts[1]"] == faults(enclosed(inner, b"quoted-printable"))
    for _ in range(20):
        inner = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(inner)
    assert ["mime.parts"] == faults(enclosed(base64.encodebytes(inner)))


def test_an_enclosed_mail_without_anything_in_it():
    """Made by hand, and labelled as nobody should."""
    mail = OldMessage()
    mail["Content-Type"], mail["Content-Transfer-Encoding"] = "message/rfc822", "x-none"
    mail.attach(MIMEMultipart())
    assert "mime.parts" in faults(Message.from_mime(mail, to="kim@example.com"))


def test_a_machine_report_stays_as_it_is():
    """Bounces and the like have parts that no encoding may stand around either."""
    status = b"Reporting-MTA: dns; a.example\n\nFinal-Recipient: rfc822; kim@example.com\nStatus: 5.1.1\n"
    kind = b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
    message = mime(kind + b"--b\n\nGone\n--b\nContent-Type: message/delivery-status\n\n" + status + b"\n--b--\n")
    assert message.check() == ()
    raw = rendered(message)
    assert status.replace(b"\n", b"\r\n") in raw
    assert "delivery-status" == read(raw).get_param("report-type")


def test_messages_by_the_older_interface_are_read():
    """With its `Header` values, and with text that nobody encoded."""
    mail = MIMEMultipart("alternative")
    mail["From"] = "a@example.com"
    mail["To"] = Header("김 <kim@example.com>", "utf-8")
    mail["Subject"] = Header("제목", "euc-kr")
    mail.attach(MIMEText("본문", "plain", "euc-kr"))
    mail.attach(MIMEText("<p>본문</p>", "html", "utf-8"))
    message = Message.from_mime(mail)
    assert message.check() == ()
    assert ("김", "kim@example.com", "제목") == (message.to[0].name, message.to[0].email, message.subject)
    leaves = [Leaf("text/plain", "본문"), Leaf("text/html", "<p>본문</p>")]
    for reader in READERS:
        assert leaves == reader(rendered(message)).leaves


def test_odd_labels_of_parts():
    """What is no type, no disposition or no parameter becomes something that is."""
    body = b"""Content-Type: multipart/mixed; boundary=b

--b
Content-Type: image/p(n)g; name=a.png; name=b.png; x(y)=z
Content-Disposition: form-data; filename="a.png"; size=1
Content-ID: <a@b>
Content-Description: \xea\xb9\x80
X-Attachment-Id: 1
Content-Length: 3

abc
--b
Content-Type: message/partial; id=x

Subject: y

z
--b
Content-Type: text/plain; charset=utf-8; format=flowed
Content-Disposition: inline

flowed_
text
--b--
"""
    message = mime(body.replace(b"_\n", b" \n"))
    assert message.check() == ()
    image, partial, text = read(rendered(message)).get_payload()
    assert ("application/octet-stream", "a.png", "attachment") == (
        image.get_content_type(),
        image.get_filename(),
        image.get_content_disposition(),
    )
    assert ("김", "<a@b>", "1", None) == tuple(
        image[name] for name in ("content-description", "content-id", "x-attachment-id", "content-length")
    )
    assert "a.png" == image.get_param("name")
    assert b"abc" == image.get_payload(decode=True)
    assert "message/partial" == partial.get_content_type()
    assert ("inline", "flowed") == (text.get_content_disposition(), text.get_param("format"))
    assert "flowed \r\ntext" == text.get_content()


def test_names_in_the_ways_of_all_times():
    """RFC 2231 with and without a charset, in pieces, and encoded-words where none may be."""
    for written, name in {
        "filename*=euc-kr''%B1%E8.pdf": "김.pdf",
        "filename*=''%EA%B9%80.pdf": "김.pdf",
        "filename*0*=utf-8''%EA%B9;\n filename*1*=%80.pdf": "김.pdf",
        'filename="=?utf-8?B?6rmA?=.pdf"': "김.pdf",
        'filename="a\x01.pdf"': "a .pdf",
    }.items():
        message = mime(f"Content-Type: application/pdf\nContent-Disposition: attachment; {written}\n\nx".encode())
        assert message.check() == ()
        for reader in READERS:
            assert [name] == [leaf.name for leaf in reader(rendered(message)).leaves]


def test_a_text_of_the_older_interface_that_nobody_encoded_is_utf_8():
    """The standard library would make escapes of it."""
    mail = OldMessage()
    mail["From"] = "a@example.com"
    mail["To"] = "kim@example.com"
    mail.set_payload("본문")
    message = Message.from_mime(mail)
    assert message.check() == ()
    assert "본문" == read(rendered(message)).get_content()


def test_an_enclosed_mail_that_is_text_stays_so():
    """The older interface lets one be set as it is."""
    mail = OldMessage()
    mail["To"] = "kim@example.com"
    mail["Content-Type"] = "message/rfc822"
    mail.set_payload("Subject: x\n\nHello")
    raw = rendered(Message.from_mime(mail))
    assert raw.endswith(
        b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: x\r\n\r\nHello"
    )


def test_an_empty_mail_is_one():
    """Nothing in, nothing out."""
    mail = EmailMessage()
    mail["To"] = "kim@example.com"
    assert b"" == rendered(Message.from_mime(mail)).partition(b"\r\n\r\n")[2]
    assert b"" == rendered(Message.from_mime(b"To: kim@example.com")).partition(b"\r\n\r\n")[2]


def test_a_codec_that_is_no_charset_reads_nothing():
    """Python knows some."""
    for name in ("base64", "rot13", "unicode_escape", "idna", "punycode", "undefined", "x-unknown", "a\0b", ""):
        with pytest.raises(LookupError):
            decoded(b"abc", name)
    assert "\x81" == decoded(b"\x81", "iso-8859-1")


pieces = st.lists(
    st.sampled_from(
        [
            b"From: a@example.com\n",
            b"To: kim@example.com\n",
            b"Subject: =?euc-kr?B?sei+uw==?= =?x?Q?=?=\n",
            b"Content-Type: multipart/mixed; boundary=b\n",
            b'Content-Type: multipart/signed; boundary="b"\n',
            b"Content-Type: message/rfc822\n",
            b"Content-Type: message/delivery-status\n",
            b"Content-Type: text/html; charset=utf-16; name*0*=a''%; name*1=\"\n",
            b'Content-Type: ;;=;"\n',
            b"Content-Disposition: attachment; filename*9*=x; filename\n",
            b"Content-Transfer-Encoding: base64\n",
            b"Content-Transfer-Encoding: x-uuencode\n",
            b"Content-ID:\n",
            b"\n--b\n",
            b"\n--b--\n",
            b"\n",
            b"\r",
            b"begin 644 x\n#86)C\n",
            b"QUJD\n",
            b"\xea\xb9\x80\n",
            b"\xff",
            b" folded\n",
        ]
    )
    | st.binary(max_size=6),
    max_size=25,
).map(b"".join)


@given(pieces)
@settings(max_examples=3 * settings().max_examples)
def test_no_bytes_raise_and_none_get_out_unsafe(raw):
    """Whatever somebody hands over is a message with problems at worst."""
    message = Message.from_mime(raw)
    assert all(problem.reason for problem in message.check())
    written = rendered(message)
    assert written.isascii()
    if not message.mime.check():
        assert b"\0" not in written
        assert written.count(b"\r") == written.count(b"\n") == written.count(b"\r\n")
        assert max(map(len, written.split(b"\r\n"))) < 998
        assert Message.from_mime(written).mime.check() == ()


@given(st.text(string.printable + "김🎉", max_size=400), st.text(string.ascii_letters, min_size=1, max_size=60))
def test_a_field_of_any_text_is_read_back(text, name):
    """With its blanks, however long; control characters are spaces."""
    raw = _entities.text_field(name, text) + b"\r\n"
    assume(text.strip())
    expected = "".join(" " if ord(character) < 32 or ord(character) == 127 else character for character in text)
    assert expected == str(message_from_bytes(raw, policy=policy.default)[name])
