from __future__ import annotations

import string

import pytest
from hypothesis import given, strategies as st

from tanksend import AddressValidator
from tanksend.exceptions import InvalidAddressError
from tanksend.testing import Refusal
from tanksend.testing._syntax import check_address, check_length, mailbox, simulated_mailbox


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "Illegal address"),
        ('"a"b@x.com', "Quote not at end of local address"),
        ('a"b"@x.com', "Unexpected quote in local address"),
        (".a@x.com", "Local address starts with dot"),
        ("a..b@x.com", "Local address contains dot-dot"),
        ("@x.com", "Missing local name"),
        ("a.@x.com", "Local address ends with dot"),
        ("a b@x.com", "Local address contains control or whitespace"),
        ("김@x.com", "Local address contains control or whitespace"),
        ("a(b@x.com", "Local address contains illegal character"),
        ('"a@x.com', "Unterminated quote"),
        ("a", "Missing final '@domain'"),
        ("a@", "Missing domain"),
        ("a@.x", "Domain starts with dot"),
        ("a@x[1]", "Domain literal not at start of domain"),
        ("a@[1]x", "Domain literal end not at end of domain"),
        ("a@x .com", "Domain contains control or whitespace"),
        ("a@한국.com", "Domain contains control or whitespace"),
        ("a@x_y.com", "Domain contains illegal character"),
        ("a@b@c.com", "Domain contains illegal character"),
        ("a@x..com", "Domain contains dot-dot"),
        ("a@x.com.", "Domain ends with dot"),
    ],
)
def test_javamail_texts(address, reason):
    """Each text of JavaMail's strict check, for the first thing wrong."""
    with pytest.raises(Refusal) as caught:
        check_address(address)
    assert (caught.value.code, caught.value.message) == ("BadRequestException", reason)


@pytest.mark.parametrize(
    "address",
    [
        "a@x.com",
        '"a b"@x.com',
        '"a\\"b"@x.com',
        f"{'a' * 65}@x.com",
        f"a@{'b' * 64}.com",
        "a@-x-.com",
        "a@localhost",
        "a@[127.0.0.1]",
        "a!#$%&'*/=?^`{|}~@x.com",
    ],
)
def test_what_javamail_takes(address):
    """Some of it is laxer than the RFCs."""
    check_address(address)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@x.com", "a@x.com"),
        ("  a@x.com ", "a@x.com"),
        ("Anna <a@x.com>", "a@x.com"),
        ("김철수 <a@x.com>", "a@x.com"),
        ('"Chan, Karen" <k@x.com>', "k@x.com"),
        ('"a \\" <b" <k@x.com>', "k@x.com"),
        ("<a@x.com>", "a@x.com"),
    ],
)
def test_display_names(text, expected):
    """The bare address comes out, however the name is written."""
    assert mailbox(text) == expected


@pytest.mark.parametrize("text", ["Chan, Karen <k@x.com>", "a; b <a@x.com>", "A <a@x.com> b", "A <a@x.com", "A <>"])
def test_what_is_not_one_address(text):
    """Unquoted commas make a list, and nothing may follow the bracket."""
    with pytest.raises(Refusal) as caught:
        mailbox(text)
    assert caught.value.message == "Illegal address"


def test_length_counts_the_name_in_utf16_units():
    """320 units of the whole text, where a character beyond the first plane counts twice."""
    check_length("n" * 310 + " <a@x.com>")
    check_length("😀" * 155 + " <a@x.com>")
    for text in ("n" * 311 + " <a@x.com>", "😀" * 155 + "n <a@x.com>"):
        with pytest.raises(Refusal, match="BadRequestException"):
            check_length(text)


def test_mailbox_simulator_names():
    """Labels follow a plus; anything else is an ordinary address."""
    assert simulated_mailbox("Bounce+a@simulator.amazonses.COM") == "bounce"
    assert simulated_mailbox("bounce-a@simulator.amazonses.com") is None
    assert simulated_mailbox("bounce@example.org") is None


LETTERS = st.text(alphabet=string.ascii_letters + string.digits + '.+-_@"\\()<>,;: \tä', max_size=14)


@given(LETTERS, LETTERS)
def test_what_our_validator_takes_the_simulator_takes(local, domain):
    """Our own rules are the stricter ones: nothing that passes them is refused for its syntax."""
    try:
        address = AddressValidator().validate(f"{local}@{domain}.com")
    except InvalidAddressError:
        return
    assert mailbox(address.header()) == address.email
