"""Messages of all kinds, written, and read back by two readers that nobody here wrote, with every field equal."""

from __future__ import annotations

import base64
import random
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from mail_readers import READERS, Leaf, View, request_for, sent
from tanksend import Address, Attachment, Message, Unsubscribe
from tanksend._mime import render

KOREAN = "안녕하세요, 김철수 님! 주문하신 상품이 발송되었습니다."
JAPANESE = "こんにちは、田中さん。ご注文の商品を発送しました。"
ARABIC = "مرحبا بك، تم شحن طلبك."
HEBREW = "שלום, ההזמנה שלך נשלחה."
THAI = "สวัสดี คำสั่งซื้อของคุณถูกจัดส่งแล้ว"
HINDI = "नमस्ते, आपका ऑर्डर भेज दिया गया है।"
EMOJI = "🎉👨‍👩‍👧‍👦🇰🇷👍🏽 ok"
DECOMPOSED = "e\u0301a\u0308 \u1112\u1161\u11ab"
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Example//EN
METHOD:REQUEST
BEGIN:VEVENT
UID:1@example.com
DTSTAMP:20261101T000000Z
DTSTART:20261102T010000Z
SUMMARY:회의
ORGANIZER:mailto:no-reply@example.com
ATTENDEE;RSVP=TRUE:mailto:kim@example.com
END:VEVENT
END:VCALENDAR
"""


def noise(size: int) -> bytes:
    """The same bytes each time."""
    return random.Random(size).randbytes(size)


def file(name: str, content: bytes = b"%PDF-1.7 \x00\xff", **fields: Any) -> Attachment:
    """A small file."""
    return Attachment(name, content, **fields)


GOLDEN: dict[str, dict[str, Any]] = {
    # --- bodies
    "only text": {},
    "only html": {"text": None, "html": "<p>Hello</p>"},
    "text and html": {"html": "<p>Hello</p>"},
    "empty text": {"text": ""},
    "empty html beside text": {"html": ""},
    "korean": {"subject": KOREAN, "text": KOREAN, "html": f"<p>{KOREAN}</p>"},
    "japanese": {"subject": JAPANESE, "text": JAPANESE, "html": f"<p>{JAPANESE}</p>"},
    "arabic": {"subject": ARABIC, "text": ARABIC, "html": f'<p dir="rtl">{ARABIC}</p>'},
    "hebrew": {"subject": HEBREW, "text": HEBREW},
    "thai": {"subject": THAI, "text": THAI},
    "hindi": {"subject": HINDI, "text": HINDI},
    "emoji": {"subject": EMOJI, "text": EMOJI, "html": f"<p>{EMOJI}</p>"},
    "decomposed letters": {"subject": DECOMPOSED, "text": DECOMPOSED},
    "mostly ascii": {"text": "Grüße aus Köln. " * 50},
    "dots at line starts": {"text": ".\n..\n.a\n\n.\r\n.b", "html": ".\n<p>.</p>\n..\n"},
    "from at line starts": {"text": "From me\nFrom: you\n>From x\nFrom ", "html": "From <b>us</b>\nFrom you"},
    "long lines that begin with risky words": {"text": f"{'.' * 300}\nFrom {'a' * 90}\n.{'b' * 75}\nFrom {'c' * 71}"},
    "trailing spaces": {"text": "a  \nb\t\n  \n c ", "html": "<p>a </p> \n\t\n"},
    "trailing newlines": {"text": "a\n\n\n", "html": "\n\n<p>a</p>\n\n"},
    "no newline at the end": {"text": "a\nb"},
    "bare carriage returns": {"text": "a\rb\r\nc\nd\r"},
    "a very long line": {"text": "x" * 5000, "html": f"<p>{'가' * 5000}</p>"},
    "a very long line with spaces": {"text": "word " * 2000},
    "equal signs": {"text": "a=b =3D = \n=\n==\n=20", "html": "<a href='https://example.com/?a=1&b=2'>x</a>"},
    "looks like a boundary": {"text": "--=_abc\n--\n---\n--=_abc--", "html": "--\n"},
    "control characters in the body": {"text": "a\x00b\x1bc\x7fd\x0be\x0cf\x85g\u2028h"},
    "non-breaking and zero width": {"text": "a\u00a0b\u200bc\ufeffd", "subject": "a\u00a0b\u200bc\ufeffd"},
    "tabs": {"text": "\ta\t\tb\t\n\t"},
    "a large body": {"text": f"{KOREAN}\n" * 5000, "html": "<p>line</p>\n" * 20000},
    # --- subjects
    "empty subject": {"subject": ""},
    "a very long subject": {"subject": "Your order has been shipped and will arrive soon. " * 20 + "End"},
    "a very long korean subject": {"subject": KOREAN * 30},
    "a very long emoji subject": {"subject": "🎉👨‍👩‍👧‍👦" * 60},
    "a very long word as subject": {"subject": "x" * 3000},
    "subject with an accent at the end": {"subject": "a" * 200 + "é"},
    "subject that is an encoded-word": {"subject": "=?UTF-8?B?6rmA?= =?x?"},
    "subject with spaces at its ends": {"subject": "  a  b   c  "},
    "subject with wide gaps": {"subject": f"{'a' * 60}   {'b' * 40}  {'c' * 60}"},
    "subject with specials": {"subject": 'a, "b" (c) <d@example.com>; e: \\f'},
    # --- addresses
    "korean names": {"to": [Address("김철수", "kim@example.com"), Address("이영희", "lee@example.com")]},
    "arabic and emoji names": {
        "to": [Address(ARABIC, "a@example.com")],
        "cc": [Address("🎉 Party 🎉", "b@example.com")],
    },
    "a comma in a name": {
        "to": [Address("Kim, Jr", "kim@example.com")],
        "from_": Address("Tank, Inc.", "t@example.com"),
    },
    "quotes and backslashes in a name": {"to": [Address('a "b" \\c (d)', "kim@example.com")]},
    "a korean name with a comma": {"to": [Address("김, 철수 <x>", "kim@example.com")]},
    "a very long name": {"to": [Address("Maximilian " * 20 + "Q", "kim@example.com")]},
    "a very long korean name": {"to": [Address("김수한무거북이와두루미" * 4, "kim@example.com")]},
    "a name like an encoded-word": {"to": [Address("=?UTF-8?B?6rmA?=", "kim@example.com")]},
    "a name like an address": {"to": [Address("kim@example.com", "kim@example.com")]},
    "fifty recipients": {
        "to": [Address(f"사람 {n}, Jr", f"person{n}+tag@sub.example.com") for n in range(30)],
        "cc": [f"copy{n}@example.com" for n in range(20)],
    },
    "all address fields": {
        "to": "a@example.com",
        "cc": "b@example.com, C <c@example.com>",
        "bcc": "d@example.com",
        "reply_to": [Address("답장", "e@example.com"), Address("", "f@example.com")],
        "from_": Address("보내는 사람", "g@example.com"),
    },
    "only bcc": {"to": (), "bcc": "d@example.com"},
    "an international domain": {"to": "kim@xn--bcher-kva.example"},
    # --- headers
    "custom headers": {"headers": {"X-A": "b", "In-Reply-To": "<a@example.com>"}},
    "a long header": {"headers": {"References": " ".join(f"<{n}.{'a' * 30}@example.com>" for n in range(20))}},
    "the longest header": {"headers": {"X-A": "a" * 993, "X-" + "B" * 120: "c" * 874}},
    "unsubscribe": {"unsubscribe": Unsubscribe(url="https://example.com/u/" + "a" * 300, mailto="off@example.com")},
    # --- files
    "one file": {"attachments": [file("a.pdf")]},
    "an empty file": {"attachments": [file("empty.txt", b"")]},
    "a file of 30 MB": {"attachments": [file("big.bin", noise(30_000_000))]},
    "two files of the same name": {"attachments": [file("a.pdf", b"1"), file("a.pdf", b"2")]},
    "korean file name": {"attachments": [file("보고서 2026년 11월.pdf")]},
    "japanese file name": {"attachments": [file("請求書（11月）.xlsx")]},
    "arabic file name": {"attachments": [file("تقرير.docx")]},
    "emoji file name": {"attachments": [file("🎉 party 🎉.png")]},
    "a very long file name": {"attachments": [file("a" * 251 + ".pdf")]},
    "a very long korean file name": {"attachments": [file("가" * 251 + ".pdf")]},
    "file name with specials": {"attachments": [file('a; "b" \\c, (d) =e%20.pdf'), file("it's 100%.pdf")]},
    "file name like an encoded-word": {"attachments": [file("=?UTF-8?B?6rmA?=.pdf")]},
    "file name without extension": {"attachments": [file("README")]},
    "types that are given": {
        "attachments": [
            file("a.bin", content_type="application/vnd.example+json; version=2"),
            file("b.csv", b"a,b\n1,2\n", content_type='text/csv; charset="euc-kr"; header=present'),
            file("c.eml", b"Subject: x\n\ny", content_type="message/rfc822"),
        ]
    },
    "text files keep their bytes": {"attachments": [file("a.txt", b"a\nb\r\nc\r.\n\xff"), file("b.html", b"<p>\n")]},
    "an inline image": {
        "html": '<p><img src="cid:logo@example.com"></p>',
        "attachments": [file("logo.png", IMAGE, content_id="logo@example.com")],
    },
    "inline images and files": {
        "html": '<img src="cid:a"><img src="cid:b">',
        "attachments": [
            file("보고서.pdf"),
            file("a.png", IMAGE, content_id="a"),
            file("b.gif", b"GIF89a", content_id="b"),
            file("z.zip", b"PK\x03\x04"),
        ],
    },
    "an inline image without text": {
        "text": None,
        "html": '<img src="cid:a">',
        "attachments": [file("a.png", IMAGE, content_id="a")],
    },
    "an inline image without html": {"attachments": [file("a.png", IMAGE, content_id="a")]},
    "a compressed file": {"attachments": [file("data.csv", b"a,b,c\n" * 5000).compressed()]},
    "an invitation": {"html": "<p>Come</p>", "attachments": [Attachment.invitation(CALENDAR)]},
    "an invitation and all else": {
        "subject": KOREAN,
        "text": KOREAN,
        "html": '<img src="cid:a">',
        "to": [Address("김철수", "kim@example.com")],
        "headers": {"X-A": "b"},
        "unsubscribe": Unsubscribe(url="https://example.com/u"),
        "attachments": [
            file("a.png", IMAGE, content_id="a"),
            Attachment.invitation(CALENDAR.encode(), name="초대.ics"),
            file("agenda.pdf"),
        ],
    },
    "a hundred files": {"attachments": [file(f"{n}.bin", bytes([n])) for n in range(100)]},
}


def made(fields: dict[str, Any]) -> Message:
    """A small message with some fields of its own."""
    return Message(**{"to": "kim@example.com", "subject": "Hi", "text": "Hello", **fields})


def is_safe(raw: bytes) -> bool:
    """What every relay can carry."""
    return raw.isascii() and b"\0" not in raw and max(map(len, raw.split(b"\r\n"))) < 998


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fields", GOLDEN.values(), ids=GOLDEN)
def test_it_is_read_back_as_it_was_sent(fields, reader):
    """From, To, Cc, Reply-To, subject, text, HTML, files with names, types, ids and bytes, and headers."""
    message = made(fields)
    assert message.check() == ()
    raw = render(request_for(message))
    assert is_safe(raw)
    assert sent(message) == reader(raw)


def test_there_are_enough():
    """The set is the promise."""
    assert len(GOLDEN) >= 60


# --- mail that is made already ---------------------------------------------------------------------------------------

FIELDS = b"From: Tank <no-reply@example.com>\r\nTo: kim@example.com\r\nSubject: Hi\r\nMIME-Version: 1.0\r\n"


def mail(content_type: str, body: bytes, encoding: str = "8bit", fields: bytes = FIELDS) -> bytes:
    """A mail of one part."""
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    return fields + head + body


def view(leaves: list[Leaf], **fields: Any) -> View:
    """What a reader has to see."""
    usual = {"from_": [("Tank", "no-reply@example.com")], "to": [("", "kim@example.com")], "cc": [], "reply_to": []}
    return View(**{**usual, "subject": "Hi", "headers": {}, "leaves": leaves, **fields})


def texts(text: str, subtype: str = "plain") -> View:
    """The view of a mail of one text."""
    return view([Leaf(f"text/{subtype}", text)])


CHARSETS = {
    "euc-kr": KOREAN,
    "ks_c_5601-1987": "똠방각하",  # beyond EUC-KR, in the superset that senders mean
    "iso-2022-kr": "안녕하세요",
    "iso-2022-jp": JAPANESE,
    "shift_jis": JAPANESE,
    "x-sjis": "①髙",
    "euc-jp": JAPANESE,
    "gb2312": "您好",
    "gb18030": "您好，㐀",
    "big5": "您好",
    "windows-1256": "مرحبا",
    "iso-8859-8-i": "שלום",
    "windows-1251": "Здравствуйте",
    "koi8-r": "Здравствуйте",
    "iso-8859-1": "Grüße aus Köln",
    "iso-8859-15": "10 €",
    "macintosh": "Grüße",
    "tis-620": "สวัสดี",
    "utf-7": "안녕 + you",
    "utf-16": "안녕",
    "us-ascii": "Hello",
}
ODD_CODECS = {"ks_c_5601-1987": "cp949", "x-sjis": "cp932", "macintosh": "mac-roman", "iso-8859-8-i": "iso-8859-8"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("charset", CHARSETS)
def test_any_charset_comes_in_and_utf_8_goes_out(charset, reader):
    """In body, subject and display name."""
    text = CHARSETS[charset]
    raw = text.encode(ODD_CODECS.get(charset, charset))
    word = f"=?{charset}?B?{base64.b64encode(raw).decode()}?=".encode()
    fields = b"From: " + word + b" <no-reply@example.com>\nTo: kim@example.com\nSubject: " + word + b"\n"
    body = base64.encodebytes(raw)
    message = Message.from_mime(mail(f"text/plain; charset={charset}", body, "base64", fields))
    assert message.check() == ()
    written = render(request_for(message))
    assert is_safe(written)
    expected = view([Leaf("text/plain", text)], from_=[(text, "no-reply@example.com")], subject=text)
    assert expected == reader(written)


TEXTS = "one\ntwo  \n.\n..three\nFrom four\n" + "long " * 600 + "\n" + "x" * 3000 + "\n끝"


def by_standard_library() -> EmailMessage:
    """A mail with a bit of everything, as most people make it."""
    made = EmailMessage()
    made["From"] = "Tank <no-reply@example.com>"
    made["To"] = '김철수 <kim@example.com>, "Lee, Jr" <lee@example.com>'
    made["Cc"] = "copy@example.com"
    made["Bcc"] = "secret@example.com"
    made["Reply-To"] = "답장 <reply@example.com>"
    made["Subject"] = KOREAN * 3
    made["Message-ID"] = "<1@example.com>"
    made["Date"] = "Mon, 02 Nov 2026 10:00:00 +0900"
    made["In-Reply-To"] = "<0@example.com>"
    made["List-Unsubscribe"] = "<https://example.com/u>"
    made["X-Campaign"] = "겨울 세일"
    made.set_content(TEXTS)
    made.add_alternative('<img src="cid:logo">', subtype="html")
    made.get_payload()[1].add_related(IMAGE, "image", "png", cid="<logo>", filename="로고.png", disposition="inline")
    made.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="보고서.pdf")
    made.add_attachment("a,b\n1,2\n", subtype="csv", filename="data.csv")
    return made


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "form", [by_standard_library, lambda: by_standard_library().as_bytes()], ids=["object", "bytes"]
)
def test_a_mail_of_the_standard_library_is_read_back(form, reader):
    """With all its parts and further headers; Date and Message-ID are left to SES, and Bcc is nobody's business."""
    message = Message.from_mime(form())
    assert message.check() == ()
    assert ["secret@example.com"] == [address.email for address in message.bcc]
    written = render(request_for(message))
    assert is_safe(written)
    expected = view(
        [
            Leaf("text/plain", f"{TEXTS}\n"),
            Leaf("text/html", '<img src="cid:logo">\n'),
            Leaf("image/png", IMAGE, "로고.png", "logo", "inline"),
            Leaf("application/pdf", b"%PDF", "보고서.pdf", None, "attachment"),
            Leaf("text/csv", b"a,b\n1,2\n", "data.csv", None, "attachment"),
        ],
        to=[("김철수", "kim@example.com"), ("Lee, Jr", "lee@example.com")],
        cc=[("", "copy@example.com")],
        reply_to=[("답장", "reply@example.com")],
        subject=KOREAN * 3,
        headers={
            "in-reply-to": ["<0@example.com>"],
            "list-unsubscribe": ["<https://example.com/u>"],
            "x-campaign": ["겨울 세일"],
        },
    )
    assert expected == reader(written)


