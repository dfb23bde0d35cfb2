from __future__ import annotations

import copy
import datetime as dt
import hashlib
import inspect
import pickle
import re
import string
from types import MappingProxyType

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tanksend import Address, AddressValidator, Attachment, Message, Priority, Template, Unsubscribe
from tanksend._messages import BLOCKED_EXTENSIONS, KEY_TAG, check_tags, default_validator, key_tag
from tanksend._payload import PayloadWriter
from tanksend.exceptions import Problem
from tanksend.testing import _submission
from tanksend.typing import SendRequest

MAX_BYTES = 30_650_682  # 40 MB in base64 and lines of 76 characters, to the byte


def make(**fields):
    """A small message with some fields of its own."""
    return Message(**{"to": "kim@example.com", "subject": "Hi", "text": "Hello", **fields})


def faults(message):
    """The fields that `check` names."""
    return [problem.field for problem in message.check()]


# --- inside the limits -----------------------------------------------------------------------------------------------

ALPHANUMERIC = string.ascii_letters + string.digits
PRINTABLE = "".join(map(chr, range(32, 127)))
# Everything a person may read, and nothing that controls or is no character.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40)
bodies = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
tokens = st.text(ALPHANUMERIC + "_-", min_size=1, max_size=256)
emails = st.builds(
    "{}@{}".format,
    st.text(ALPHANUMERIC + "_+-", min_size=1, max_size=20),
    st.sampled_from(["example.com", "Mail.Example.CO.id", "bücher.example", "xn--bcher-kva.example", "한국.kr"]),
)
addresses = st.builds(Address, texts.filter(lambda name: len(name) < 12), emails)
OWN = {"bcc", "cc", "content-disposition", "content-transfer-encoding", "content-type", "date", "from", "message-id"}
OWN |= {
    "mime-version",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "list-unsubscribe",
    "list-unsubscribe-post",
}
header_names = st.text(PRINTABLE.replace(":", "").replace(" ", ""), min_size=1, max_size=126).filter(
    lambda name: name.lower() not in OWN and not name.lower().startswith("x-ses-")
)
headers = st.lists(
    st.tuples(header_names, st.text(PRINTABLE, min_size=1, max_size=870)),
    max_size=13,
    unique_by=lambda pair: pair[0].lower(),
).map(dict)
attachments = st.builds(
    Attachment,
    texts.map(lambda name: f"{name[:30]}.pdf"),
    st.binary(max_size=20),
    content_type=st.none() | st.just("application/pdf"),
    content_id=st.none() | st.text(ALPHANUMERIC + "@.-", min_size=1, max_size=78),
)
unsubscribes = st.builds(
    Unsubscribe,
    url=st.text(ALPHANUMERIC + "/?=&%-._~", max_size=100).map("https://example.com/{}".format),
    mailto=st.none()
    | st.sampled_from(["off@example.com", "mailto:off@example.com?subject=a%20b", "MAILTO:a+b@example.com"]),
) | st.builds(Unsubscribe, mailto=st.just("off@example.com?body=kim@example.com"))
inside = st.fixed_dictionaries(
    {
        "to": st.lists(addresses, min_size=1, max_size=20),
        "subject": texts,
        "text": bodies,
        "html": st.none() | bodies,
        "from_": st.none() | addresses,
        "cc": st.lists(addresses, max_size=15),
        "bcc": st.lists(addresses, max_size=15),
        "reply_to": st.lists(addresses, max_size=2),
        "attachments": st.lists(attachments, max_size=2),
        "headers": headers,
        "tags": st.dictionaries(tokens, tokens, max_size=3),
        "configuration_set": st.none() | st.text(ALPHANUMERIC + "_-", min_size=1, max_size=64),
        "unsubscribe": st.none() | unsubscribes,
        "priority": st.none() | st.sampled_from(Priority),
        "key": st.none() | st.text(min_size=1, max_size=20),
        "last_active": st.none() | st.datetimes(),
    }
)


