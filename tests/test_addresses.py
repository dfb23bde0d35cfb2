from __future__ import annotations

import codecs
import email.header
import email.utils
import pickle
import re
from email import policy
from email.parser import Parser

import pytest
from hypothesis import example, given, strategies as st

from tanksend import _addresses
from tanksend._addresses import Address, decode_words, encode_words, has_control, needs_encoding, parse_addresses

# Letters of several widths and scripts, marks that combine, everything the grammar gives a meaning, and junk.
SPECIAL = '"\\()<>,;:@=?_.- \t\r\n\x00\x7f\x85\u2028'
LETTERS = "aZ9é김철수日本語\u1100\u1161\u0301😀👩\u200d💻\ufeff"
hostile = st.text(alphabet=SPECIAL + "ab", max_size=40)
anything = st.one_of(st.text(), hostile, st.text(alphabet=SPECIAL + LETTERS, max_size=200))
readable = st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"))
names = st.one_of(readable, st.text(alphabet='aZ "\\(),.=?김é😀', max_size=150))

# What any sound decoder makes of one word; written apart from the code under test.
WORD = re.compile(r"=\?UTF-8\?([BQ])\?([!-~]*)\?=")


def pairs(value):
    """What a value splits into."""
    return [(address.name, address.email) for address in parse_addresses(value)]


def shown(name):
    """A name as a header can hold it."""
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", name).encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("a@b.com", "", "a@b.com"),
        (" \r\n\ta@b.com\t\r\n ", "", "a@b.com"),
        ("Kim <a@b.com>", "Kim", "a@b.com"),
        ("<a@b.com>", "", "a@b.com"),
        ("Kim< a@b.com >", "Kim", "a@b.com"),
        ("김철수 <a@b.com>", "김철수", "a@b.com"),
        ("김철수, Jr <a@x>", "김철수, Jr", "a@x"),
        ("Chan, Karen, PhD <k@x>", "Chan, Karen, PhD", "k@x"),
        ("Lee; Bo <k@x>", "Lee; Bo", "k@x"),
        ("Re: Kim <k@x>", "Re: Kim", "k@x"),
        ('"Karen, Chan" <k@x>', "Karen, Chan", "k@x"),
        ('"Karen, Chan" Jr. <k@x>', "Karen, Chan Jr.", "k@x"),
        ('"a@b, <c>; (d): e" <k@x>', "a@b, <c>; (d): e", "k@x"),
        (r'"My.\"Na\\me\".Is" <k@x>', r'My."Na\me".Is', "k@x"),
        ('  "  Kim  "  <k@x>', "  Kim  ", "k@x"),
        ('"" <k@x>', "", "k@x"),
        ('"Kim""Lee" <k@x>', "KimLee", "k@x"),
        (r"Kim\"s <k@x>", r"Kim\"s", "k@x"),
        (r'"me \" \\ me"@example.org', "", r'"me \" \\ me"@example.org'),
        (r'Me <"me \" > \\ me"@example.org>', "Me", r'"me \" > \\ me"@example.org'),
        ('"a, b"@x.com', "", '"a, b"@x.com'),
        ("a@b.com (Kim Lee)", "Kim Lee", "a@b.com"),
        ("(Kim (the elder)) a@b.com", "Kim (the elder)", "a@b.com"),
        ("(Kim) (Lee) a@b.com (Jr)", "Kim Lee Jr", "a@b.com"),
        (r"a@b.com (Kim \) Lee)", "Kim ) Lee", "a@b.com"),
        ("Kim (boss) <a@b.com>", "Kim", "a@b.com"),
        (r"Pete(A nice \) chap) <pete@silly.test>(his host)", "Pete", "pete@silly.test"),
        ("(boss) <a@b.com> (Kim)", "boss Kim", "a@b.com"),
        ('(x) "Kim" (y) Lee <a@b.com>', "Kim  Lee", "a@b.com"),
        ("=?utf-8?B?6rmA7LKg7IiY?= <a@b.com>", "김철수", "a@b.com"),
        ('"=?utf-8?B?6rmA7LKg7IiY?=" <a@b.com>', "김철수", "a@b.com"),
        ("a@b.com (=?utf-8?B?6rmA?=)", "김", "a@b.com"),
        ("=?utf-8?Q?Kim,_(x)_<y>?= Lee <a@b.com>", "Kim, (x) <y> Lee", "a@b.com"),
        ("=?utf-8?Q?_Kim_?= <a@b.com>", " Kim ", "a@b.com"),
        ("Kim <>", "Kim", ""),
    ],
)
def test_one_address_is_split(text, name, address):
    """Names, quotes, escapes, comments and encoded-words come apart as a person would take them apart."""
    assert (name, address) == (Address.parse(text).name, Address.parse(text).email)
    assert [(name, address)] == pairs(text)


