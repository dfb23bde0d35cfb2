from __future__ import annotations

import pickle
import threading

import email_validator
import pytest
from hypothesis import assume, example, given, strategies as st

from tanksend import _validator
from tanksend._addresses import Address
from tanksend._validator import REASONS, AddressValidator
from tanksend.exceptions import InvalidAddressError, InvalidMessageError

VALIDATOR = AddressValidator()
LONG_LABEL = "b" * 63

labels = st.text(alphabet="ab0-Z", min_size=1, max_size=6)
domains = st.lists(st.one_of(labels, st.sampled_from(["com", "xn--bcher-kva", "ab--c", "1"])), min_size=1).map(".".join)
locals_ = st.one_of(
    st.text(alphabet="aZ0.+!@", max_size=70), st.text(alphabet='a" \\.@', max_size=12).map('"{}"'.format)
)


def refusal(text, validator=VALIDATOR):
    """The code of the refusal."""
    with pytest.raises(InvalidAddressError) as caught:
        validator.validate(text)
    return caught.value.code


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user@example.com", "user@example.com"),
        ("my.email@simulator.amazonses.com", "my.email@simulator.amazonses.com"),
        ("User.Name+Tag@EXAMPLE.Com", "User.Name+Tag@example.com"),
        ("INFO@example.com", "INFO@example.com"),
        ('"a b"@Example.com', '"a b"@example.com'),
        ('"needless"@example.com', '"needless"@example.com'),
        ('""@example.com', '""@example.com'),
        (r'"\a"@example.com', r'"\a"@example.com'),
        ("a@b.c", "a@b.c"),
        ("user@bücher.example", "user@xn--bcher-kva.example"),
        ("user@BÜCHER.Example", "user@xn--bcher-kva.example"),
        ("user@bu\u0308cher.example", "user@xn--bcher-kva.example"),
        ("user@XN--BCHER-KVA.example", "user@xn--bcher-kva.example"),
        ("user@straße.de", "user@xn--strae-oqa.de"),
        ("user@ΣΑΣ.gr", "user@xn--mxa9ab.gr"),
        ("user@σας.gr", "user@xn--mxa8ab.gr"),
        ("user@한국.한국", "user@xn--3e0b707e.xn--3e0b707e"),
        ("user@xn--p1ai.xn--p1ai", "user@xn--p1ai.xn--p1ai"),
        ("user@нет.рф", "user@xn--e1apq.xn--p1ai"),
        ("a@аpple.com", "a@xn--pple-43d.com"),
        ("xn--jos-dma@example.com", "xn--jos-dma@example.com"),
        ("x" * 64 + "@example.com", "x" * 64 + "@example.com"),
        (f"a@{LONG_LABEL}.com", f"a@{LONG_LABEL}.com"),
        (f"a@{'.'.join([LONG_LABEL] * 3)}.{'b' * 56}.com", f"a@{'.'.join([LONG_LABEL] * 3)}.{'b' * 56}.com"),
    ],
)
def test_accepted(text, expected):
    """The local part stays as written; the domain becomes lower-case Punycode and stays the same the second time."""
    address = VALIDATOR.validate(text)
    assert Address("", expected) == address
    assert address is VALIDATOR.validate(address)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        (" \t", "empty"),
        ("n/a", "no_at"),
        ("hello﹫world", "no_at"),
        ("@", "no_local"),
        ("@b.com", "no_local"),
        ("a@", "no_domain"),
        ("Kim <a@b.com>", "display_name"),
        ("<a@b.com>", "display_name"),
        ("a@b.com,c@d.com", "several"),
        ("a@b.com; c@d.com", "several"),
        (" a@b.com", "whitespace"),
        ("a@b.com ", "whitespace"),
        ("a@b.com\n", "whitespace"),
        ("a\x00@b.com", "whitespace"),
        ("a\u3000b@c.com", "whitespace"),
        ('"a\nb"@c.com', "whitespace"),
        ("a@b.com\r\nBcc: c@d.com", "whitespace"),
        ("\ufeffa@b.com", "invisible"),
        ("a@b\u200b.com", "invisible"),
        ("a@b\u00ad.com", "invisible"),
        ("a@نامه\u200cای.com", "invisible"),
        ("josé@example.com", "local_not_ascii"),
        ("用戶@example.com", "local_not_ascii"),
        ('"λ"@example.com', "local_not_ascii"),
        ("\ud800@example.com", "local_not_ascii"),
        ("x" * 65 + "@example.com", "local_too_long"),
        ('"' + "x" * 63 + '"@example.com', "local_too_long"),
        (".a@b.com", "local_dot"),
        ("a.@b.com", "local_dot"),
        ("a..b@b.com", "local_dot"),
        ('"a@b.com', "local_quote"),
        ('"a b@c.com', "local_quote"),
        ('a"b"@c.com', "local_quote"),
        ("a@@b.com", "local_character"),
        ("a:b@c.com", "local_character"),
        ("a(comment)@b.com", "local_character"),
        ("a@[192.0.2.1]", "domain_literal"),
        ("a@[IPv6:::1]", "domain_literal"),
        ("a@.b.com", "domain_dot"),
        ("a@b..com", "domain_dot"),
        ("a@b.com.", "domain_dot"),
        ("a@b_c.com", "domain_character"),
        ("a@b\u037e.com", "domain_character"),
        ("a@b/c.com", "domain_character"),
        ("a@-b.com", "domain_hyphen"),
        ("a@b-.com", "domain_hyphen"),
        ("a@localhost", "domain_no_dot"),
        ("a@192.0.2.1", "domain_numeric"),
        ("a@bad.tld-2", "domain_numeric"),
        (f"a@{LONG_LABEL}b.com", "domain_too_long"),
        ("a@b。com", "domain_mapped"),
        ("a@b｡com", "domain_mapped"),
        ("a@ｂ.com", "domain_mapped"),
        ("a@b．com", "domain_mapped"),
        ("a@b\u2024c.com", "domain_mapped"),
        ("a@ﬁ.com", "domain_mapped"),
        ("a@b\ufe0f.com", "domain_mapped"),
        ("a@ab--c.com", "domain_idna"),
        ("a@b.ab--c", "domain_idna"),
        ("a@xn--a.com", "domain_idna"),
        ("a@😀.com", "domain_idna"),
        ("a@xn--mgba3gch31f060k.com", "domain_idna"),
        ("a@\ud800.com", "domain_idna"),
        ("me@1.xn--4dbc.com", "domain_idna"),
        ("a@" + "ü" * 60 + ".com", "domain_idna"),
        ("a@b.invalid", "domain_reserved"),
        ("a@b.test", "domain_reserved"),
        ("a@b.LocalHost", "domain_reserved"),
        ("a@b.local", "domain_reserved"),
        ("a@b.onion", "domain_reserved"),
        ("a@1.168.192.in-addr.arpa", "domain_reserved"),
        ("a@corp.internal", "domain_reserved"),
        ("x" * 243 + "@example.com", "too_long"),
        ("x" * 64 + "@" + "ü." * 24 + "com", "too_long"),
    ],
)
def test_refused(text, code):
    """Each kind of bad address has a reason of its own, as a bare text and as a split address."""
    assert [code, code] == [refusal(text), refusal(Address("", text))]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Kim\r\nBcc: a@b.com", "name_control"),
        ("Kim\x00", "name_control"),
        ("Kim\x85", "name_control"),
        ("Kim\u2028", "name_control"),
        ("Kim\ud83d", "name_surrogate"),
        ("K" * 305, "name_too_long"),
        ("김" * 64, "name_too_long"),
        ('"' * 153, "name_too_long"),
    ],
)
def test_names_are_judged(name, code):
    """A display name must fit into a header, and into SES's limit together with the address."""
    assert code == refusal(Address(name, "a@example.com"))