@given(inside)
@settings(max_examples=settings().max_examples * 3 // 5)
def test_everything_inside_the_limits_is_accepted(fields):
    """By `check`, and by rules that were written apart from it: those of the simulated SES."""
    message = Message(**fields)
    assert message.check() == ()
    sender = message.from_ or Address("", "no-reply@example.com")
    validate = default_validator().validate
    request = SendRequest(
        message,
        validate(sender),
        tuple(validate(address) for address in message.to),
        tuple(validate(address) for address in message.cc),
        tuple(validate(address) for address in message.bcc),
        tuple(validate(address) for address in message.reply_to),
        message.configuration_set,
        message.tags,
    )
    wanted = _submission.submission(_submission.load(PayloadWriter().send_email(request)))
    _submission.check_addresses(wanted)
    _submission.check_lengths(wanted)
    _submission.check_content(wanted)


# --- outside ---------------------------------------------------------------------------------------------------------

long_url = "https://example.com/" + "a" * 1000
BROKEN = [
    ("to", {"to": [], "cc": [], "bcc": []}),
    ("to", {"to": "", "cc": "", "bcc": ""}),
    ("to", {"to": [f"p{n}@example.com" for n in range(51)]}),
    ("to[0]", {"to": ["kim at example.com"]}),
    ("to[0]", {"to": [""]}),
    ("to[1]", {"to": ["kim@example.com", "a@example.com, b@example.com"]}),
    ("to[0]", {"to": [Address("x" * 320, "kim@example.com")]}),
    ("cc[0]", {"cc": ["kim@localhost"]}),
    ("bcc[0]", {"bcc": ["józef@example.com"]}),
    ("reply_to[0]", {"reply_to": ["kim@-example.com"]}),
    ("from_", {"from_": "a@example.com, b@example.com"}),
    ("from_", {"from_": ""}),
    ("subject", {"subject": "Hi\nBcc: kim@example.com"}),
    ("subject", {"subject": "Hi \ud800"}),
    ("text", {"text": "\udfff"}),
    ("html", {"html": "<p>\ud83d</p>"}),
    ("configuration_set", {"configuration_set": ""}),
    ("configuration_set", {"configuration_set": "a" * 65}),
    ("configuration_set", {"configuration_set": "news letter"}),
    ("key", {"key": ""}),
    ("headers", {"headers": {f"X-{n}": "a" for n in range(16)}}),
    ("headers[X-A]", {"headers": {"X-A": ""}}),
    ("headers[X-A]", {"headers": {"X-A": "grün"}}),
    ("headers[X-A]", {"headers": {"X-A": "a" * 996}}),
    ("headers[X-ABCDEF]", {"headers": {"X-ABCDEF": "a" * 989}}),
    ("headers[number 1]", {"headers": {"": "a"}}),
    ("headers[number 1]", {"headers": {"X A": "a"}}),
    ("headers[number 1]", {"headers": {"X:": "a"}}),
    ("headers[number 2]", {"headers": {"X-A": "a", "n" * 127: "a"}}),
    ("headers[x-a]", {"headers": {"X-A": "a", "x-a": "b"}}),
    ("headers[X-SES-CONFIGURATION-SET]", {"headers": {"X-SES-CONFIGURATION-SET": "a"}}),
    ("tags[number 1]", {"tags": {"ses:from-domain": "a"}}),
    ("tags[number 1]", {"tags": {"": "a"}}),
    ("tags[a]", {"tags": {"a": ""}}),
    ("tags[a]", {"tags": {"a": "kim@example.com"}}),
    ("tags[number 2]", {"tags": {"a": "b", "n" * 257: "c"}}),
    ("tags[tanksend-key]", {"tags": {KEY_TAG: "a"}}),
    ("attachments[0].name", {"attachments": [Attachment("", b"")]}),
    ("attachments[0].name", {"attachments": [Attachment("a" * 256, b"")]}),
    ("attachments[0].name", {"attachments": [Attachment("a\u2028b.pdf", b"")]}),
    ("attachments[0].name", {"attachments": [Attachment("\ud800.pdf", b"")]}),
    ("attachments[1].name", {"attachments": [Attachment("a.pdf", b""), Attachment("Setup.EXE ", b"")]}),
    ("attachments[0].content_type", {"attachments": [Attachment("a.pdf", b"", content_type="")]}),
    ("attachments[0].content_type", {"attachments": [Attachment("a.pdf", b"", content_type="a" * 79)]}),
    ("attachments[0].content_id", {"attachments": [Attachment("a.pdf", b"", content_id="")]}),
    ("attachments[0].content_id", {"attachments": [Attachment("a.pdf", b"", content_id="a b")]}),
    ("attachments[0].content_id", {"attachments": [Attachment("a.pdf", b"", content_id="<>")]}),
    ("attachments", {"attachments": [Attachment("a.pdf", b"")] * 500}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="http://example.com/u")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="https://")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="https://@/")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="https://[::1")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="https://bücher.example/u")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="https://example.com/>, <http://example.com")}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url=long_url)}),
    ("unsubscribe.url", {"unsubscribe": Unsubscribe(url="", mailto="off@example.com")}),
    ("unsubscribe.mailto", {"unsubscribe": Unsubscribe(mailto="off")}),
    ("unsubscribe.mailto", {"unsubscribe": Unsubscribe(mailto="a@example.com, b@example.com")}),
    ("unsubscribe.mailto", {"unsubscribe": Unsubscribe(mailto="a@example.com>, <https://example.com")}),
    ("unsubscribe.mailto", {"unsubscribe": Unsubscribe(mailto="a" * 980 + "@example.com")}),
]