@pytest.mark.parametrize(
    "text",
    [
        "Kim",
        "김철수",
        "Kim, a@b.com",
        "Kim <a@b.com",
        "Kim <a@b.com> Lee",
        "<a@b.com> !",
        "<a@b.com> <c@d.com>",
        'Kim <"a@b.com>',
        '"Kim <a@b.com>',
        '5" Kim <a@b.com>',
        "Kim (Lee <a@b.com>",
        "((Kim) a@b.com",
        "To: a@b.com",
        "mailto:a@b.com",
        "team: a@b.com, c@d.com",
        "a@b.com\r\nBcc: c@d.com",
        "a@b.com\x00",
        "\ufeffa@b.com",
        "a(comment)@b.com",
        "(comment)a@b.com",
        "a@b.com(comment)",
        "a@(comment)b.com",
        "(only a comment)",
        "a@b.com, c@d.com",
        "a b@c.com d",
        "@",
        "\\",
    ],
)
def test_what_cannot_be_split_stays_whole(text):
    """Bad data becomes an address that is the whole text, so that the validator sees and refuses all of it."""
    assert Address("", text) == Address.parse(text)


@pytest.mark.parametrize("text", ["", "  ", ",", " ; ,", "undisclosed-recipients:;", "x: , ;"])
def test_nobody(text):
    """A string may hold nobody, as an empty cell or an empty group does; one address it is not."""
    assert () == parse_addresses(text)
    assert Address("", text.strip()) == Address.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@b.com, c@d.com", [("", "a@b.com"), ("", "c@d.com")]),
        ("a@b.com; c@d.com;", [("", "a@b.com"), ("", "c@d.com")]),
        (",a@b.com,,c@d.com ,", [("", "a@b.com"), ("", "c@d.com")]),
        ("Chan, Karen <k@x>, Lee, Bo <l@x>", [("Chan, Karen", "k@x"), ("Lee, Bo", "l@x")]),
        ('"Chan, Karen" <k@x>; 김철수 <l@x>', [("Chan, Karen", "k@x"), ("김철수", "l@x")]),
        ("a@b.com, Kim", [("", "a@b.com"), ("", "Kim")]),
        ("a@b.com (x, y), c@d.com", [("x, y", "a@b.com"), ("", "c@d.com")]),
        ("<a@b, c@d>", [("", "a@b, c@d")]),
        ("<a>, b@c", [("", "a"), ("", "b@c")]),
        ("a\\,b@c.com, d@e.com", [("", "a\\,b@c.com"), ("", "d@e.com")]),
        ('a@b.com, "Kim <c@d.com>, e@f.com', [("", "a@b.com"), ("", '"Kim <c@d.com>, e@f.com')]),
        ("team: a@b.com, Kim, Jr <c@d.com>;", [("", "a@b.com"), ("Kim, Jr", "c@d.com")]),
        ("x@y.com, team: a@b.com;, z@y.com", [("", "x@y.com"), ("", "a@b.com"), ("", "z@y.com")]),
        ("team: a@b.com; z@y.com", [("", "a@b.com"), ("", "z@y.com")]),
        ("a: b: c@d.com;", [("", "b: c@d.com")]),
        ("a: Kim; b@c.com", [("", "Kim"), ("", "b@c.com")]),
        ("a: , b@c.com", [("", "a:"), ("", "b@c.com")]),
        ("a@[IPv6:::1], b@c.com", [("", "a@[IPv6:::1]"), ("", "b@c.com")]),
    ],
)
def test_lists_and_groups(text, expected):
    """Separators count only after something that is an address; a group stands for its members."""
    assert expected == pairs(text)


def test_items_of_an_iterable_are_one_address_each():
    """An item cannot add recipients: two in one item are bad data, and so is an empty one."""
    kim = Address("Kim", "kim@example.com")
    given = iter([kim, "Lee <lee@example.com>", "a@b.com, c@d.com", ""])
    expected = (kim, Address("Lee", "lee@example.com"), Address("", "a@b.com, c@d.com"), Address("", ""))
    assert expected == parse_addresses(given)
    assert (kim,) == parse_addresses(kim)