@pytest.mark.parametrize("name", ["Kim", "김철수, Jr", "K" * 304, '"' * 151, "김" * 60, "م\u200f", "John Q. Public"])
def test_good_names_stay_as_they_are(name):
    """Up to 320 characters as SES counts them, and the name is not touched."""
    address = VALIDATOR.validate(Address(name, "a@Example.com"))
    assert Address(name, "a@example.com") == address
    assert len(address.header()) <= 320


def test_the_encoded_domain_counts():
    """The limit holds for what goes on the wire: the address in Punycode."""
    assert "name_too_long" == refusal(Address("K" * 290, "a@büüüüüüüücher.example"))


def test_every_reason_can_happen():
    """The table of reasons has no entry that the tests above do not reach."""
    tables = (test_refused, test_names_are_judged)
    reached = {code for table in tables for _, code in table.pytestmark[0].args[1]}
    assert set(REASONS) == reached


@pytest.mark.parametrize(
    "text", [f"secret{rest}" for rest in ("", "@", "@b", "@b-.com", "@[secret]", "ü@b.com", ", a@b")]
)
def test_a_refusal_never_repeats_the_address(text):
    """The error gives the reason whole and nothing of the data, in its text, its repr, its cause or its pickle."""
    with pytest.raises(InvalidAddressError) as caught:
        VALIDATOR.validate(text)
    error = caught.value
    assert REASONS[error.code] == error.reason
    assert "secret" not in f"{error} {error!r} {error.__cause__!r} {error.__context__!r} {pickle.dumps(error)!r}"
    assert isinstance(error, InvalidMessageError)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("code", REASONS)
def test_reasons_reach_the_reader_unaltered(code):
    """No reason looks like an address to the net that blots addresses out of error texts."""
    assert REASONS[code] == _validator._refused(code).reason


@pytest.mark.parametrize("wrong", [None, 7, b"a@b.com"])
def test_wrong_types_are_the_programmers_fault(wrong):
    """Only text and addresses can be judged."""
    with pytest.raises(TypeError, match=f"not {type(wrong).__name__}$"):
        VALIDATOR.validate(wrong)


