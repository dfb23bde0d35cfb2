"""The key that a campaign gives a message: the same for the same mail, another for any other."""

from __future__ import annotations

from email.message import EmailMessage

import attrs
import pytest
from hypothesis import given, strategies as st

from tanksend import Address, Attachment, Message, Priority, Template, Unsubscribe
from tanksend._messages import campaign_key
from tanksend.exceptions import InvalidMessageError

TEMPLATE = Template(subject="Hi", text="Hello {{name}}")


def make(**fields):
    """A small message with some fields of its own."""
    return Message(**{"to": "kim@example.com", "subject": "Hi", "text": "Hello", **fields})


def templated(data=None, template=TEMPLATE, **options):
    """One that SES makes of a template."""
    return Message.from_template(template, to="kim@example.com", data=data or {"name": "Kim"}, **options)


def mail(body):
    """One that is made already."""
    made = EmailMessage()
    made["To"], made["Subject"] = "kim@example.com", "Hi"
    made.set_content(body)
    return Message.from_mime(made)


def test_a_key_is_the_campaign_and_a_digest():
    """As documented; pinned, because a ledger holds what an earlier version has written."""
    key = campaign_key("2026-11 news", make())
    campaign, slash, digest = key.rpartition("/")
    assert ("2026-11 news", "/") == (campaign, slash)
    assert len(digest) == 32
    assert set(digest) <= set("0123456789abcdef")
    assert "kim" not in key


@pytest.mark.parametrize(
    "same",
    [
        {"to": "KIM@Example.com"},
        {"to": Address("Kim", "kim@example.com")},
        {"to": (), "cc": "kim@example.com"},
        {"to": (), "bcc": "kim@example.com"},
        {"tags": {"a": "b"}},
        {"configuration_set": "set"},
        {"priority": Priority.TRANSACTIONAL},
        {"key": "mine"},
        {"html": None},
    ],
    ids=lambda same: next(iter(same)),
)
def test_what_the_reader_does_not_read_does_not_count(same):
    """Nor how an address is written, nor in which field it stands."""
    assert campaign_key("c", make(**same)) == campaign_key("c", make())


def test_the_order_of_recipients_does_not_count():
    """Whatever field they stand in."""
    people = ["a@example.com", "B@example.com", "c@example.com"]
    first = make(to=people)
    for other in (make(to=people[::-1]), make(to=people[1], cc=people[2], bcc=people[0].upper())):
        assert campaign_key("c", other) == campaign_key("c", first)


UNSUBSCRIBE = Unsubscribe(url="https://example.com/u")
DIFFERENT = [
    make(),
    make(to="lee@example.com"),
    make(to=["kim@example.com", "lee@example.com"]),
    make(subject="Ho"),
    make(text="Bye"),
    make(text=None, html="Hello"),
    make(html="Hello"),
    make(from_="tank@example.com"),
    make(from_="Tank <tank@example.com>"),
    make(reply_to="tank@example.com"),
    make(reply_to=["tank@example.com", "lee@example.com"]),
    make(attachments=[Attachment("a.txt", b"a")]),
    make(attachments=[Attachment("b.txt", b"a")]),
    make(attachments=[Attachment("a.txt", b"b")]),
    make(attachments=[Attachment("a.txt", b"a", content_type="text/html")]),
    make(attachments=[Attachment("a.txt", b"a", content_id="a")]),
    make(attachments=[Attachment("a.txt", b"a"), Attachment("a.txt", b"a")]),
    make(headers={"X-A": "1"}),
    make(headers={"X-A": "2"}),
    make(headers={"X-B": "1"}),
    make(unsubscribe=UNSUBSCRIBE),
    make(unsubscribe=Unsubscribe(url="https://example.com/v")),
    templated(),
    templated({"name": "Lee"}),
    templated({"name": "Kim", "more": 1}),
    templated(template=Template(subject="Hi", html="Hello {{name}}")),
    templated(template=Template(name="hello")),
    mail("Hello"),
    mail("Bye"),
]


def test_whatever_the_reader_reads_counts():
    """Each of these is another mail."""
    keys = [campaign_key("c", message) for message in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert set(keys).isdisjoint(campaign_key("d", message) for message in DIFFERENT)


@pytest.mark.parametrize("message", DIFFERENT, ids=range(len(DIFFERENT)))
def test_the_same_mail_has_the_same_key(message):
    """However often it is made."""
    assert campaign_key("c", attrs.evolve(message)) == campaign_key("c", message)


def test_template_data_is_compared_as_json():
    """Its order does not count, at any depth, and names that are no text are what JSON makes of them."""
    one = templated({"name": "Kim", "items": {"a": [1, 2], "b": None}, "numbers": {1: "x", "y": 2}})
    two = templated({"numbers": {"y": 2, "1": "x"}, "items": {"b": None, "a": [1, 2]}, "name": "Kim"})
    assert campaign_key("c", one) == campaign_key("c", two)
    swapped = templated({"name": "Kim", "items": {"a": [2, 1], "b": None}, "numbers": {1: "x", "y": 2}})
    assert campaign_key("c", swapped) != campaign_key("c", one)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_data_that_json_cannot_carry_makes_no_key(value):
    """It cannot be sent, either."""
    with pytest.raises(InvalidMessageError, match="data"):
        campaign_key("c", templated({"name": value}))


def test_broken_text_has_a_key():
    """Half a surrogate pair is one bad row, which the checks find."""
    assert campaign_key("\ud83d", make(subject="\ud83d")) != campaign_key("\ud83d", make(subject="\ud83e"))


@given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
def test_no_two_contents_run_together(one, two):
    """What ends in one field and begins in the next is not the same as what does so elsewhere."""
    keys = [campaign_key(c, make(subject=subject, text=text)) for c, subject, text in (one, two)]
    assert (keys[0] == keys[1]) is (one == two)