@pytest.mark.parametrize("wrong", [None, 7, b"secret@example.com", bytearray(b"secret@example.com"), ["a@b.com", 7]])
def test_wrong_types_are_the_programmers_fault(wrong):
    """A wrong type raises at once and names the type, never the value."""
    with pytest.raises(TypeError, match=r"must be .*, not (NoneType|int|bytes|bytearray)$") as caught:
        parse_addresses(wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("build", [lambda: Address.parse(7), lambda: Address(7, "a@b.com"), lambda: Address("", 7)])
def test_an_address_is_made_of_text(build):
    """Neither part of an address can be anything but text."""
    with pytest.raises(TypeError, match="not int"):
        build()


def test_local_part_domain_and_key():
    """The last at-sign divides an address; one person has one key however the address is written."""
    quoted = Address("Kim", '"a@b"@Example.COM')
    assert ('"a@b"', "Example.COM", '"a@b"@example.com') == (quoted.local, quoted.domain, quoted.key)
    assert ("Kim", "") == (Address("", "Kim").local, Address("", "Kim").domain)


def test_addresses_are_values():
    """They are equal by what they hold, can be keys, cannot be changed, and survive pickling."""
    kim = Address("Kim", "kim@example.com")
    assert {kim} == {Address.parse("Kim <kim@example.com>"), pickle.loads(pickle.dumps(kim))}  # noqa: S301  (our own)
    with pytest.raises(AttributeError):
        kim.name = "Lee"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("secret@example.com", "<Address …@example.com>"),
        ("secret@bücher.example", "<Address …@bücher.example>"),
        ("secret", "<Address …>"),
        ("a@secret", "<Address …>"),
        ("a@b.com secret", "<Address …>"),
        ("a@b.com\n", "<Address …>"),
    ],
)
def test_repr_shows_the_domain_at_most(address, expected):
    """Neither a name nor a local part reaches a log by way of repr or str, nor what only looks like a domain."""
    assert [expected, expected] == [repr(Address("secret", address)), str(Address("secret", address))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "k@x"),
        ("Kim Lee", "Kim Lee <k@x>"),
        ("O'Neil", "O'Neil <k@x>"),
        ("John Q. Public", '"John Q. Public" <k@x>'),
        ("Chan, Karen", '"Chan, Karen" <k@x>'),
        ('a "b" \\c', r'"a \"b\" \\c" <k@x>'),
        (" Kim", '" Kim" <k@x>'),
        ("a\r\nBcc: x\x00", '"a  Bcc: x " <k@x>'),
        ("김철수", "=?UTF-8?B?6rmA7LKg7IiY?= <k@x>"),
        ("Renée Dupont", "=?UTF-8?Q?Ren=C3=A9e_Dupont?= <k@x>"),
        ("é\n", "=?UTF-8?B?w6kg?= <k@x>"),
        ("=?utf-8?Q?Kim?=", "=?UTF-8?B?PT91dGYtOD9RP0tpbT89?= <k@x>"),
    ],
)
def test_header_forms(name, expected):
    """A name is written as atoms, a quoted-string or encoded-words, whichever it needs; the shorter encoding wins."""
    assert expected == Address(name, "k@x").header()


@given(names)
@example("=?utf-8?Q?Kim?=")
@example(" 김 ")
@example("=?")
def test_header_comes_back_through_the_splitter(name):
    """Whatever a person is called, the name is the same after writing and reading it."""
    address = Address(name, "kim@example.com")
    assert address == Address.parse(address.header())
    assert (address, address) == parse_addresses(f"{address.header()}, {address.header()}")


@given(names)
def test_header_is_understood_by_the_standard_library(name):
    """A parser that shares no code with ours reads the same name (by the older decoder: the newer one has bugs)."""
    header = Address(name, "kim@example.com").header()
    display, address = email.utils.parseaddr(header)
    assert "kim@example.com" == address
    assert name == (str(email.header.make_header(email.header.decode_header(display))) if "=?" in display else display)


@given(st.text(alphabet="aZ é김,.", min_size=1, max_size=12))
def test_header_is_understood_inside_a_message(name):
    """In a whole message too, under the modern policy of the standard library (which does not keep double spaces)."""
    name = " ".join(name.split()) or "x"
    text = f"To: {Address(name, 'kim@example.com').header()}\n\n"
    (address,) = Parser(policy=policy.default).parsestr(text)["To"].addresses
    assert (name, "kim@example.com") == (address.display_name, address.addr_spec)


@given(anything, anything)
def test_no_line_can_be_added_to_a_header(name, address):
    """No control character or line separator gets through, however bad the data."""
    assert not has_control(Address(name, address).header())
    assert not has_control(encode_words(name))


@given(anything)
@example("\ud800 é")
@example("e" + "\u0301" * 200)
@example("👩\u200d" * 50)
@example("\u1112\u1161\u11ab" * 40)
def test_each_encoded_word_stands_alone(text):
    """Each word has at most 75 characters and is valid UTF-8 by itself; together they are the text."""
    encoded = encode_words(text)
    if not needs_encoding(shown(text)):
        assert shown(text) == encoded
        return
    parts = []
    for word in encoded.split(" "):
        assert len(word) <= 75
        encoding, payload = WORD.fullmatch(word).groups()
        raw = codecs.decode(payload.replace("_", " ").encode(), "quopri" if encoding == "Q" else "base64")
        parts.append(raw.decode())
    assert shown(text) == "".join(parts)
    assert shown(text) == decode_words(encoded)