@pytest.mark.parametrize(("field", "broken"), BROKEN, ids=range(len(BROKEN)))
def test_everything_outside_is_named(field, broken):
    """One fault gives one problem, with the field's name, and a reason that does not repeat the value."""
    problems = make(**broken).check()
    assert [problem.field for problem in problems] == [field]
    assert "kim" not in problems[0].reason


@given(inside, st.sampled_from(BROKEN))
@settings(max_examples=settings().max_examples * 3 // 5)
def test_a_fault_is_named_in_any_message(fields, fault):
    """Whatever else a message has, the one fault in it is found, and no other."""
    field, broken = fault
    fields = {**fields, **broken}
    if field.startswith(("headers", "unsubscribe")):
        # Their number, and names that are given twice, are a matter of both.
        fields = {**fields, "headers": {}, "unsubscribe": None, **broken}
    assert faults(Message(**fields)) == [field]


def test_all_faults_are_listed():
    """Not only the first: one look at a row tells everything that is to be mended."""
    message = make(to="", subject="\n", tags={"a": " "}, headers={"To": "a"}, from_="nobody")
    assert faults(message) == ["subject", "headers[To]", "tags[a]", "from_", "to"]


INJECTION = ["\r\nBcc: kim@example.com", "\n", "\r", "\x00", "\x85", "\u2028", "\x7f", "\t"]
PLACES = {
    "subject": lambda bad: {"subject": bad},
    "from_": lambda bad: {"from_": Address(bad, "a@example.com")},
    "from_ ": lambda bad: {"from_": Address("", bad)},
    "to[0]": lambda bad: {"to": [Address(bad, "a@example.com")]},
    "to[0] ": lambda bad: {"to": [Address("", f"a@example{bad}.com")]},
    "cc[0]": lambda bad: {"cc": [Address(bad, "a@example.com")]},
    "cc[0] ": lambda bad: {"cc": [Address("", f"a{bad}@example.com")]},
    "bcc[0]": lambda bad: {"bcc": [Address(bad, "a@example.com")]},
    "reply_to[0]": lambda bad: {"reply_to": [Address(bad, "a@example.com")]},
    "reply_to[0] ": lambda bad: {"reply_to": [Address("", bad)]},
    "headers[number 1]": lambda bad: {"headers": {bad: "a"}},
    "headers[X-A]": lambda bad: {"headers": {"X-A": bad}},
    "tags[number 1]": lambda bad: {"tags": {bad: "a"}},
    "tags[a]": lambda bad: {"tags": {"a": bad}},
    "configuration_set": lambda bad: {"configuration_set": bad},
    "attachments[0].name": lambda bad: {"attachments": [Attachment(bad, b"")]},
    "attachments[0].content_type": lambda bad: {"attachments": [Attachment("a.pdf", b"", content_type=bad)]},
    "attachments[0].content_id": lambda bad: {"attachments": [Attachment("a.pdf", b"", content_id=bad)]},
    "unsubscribe.url": lambda bad: {"unsubscribe": Unsubscribe(url=f"https://example.com/{bad}")},
    "unsubscribe.mailto": lambda bad: {"unsubscribe": Unsubscribe(mailto=f"off@example.com?subject={bad}")},
}


@given(st.sampled_from(sorted(PLACES)), st.sampled_from(INJECTION), st.text(ALPHANUMERIC, max_size=3))
@settings(max_examples=3 * settings().max_examples)
def test_no_field_lets_a_header_in(place, bad, around):
    """A line break or another control character is found in every field that goes into a header."""
    for text in (around + bad, bad + around, around + bad + around):
        assert place.strip() in faults(make(**PLACES[place](text)))


def test_bodies_may_have_line_breaks():
    """They are what bodies are made of."""
    assert make(text="a\r\nb\tc", html="<p>\n</p>").check() == ()


# --- the limits to the byte ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "a" * MAX_BYTES},
        {"text": "가" * (MAX_BYTES // 3)},
        {"text": "a" * (MAX_BYTES - 6), "html": "b"},
        {"text": "", "attachments": [Attachment("a.pdf", bytes(MAX_BYTES - 6)), Attachment("b.pdf", b"1")]},
    ],
    ids=["ascii", "korean", "two parts", "attachments"],
)
def test_forty_megabytes_and_no_more(fields):
    """The limit is on what base64 in lines makes of the parts, each padded for itself."""
    assert make(**fields).check() == ()
    larger = {"html": fields.get("html", "") + "xxx"} if "html" in fields else {"html": "x"}
    assert faults(make(**{**fields, **larger})) == ["content"]


def test_fifty_people_and_no_more():
    """To, Cc and Bcc together; who is named twice counts once."""
    people = [f"p{number}@example.com" for number in range(50)]
    assert make(to=people[:20], cc=people[20:40], bcc=people[40:]).check() == ()
    assert make(to=people, cc="P0@EXAMPLE.com", bcc=["P1@example.com"]).check() == ()
    assert make(to=people, bcc="p50@example.com").check() == (
        Problem("to", "has 51 recipients with cc and bcc; SES takes 50"),
    )


def test_people_are_counted_by_what_goes_on_the_wire():
    """One person whose domain is written in letters and in Punycode is one person."""
    people = [f"p{number}@bücher.example" for number in range(50)]
    assert make(to=people, cc=[text.replace("bücher", "xn--bcher-kva") for text in people]).check() == ()


def test_fifteen_headers_and_no_more():
    """Those that unsubscribe= writes among them."""
    assert make(headers={f"X-{n}": "a" for n in range(15)}).check() == ()
    one_click = Unsubscribe(url="https://example.com/u")
    assert make(headers={f"X-{n}": "a" for n in range(13)}, unsubscribe=one_click).check() == ()
    assert faults(make(headers={f"X-{n}": "a" for n in range(14)}, unsubscribe=one_click)) == ["headers"]
    mail = Unsubscribe(mailto="off@example.com")
    assert make(headers={f"X-{n}": "a" for n in range(14)}, unsubscribe=mail).check() == ()
    assert faults(make(headers={f"X-{n}": "a" for n in range(15)}, unsubscribe=mail)) == ["headers"]


@pytest.mark.parametrize("name", sorted(OWN - {"list-unsubscribe", "list-unsubscribe-post"}))
def test_headers_that_have_a_field_are_refused(name):
    """SES takes each of them once, and it is written already."""
    for spelling in (name, name.title(), name.upper()):
        (problem,) = make(headers={spelling: "a"}).check()
        assert problem.field == f"headers[{spelling}]"
        assert re.fullmatch("is not for headers=: (use [a-z_]+=|SES writes it)", problem.reason)


def test_unsubscribe_headers_may_be_given_by_hand_or_by_field():
    """Not by both."""
    own = {"List-Unsubscribe": "<https://example.com/u>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
    assert make(headers=own).check() == ()
    twice = make(headers=own, unsubscribe=Unsubscribe(url="https://example.com/u"))
    assert faults(twice) == ["headers[List-Unsubscribe]", "headers[List-Unsubscribe-Post]"]
    mail = Unsubscribe(mailto="off@example.com")
    assert faults(make(headers=own, unsubscribe=mail)) == [
        "headers[List-Unsubscribe]",
        "headers[List-Unsubscribe-Post]",
    ]


def test_the_longest_header_there_may_be():
    """995 characters of value, 126 of name, 996 together."""
    assert make(headers={"X": "a" * 995}).check() == ()
    assert make(headers={"n" * 126: "a" * 870}).check() == ()
    assert make(headers={"!": "~"}).check() == ()


@pytest.mark.parametrize("extension", sorted(BLOCKED_EXTENSIONS))
def test_blocked_extensions(extension):
    """SES refuses these whatever is in the file."""
    (problem,) = Attachment(f"a.pdf.{extension.upper()}", b"").check()
    assert problem == Problem("name", f"SES refuses files that end in .{extension}")
    assert Attachment(extension, b"").check() == ()
    assert Attachment(f"{extension}.pdf", b"").check() == ()


def test_the_parts_of_a_message_are_counted():
    """SES takes 500 MIME parts."""
    few = [Attachment("a.pdf", b"")] * 498
    assert make(attachments=few, html="<p>").check() == ()
    assert make(attachments=[*few, few[0]]).check() == ()
    assert faults(make(attachments=[*few, few[0]], html="<p>")) == ["attachments"]


def test_a_validator_of_ones_own():
    """`check` asks the one it is given."""
    message = make(to="kim@host.test", from_="a@host.test")
    assert faults(message) == ["from_", "to[0]"]
    assert message.check(AddressValidator(allow_reserved_domains=True)) == ()


def test_content_can_be_checked_without_addresses():
    """The sender judges those itself, once."""
    assert make(to="nobody").check_content() == ()
    assert [problem.field for problem in make(to="nobody", subject="\r").check_content()] == ["subject"]


# --- construction ----------------------------------------------------------------------------------------------------


def test_the_fields_of_a_plain_message():
    """Defaults."""
    message = Message("kim@example.com", "Hi", "Hello")
    assert message.to == (Address("", "kim@example.com"),)
    assert (message.subject, message.text, message.html) == ("Hi", "Hello", None)
    assert (message.cc, message.bcc, message.reply_to, message.attachments) == ((), (), (), ())
    assert (message.headers, message.tags) == ({}, {})
    assert message.from_ is message.configuration_set is message.unsubscribe is None
    assert message.priority is message.key is message.last_active is None


def test_addresses_in_many_shapes():
    """One, a list in one text, values, and any iterable; each item of an iterable is one address."""
    kim, lee = Address("Kim", "kim@example.com"), Address("", "lee@example.com")
    assert make(to="Kim <kim@example.com>, lee@example.com").to == (kim, lee)
    assert make(to=kim, cc=[lee], bcc=iter(["Kim <kim@example.com>"]), reply_to={"lee@example.com": 1}) == make(
        to=[kim], cc=(lee,), bcc=kim, reply_to="lee@example.com"
    )
    assert make(from_="Kim, Jr <kim@example.com>").from_ == Address("Kim, Jr", "kim@example.com")
    assert make(from_=kim).from_ is kim
    assert make(to=(), cc=()).cc == ()


WRONG = [
    {"to": None},
    {"to": b"kim@example.com"},
    {"to": [None]},
    {"to": 5},
    {"cc": None},
    {"bcc": 5},
    {"reply_to": [5]},
    {"from_": ["kim@example.com"]},
    {"from_": 5},
    {"subject": None},
    {"subject": b"secret"},
    {"text": b"secret"},
    {"html": 5},
    {"headers": None},
    {"headers": [("X-A", "secret")]},
    {"headers": {"X-A": 5}},
    {"headers": {5: "secret"}},
    {"tags": "secret"},
    {"tags": {"a": b"secret"}},
    {"attachments": Attachment("secret", b"")},
    {"attachments": ["secret"]},
    {"configuration_set": 5},
    {"unsubscribe": "https://example.com/secret"},
    {"key": 5},
    {"last_active": "2026-11-24"},
    {"last_active": dt.date(2026, 11, 24)},
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_a_wrong_type_is_refused_at_once(wrong):
    """A `TypeError` that names the type, and never repeats the value."""
    with pytest.raises(TypeError) as caught:
        make(**wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["subject", "text", "html", "key", "configuration_set", "unsubscribe", "last_active"])
def test_the_error_names_the_field(field):
    """The field whose type is wrong."""
    with pytest.raises(TypeError, match=f"^{field} must be a .*, not int$"):
        make(**{field: 5})


@pytest.mark.parametrize("field", ["headers", "tags"])
def test_the_error_names_the_mapping(field):
    """The field whose type is wrong."""
    with pytest.raises(TypeError, match=f"^{field} must be a mapping of str to str, not list$"):
        make(**{field: []})
    with pytest.raises(TypeError, match=f"^{field} must map str to str, not str to int$"):
        make(**{field: {"a": 1}})


def test_text_of_a_subclass_of_str_is_text():
    """Such as the marked-up strings of template engines."""

    class Markup(str):
        __slots__ = ()

    assert make(text=Markup("a"), subject=Markup("b"), key=Markup("c")).check() == ()


def test_a_message_needs_content():
    """Neither text nor HTML is a programming error; either is enough, and may be empty."""
    with pytest.raises(ValueError, match="a message needs text= or html="):
        make(text=None)
    assert make(text="").check() == ()
    assert make(text=None, html="<p>").check() == ()


def test_priorities():
    """The lower number goes first; what is none of them is refused."""
    assert Priority.TRANSACTIONAL < Priority.BULK
    assert make(priority=1).priority is Priority.BULK
    with pytest.raises(ValueError, match="not a valid Priority"):
        make(priority=7)


# --- a value ---------------------------------------------------------------------------------------------------------


def test_recipients_are_each_person_once_where_first_named():
    """In order, the first spelling counts; what SES counts is persons."""
    message = make(to="a@example.com, b@example.com", cc=["A <A@Example.com>", "c@example.com"], bcc="b@example.com")
    assert [address.email for address in message.recipients] == ["a@example.com", "b@example.com", "c@example.com"]
    assert make().recipients == make().to


@given(st.lists(st.sampled_from("abcdeABC"), max_size=12), st.lists(st.sampled_from("abfAB"), max_size=6))
def test_recipients_keep_their_order(to, bcc):
    """Whoever comes first stays first, however often he is named later."""
    message = make(to=[f"{name}@example.com" for name in to], bcc=[f"{name}@example.com" for name in bcc])
    expected = list(dict.fromkeys(name.lower() for name in to + bcc))
    assert [address.local.lower() for address in message.recipients] == expected
    firsts = [next(name for name in to + bcc if name.lower() == wanted) for wanted in expected]
    assert [address.local for address in message.recipients] == firsts


@pytest.mark.parametrize("field", ["headers", "tags"])
def test_mappings_cannot_be_changed(field):
    """Neither through the original nor through the message."""
    original = {"a": "b"}
    message = make(**{field: original})
    original["a"] = "\r\n"
    assert getattr(message, field) == {"a": "b"}
    with pytest.raises(TypeError):
        getattr(message, field)["a"] = "c"
    with pytest.raises(AttributeError):
        getattr(message, field).clear()
    assert getattr(make(), field) is getattr(make(**{field: {}}), field)


def test_a_message_cannot_be_changed():
    """It is frozen, and so are its lists."""
    message = make(to=["kim@example.com"], attachments=[Attachment("a.pdf", b"1")])
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        message.subject = "Other"
    assert isinstance(message.to, tuple)
    assert isinstance(message.attachments, tuple)


FULL = {
    "to": "Kim <kim@example.com>",
    "subject": "Hi",
    "text": "Hello",
    "html": "<p>",
    "from_": "a@example.com",
    "cc": "b@example.com",
    "bcc": "c@example.com",
    "reply_to": "d@example.com",
    "attachments": [Attachment("a.pdf", b"1", content_type="application/pdf", content_id="logo")],
    "headers": {"X-A": "a"},
    "tags": {"t": "v"},
    "configuration_set": "news",
    "unsubscribe": Unsubscribe(url="https://example.com/u"),
    "priority": Priority.BULK,
    "key": "k",
    "last_active": dt.datetime(2026, 11, 24, tzinfo=dt.UTC),
}


def test_equal_messages_are_equal():
    """By value, in every field, and hashed accordingly."""
    message = Message(**FULL)
    assert message == Message(**FULL)
    assert hash(message) == hash(Message(**FULL))
    assert len({message, Message(**FULL), make()}) == 2
    for name in FULL:
        changed = Message(**{**FULL, name: getattr(make(to="x@example.com", subject="Ho", text="Hey"), name)})
        assert changed != message, name


@pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.copy, copy.deepcopy])  # noqa: S301
@pytest.mark.parametrize("fields", [{}, FULL], ids=["plain", "full"])
def test_a_message_survives_pickling_and_copying(fields, again):
    """Every field, and what is read-only stays so."""
    message = make(**fields)
    message.attachments and message.attachments[0].encoded  # fills a cache
    same = again(message)
    assert same == message
    assert attrs.asdict(same, recurse=False) == attrs.asdict(message, recurse=False)
    assert isinstance(same.headers, MappingProxyType)
    assert isinstance(same.tags, MappingProxyType)
    assert same.check() == ()


def test_evolve_makes_another_message():
    """The way to change one field."""
    message = attrs.evolve(Message(**FULL), subject="Ho")
    assert message == Message(**{**FULL, "subject": "Ho"})


def test_reprs_show_counts_only():
    """No address, body, subject or key."""
    assert repr(Message(**FULL)) == "<Message recipients=3 attachments=1>"
    assert repr(make()) == "<Message recipients=1 attachments=0>"
    assert repr(Attachment("secret.pdf", b"1234")) == "<Attachment 4 bytes>"
    assert repr(Attachment("secret.pdf", b"", content_id="secret")) == "<Attachment 0 bytes inline>"
    assert repr(Unsubscribe(url="https://example.com/secret")) == "<Unsubscribe url>"
    assert repr(Unsubscribe(mailto="secret@example.com")) == "<Unsubscribe mailto>"
    assert repr(Unsubscribe(url="https://example.com/", mailto="a@example.com")) == "<Unsubscribe url mailto>"


# --- attachments -----------------------------------------------------------------------------------------------------


def test_an_attachment_is_encoded_once():
    """However many messages carry it."""
    attachment = Attachment("a.pdf", b"\x00\xff\x10")
    assert attachment.encoded == b"AP8Q"
    assert attachment.encoded is attachment.encoded
    assert b"\n" not in Attachment("a.pdf", bytes(1000)).encoded


def test_the_shortest_and_the_longest_file_name():
    """One character to 255."""
    assert Attachment("a", b"").check() == ()
    assert Attachment("a" * 255, b"").check() == ()


def test_what_is_less_obvious_is_given_by_name():
    """So that a call can be read."""

    def by_position(kind):
        parameters = inspect.signature(kind).parameters.values()
        return [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]

    assert by_position(Message) == ["to", "subject", "text", "html"]
    assert by_position(Attachment) == ["name", "content"]
    assert by_position(Unsubscribe) == []


def test_attachments_are_compared_by_value():
    """The kept encoding is no part of it."""
    first, second = Attachment("a.pdf", b"1"), Attachment("a.pdf", b"1")
    assert first.encoded
    assert (first, hash(first)) == (second, hash(second))
    assert pickle.loads(pickle.dumps(first)) == second  # noqa: S301
    assert Attachment("a.pdf", b"1", content_id="x") != first
    assert attrs.evolve(first, content=b"22").encoded == b"MjI="


def test_an_attachment_from_a_file(tmp_path):
    """Its name is the file's, unless another is given."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"1234")
    assert Attachment.from_path(path) == Attachment("a.pdf", b"1234")
    named = Attachment.from_path(str(path), name="b.pdf", content_type="application/pdf", content_id="x")
    assert named == Attachment("b.pdf", b"1234", content_type="application/pdf", content_id="x")
    with pytest.raises(FileNotFoundError):
        Attachment.from_path(tmp_path / "none.pdf")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": b"secret"},
        {"content": "secret"},
        {"content": None},
        {"content_type": b"secret"},
        {"content_id": b"secret"},
    ],
)
def test_an_attachment_of_wrong_types_is_refused(wrong):
    """With the field and the type, without the content."""
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))} must be a ") as caught:
        Attachment(**{"name": "a.pdf", "content": b"1", **wrong})
    assert "secret" not in str(caught.value)


def test_attachments_are_several():
    """One alone is a mistake that says so."""
    with pytest.raises(TypeError, match="not one of them"):
        Message("a@example.com", "Hi", "x", attachments=Attachment("a.pdf", b"1"))


# --- unsubscribe -----------------------------------------------------------------------------------------------------


def test_one_click_writes_both_headers():
    """RFC 8058 section 3.1, letter for letter."""
    assert Unsubscribe(url="https://example.com/u?a=1&b=2", mailto="off@example.com?subject=x").headers == (
        ("List-Unsubscribe", "<https://example.com/u?a=1&b=2>, <mailto:off@example.com?subject=x>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )
    assert Unsubscribe(url="https://example.com/u").headers[0] == ("List-Unsubscribe", "<https://example.com/u>")


@pytest.mark.parametrize(
    ("mailto", "written"),
    [
        ("off@example.com", "<mailto:off@example.com>"),
        ("mailto:off@example.com", "<mailto:off@example.com>"),
        ("MailTo:off@example.com", "<MailTo:off@example.com>"),
    ],
)
def test_a_mail_address_alone_is_not_one_click(mailto, written):
    """There is nothing to post to, and to say otherwise would break the promise."""
    unsubscribe = Unsubscribe(mailto=mailto)
    assert unsubscribe.headers == (("List-Unsubscribe", written),)
    assert unsubscribe.check() == ()


def test_unsubscribe_is_https_in_any_case():
    """The scheme of a URL may be written in capitals."""
    assert Unsubscribe(url="HTTPS://example.com/u").check() == ()
    assert Unsubscribe(url="https://example.com:8443/u#x").check() == ()


def test_unsubscribe_of_wrong_types_or_nothing_is_refused():
    """Programming errors, told without the value."""
    with pytest.raises(ValueError, match="needs url= or mailto="):
        Unsubscribe()
    with pytest.raises(TypeError, match=r"^url must be a str, not bytes$"):
        Unsubscribe(url=b"secret")
    with pytest.raises(TypeError, match=r"^mailto must be a str, not int$"):
        Unsubscribe(mailto=5)


def test_a_link_that_is_too_long_for_a_header():
    """996 characters with the name, brackets and all."""
    longest = 996 - len("List-Unsubscribe") - 2
    url = "https://example.com/".ljust(longest, "a")
    assert Unsubscribe(url=url).check() == ()
    assert Unsubscribe(url=url + "a").check() == (Problem("url", "is too long for one header"),)
    mailto = "off@example.com".rjust(longest - len("mailto:"), "a")
    assert Unsubscribe(mailto=mailto).check() == ()
    assert Unsubscribe(mailto="a" + mailto).check() == (Problem("mailto", "is too long for one header"),)


# --- tags and keys ---------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(["a", "B-1", "tanksend-key", "é", ""]), st.sampled_from(["x", "1_2", "²", "", "a b"])
    ),
    st.sampled_from([None, "news", "no set", ""]),
    st.none()
    | st.builds(
        Unsubscribe,
        url=st.sampled_from(
            ["https://a.example/u?x=1", "https://a.example", "HTTPS://A.example/", "https://:1/", "http://a.example/"]
        ),
        mailto=st.sampled_from([None, "leave@a.example", "no address"]),
    ),
    st.sampled_from(["Hi", "line\nbreak"]),
)
def test_the_quick_look_and_the_long_one_agree(tags, configuration_set, unsubscribe, subject):
    """Most messages are looked at in passing; nothing is overlooked, and nothing else refused."""
    message = Message(
        "a@example.com", subject, "t", tags=tags, configuration_set=configuration_set, unsubscribe=unsubscribe
    )
    assert message.check_content() == tuple(message._content_problems())


@given(
    st.dictionaries(
        st.sampled_from(["name", "order", "other"]),
        st.sampled_from(["Kim", "", "line\nbreak", None, 1, {"id": 2}, {"id": None}, float("nan")]),
    ),
    st.sampled_from(
        [
            Template(subject="Hi {{name}}", text="t"),
            Template(subject="Hi", text="{{name}} {{order.id}}"),
            Template(subject="Hi {{order.id}}", html="{{#if name}}"),
            Template(name="stored"),
            Template(name="no name"),
        ]
    ),
)
def test_the_quick_look_at_a_template_agrees(data, template):
    """As above, for what a template and its data have to do with each other."""
    message = Message.from_template(template, to="a@example.com", data=data)
    assert message.check_content() == tuple(message._content_problems())


def test_tags_are_of_ses_alphabet():
    """256 characters each; what is reserved is refused."""
    assert list(check_tags({"a" * 256: "b" * 256, "_-9": "Z"})) == []
    assert [problem.field for problem in check_tags({"ses:x": "a", KEY_TAG: "b", "c": "é"})] == [
        "tags[number 1]",
        "tags[tanksend-key]",
        "tags[c]",
    ]


@given(st.text(st.characters(exclude_categories=[]), max_size=300))
def test_any_key_becomes_a_tag(key):
    """Hashed to SES's alphabet, the same each time, and different for different keys."""
    (name, value), *rest = key_tag(key).items()
    assert (name, rest) == (KEY_TAG, [])
    assert re.fullmatch("[0-9a-f]{32}", value)
    assert key_tag(key) == key_tag(key)
    assert key_tag(key + "x") != key_tag(key)


def test_a_key_s_tag_does_not_change_between_versions():
    """Events of mails sent long ago still find their key."""
    assert key_tag("order-1") == {"tanksend-key": hashlib.sha256(b"order-1").hexdigest()[:32]}


def test_the_default_validator_is_shared():
    """So that its cache is."""
    assert default_validator() is default_validator()