RAW = {
    "8-bit utf-8": (mail("text/plain; charset=utf-8", "김치\r\n".encode()), texts("김치\n")),
    "no charset": (mail("text/plain", "김치".encode()), texts("김치")),
    "8-bit that says ascii": (mail("text/plain; charset=us-ascii", "김치".encode()), texts("김치")),
    "no mime at all": (FIELDS.replace(b"MIME-Version: 1.0\r\n", b"") + b"\r\nHello\r\n", texts("Hello\n")),
    "bare newlines": (mail("text/plain", b"a\nb\n\n.\n").replace(b"\r\n", b"\n"), texts("a\nb\n\n.\n")),
    "dots and from": (mail("text/plain", b".\r\n..\r\nFrom x\r\n"), texts(".\n..\nFrom x\n")),
    "a very long line": (mail("text/html", b"<p>" + b"x" * 9000), texts("<p>" + "x" * 9000, "html")),
    "trailing spaces": (mail("text/plain", b"a \r\n\t\r\n b  "), texts("a \n\t\n b  ")),
    "quoted-printable": (
        mail("text/plain; charset=iso-8859-1", b"Gr=FC=DFe=\r\n!", "quoted-printable"),
        texts("Grüße!"),
    ),
    "an mbox line first": (b"From kim Mon Nov  2 10:00:00 2026\n" + mail("text/plain", b"x"), texts("x")),
    "raw utf-8 in headers": (
        mail(
            "text/plain", b"x", fields="From: 김 <a@example.com>\nTo: b@example.com\nSubject: 제목\nX-A: 값\n".encode()
        ),
        view(
            [Leaf("text/plain", "x")],
            from_=[("김", "a@example.com")],
            to=[("", "b@example.com")],
            subject="제목",
            headers={"x-a": ["값"]},
        ),
    ),
    "folded headers": (
        mail(
            "text/plain",
            b"x",
            fields=b"From: a@example.com\nTo: b@example.com,\n\tc@example.com\nSubject: a\n b\n\tc\n",
        ),
        view(
            [Leaf("text/plain", "x")],
            from_=[("", "a@example.com")],
            to=[("", "b@example.com"), ("", "c@example.com")],
            subject="a b c",
        ),
    ),
    "a file with an old kind of name": (
        mail(
            'application/pdf; name="=?euc-kr?B?sei+uw==?=.pdf"\r\nContent-Disposition: attachment',
            b"JVBERg==",
            "base64",
        ),
        view([Leaf("application/pdf", b"%PDF", "김씐.pdf", None, "attachment")]),
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("raw", "expected"), RAW.values(), ids=RAW)
def test_bytes_from_elsewhere_are_read_back(raw, expected, reader):
    """Whatever is 8-bit, too long, unusual or sloppy in them is made safe; the reader sees the same."""
    message = Message.from_mime(raw)
    assert message.check() == ()
    written = render(request_for(message))
    assert is_safe(written)
    assert expected == reader(written)


# --- generated -------------------------------------------------------------------------------------------------------

shown = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60)
bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.text("a \t\n\r.=-F김", max_size=400)
lines_of_words = st.lists(st.sampled_from(["From ", ".", " ", "\n", "word ", "x" * 90, "é", "=\n"]), max_size=60)
names = shown.map(str.strip).filter(lambda name: len(name) < 20)
people = st.builds(Address, names, st.sampled_from(["kim@example.com", "a+b@sub.example.com", "x_y@example.co.id"]))
some_people = st.lists(people, max_size=3)
file_names = shown.map("{}.dat".format).map(str.strip)  # mailparse takes blanks off the ends
files = st.builds(Attachment, file_names, st.binary(max_size=200))
images = st.builds(Attachment, file_names, st.binary(max_size=200), content_id=st.sampled_from(["a", "b@c", "%25"]))
mails = st.fixed_dictionaries(
    {
        "to": st.lists(people, min_size=1, max_size=8),
        "cc": some_people,
        "reply_to": some_people,
        "from_": st.none() | people,
        "subject": shown | shown.map(lambda text: text * 20),
        "text": bodies | lines_of_words.map("".join),
        "html": st.none() | bodies,
        "attachments": st.lists(files | images, max_size=4),
        "headers": st.dictionaries(
            st.sampled_from(["X-A", "In-Reply-To", "X-Very-Long-Name-Of-A-Header"]),
            st.text('ab <>@.,;:"\\()=', min_size=1, max_size=300).filter(
                lambda value: value.strip() and "=?" not in value
            ),
            max_size=3,
        ),
    }
)


@given(mails)
@settings(max_examples=3 * settings().max_examples)
def test_whatever_is_generated_is_read_back(fields):
    """Any text, any name, any file."""
    message = Message(**fields)
    written = render(request_for(message))
    assert is_safe(written)
    for reader in READERS:
        assert sent(message) == reader(written)