@pytest.mark.parametrize("cluster", ["e\u0301", "\u1112\u1161\u11ab", "👩\u200d💻", "각", "ก็"])
def test_words_end_between_what_a_reader_sees_as_characters(cluster):
    """A combining mark, a decomposed Hangul syllable and a joined emoji stay with what they belong to."""
    for before in range(24):
        words = encode_words("x" * before + cluster * 60).split(" ")
        texts = [decode_words(word) for word in words]
        assert all(text.removeprefix("x" * before) in {cluster * n for n in range(61)} for text in texts)
        assert len(words) > 1


@given(names, st.integers(1, 60))
def test_encoded_names_have_a_bound(name, length):
    """The validator need not count what is surely short enough."""
    address = Address(name, "a" * length)
    assert len(address.header()) <= 9 * len(name) + 90 + length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?a_b=C3=A9?=", "a bé"),
        ("=?UTF-8*en?Q?a?=", "a"),
        ("x =?utf-8?q?a?= y", "x a y"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?=\r\n =?iso-8859-1?q?=E9?=", "aé"),
        ("=?utf-8?q?=EA=B9?= =?utf-8?q?=80?=", "김"),
        ("=?utf-8?b?6rmA7LKg7IiY?=", "김철수"),
        ("=?utf-8?b?6rmA7LKg7Ii?=", "=?utf-8?b?6rmA7LKg7Ii?="),
        ("=?utf-8?b?w6k?=", "é"),
        ("=?ks_c_5601-1987?B?sei4rQ==?=", "김릎"),
        ("=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"),
        ("=?iso-8859-1?q?=80?=", "€"),
        ("=?utf-8?q?=FF?=", "=?utf-8?q?=FF?="),
        ("=?utf-8?b?x?=", "=?utf-8?b?x?="),
        ("=?x-unknown?q?a?=", "=?x-unknown?q?a?="),
        ("=?utf-7?q?a?=", "=?utf-7?q?a?="),
        ("=?rot13?q?a?=", "=?rot13?q?a?="),
        ("=?os?q?a?=", "=?os?q?a?="),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?é?=", "=?utf-8?q?é?="),
        ("=?utf-8?q?a b?=", "=?utf-8?q?a b?="),
        ("=?utf-8?q?a?==?utf-8?q?b?=", "ab"),
    ],
)
def test_encoded_words_are_decoded_safely(text, expected):
    """Known charsets are decoded, characters cut in two mended; all else stays as it is, and nothing is raised."""
    assert expected == decode_words(text)


def test_every_charset_exists():
    """The table names codecs that Python has."""
    assert all(codecs.lookup(codec)._is_text_encoding for codec in _addresses._CHARSETS.values())


@given(anything)
def test_bad_data_never_raises(text):
    """Any text can be split, and nothing but separators, quotes and white space gets lost of what is not."""
    addresses = parse_addresses(text)
    assert all(address.email in text for address in addresses)
    assert Address.parse(text).email in text


@given(st.one_of(hostile, st.text(alphabet="ab@<> .\t'\"", max_size=20)))
@example('"Karen, Chan" <k@x>')
def test_the_short_way_and_the_long_way_agree(text):
    """The two common shapes are recognised without walking through them, to the same effect."""
    short = _addresses._simple(text)
    if short is not None:
        assert short == _addresses._one(text)


@given(anything)
def test_each_character_is_looked_at_once(text):
    """The tokens tile the text from left to right: the time is linear, whatever the text."""
    position = 0
    for _, start, end in _addresses._tokens(text):
        assert position == start < end
        position = end
    assert len(text) == position


@pytest.mark.parametrize(
    "pattern",
    [",", "a,", " (c),", '"', '\\"', "(", '("', "<", '<"', ":", "a:b;", "=?", "=?a?q?", "=?utf-8?q?a?=  (", "@,", "\\"],
)
def test_masses_of_malice_are_no_trouble(pattern):
    """Time that grew with the square of the length would not end here."""
    text = pattern * (200_000 // len(pattern))
    assert all(address.email in text for address in parse_addresses(text)[:2])
    assert "a@b" == Address.parse("Kim <a@b>" + " " * 1_000_000).email


@pytest.mark.parametrize("pattern", ["김", "\u0301", "a é", "=?", "\r\n"])
def test_masses_of_name_are_no_trouble(pattern):
    """Writing is linear too, and reading it back."""
    text = pattern * (200_000 // len(pattern))
    assert shown(text) == decode_words(encode_words(text))