def test_reserved_domains_can_be_allowed():
    """For tests, and still only well-formed ones."""
    lenient = AddressValidator(allow_reserved_domains=True)
    for text in ("a@example.test", "a@host.localhost", "a@valid.invalid"):
        assert text == lenient.validate(text).email
        assert "domain_reserved" == refusal(text)
    assert ["domain_no_dot", "domain_hyphen"] == [refusal("a@localhost", lenient), refusal("a@b-.test", lenient)]


def test_the_globals_of_email_validator_have_no_say(monkeypatch):
    """A program may change them for its own forms; what can be mailed stays what it is."""
    for name in ("ALLOW_SMTPUTF8", "ALLOW_EMPTY_LOCAL", "ALLOW_QUOTED_LOCAL", "ALLOW_DOMAIN_LITERAL"):
        monkeypatch.setattr(email_validator, name, not getattr(email_validator, name))
    for name in ("ALLOW_DISPLAY_NAME", "STRICT", "GLOBALLY_DELIVERABLE", "CHECK_DELIVERABILITY", "TEST_ENVIRONMENT"):
        monkeypatch.setattr(email_validator, name, not getattr(email_validator, name))
    fresh = AddressValidator()
    for names in ([], ["com", "example.com", "xn--p1ai", "xn--e1apq.xn--p1ai"]):
        monkeypatch.setattr(email_validator, "SPECIAL_USE_DOMAIN_NAMES", names)
        for text, expected in test_accepted.pytestmark[0].args[1]:
            assert expected == fresh.validate(text).email
        for text, code in test_refused.pytestmark[0].args[1]:
            assert code == refusal(text, fresh)


def test_email_validator_has_the_last_word(monkeypatch):
    """What our own rules let pass and the library refuses is refused."""
    monkeypatch.setattr(_validator, "_ask", lambda _: None)
    fresh = AddressValidator()
    assert ["domain_idna", "local_quote"] == [refusal("a@b.com", fresh), refusal('"a b"@b.com', fresh)]


@given(locals_, domains)
@example("a" * 65, "b.com")
@example('""', "b.com")
@example("a", "b.test")
def test_the_verdict_is_that_of_email_validator(local, domain):
    """For ASCII, asking the library about the whole address each time gives the verdict that our shorter way gives."""
    text = f"{local}@{domain}"
    assume(len(local) <= 64 or not local.startswith('"'))  # the library counts what is inside the quotes
    try:
        found = email_validator.validate_email(
            text,
            allow_smtputf8=False,
            allow_empty_local=local == '""',
            allow_quoted_local=True,
            allow_domain_literal=False,
            allow_display_name=False,
            strict=True,
            check_deliverability=False,
            test_environment=False,
            globally_deliverable=True,
        )
    except email_validator.EmailNotValidError:
        refusal(text)
    else:
        assert f"{local}@{found.ascii_domain}" == VALIDATOR.validate(text).email


@given(st.one_of(st.text(), st.text(alphabet='a@."\\<> ,-üﬁ.。xn\u200c\ud800', max_size=30)), st.text(max_size=20))
def test_any_text_gets_a_verdict(text, name):
    """Nothing but the two outcomes, the same for the first time and the cached one, and what is accepted is ASCII."""
    fresh = AddressValidator()
    verdicts = []
    for _ in range(2):
        try:
            verdicts.append(fresh.validate(Address(name, text)))
        except InvalidAddressError as error:
            verdicts.append(error.code)
    assert verdicts[0] == verdicts[1]
    if isinstance(verdicts[0], Address):
        assert verdicts[0].email.isascii()
        assert len(verdicts[0].email) <= 254
        assert verdicts[0] is VALIDATOR.validate(verdicts[0])


@pytest.mark.parametrize("text", ["a" * 10_000_000, "a@" * 5_000_000, "@" + "ü" * 5_000_000, '"' * 10_000_000])
def test_long_texts_are_refused_unread(text):
    """However long the text, looking at it costs nothing."""
    assert "too_long" == refusal(text)


def test_the_cache_is_bounded():
    """A list with a domain for each address does not fill the memory; its verdicts are those of a cache of any size."""
    small = AddressValidator(cache_domains=4)
    for number in range(20):
        assert f"a@b{number}.com" == small.validate(f"a@B{number}.com").email
        assert "domain_hyphen" == refusal(f"a@b{number}-.com", small)
    assert "<AddressValidator allow_reserved_domains=False, 4 domains cached>" == repr(small)


def test_threads_share_a_validator():
    """Threads that crowd each other's domains out of the cache get right verdicts all the same."""
    shared = AddressValidator(cache_domains=2)
    wrong = []

    def work():
        for number in range(100):
            text = f"a@b{number % 5}.com"
            if shared.validate(text).email != text or refusal("a@b-.com", shared) != "domain_hyphen":
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong
