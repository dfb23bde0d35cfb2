"""
Addresses: splitting what people write, and writing what a header may hold.

The splitter separates; it does not judge. Whatever it cannot take apart becomes an `Address` whose email is the whole
text, which `AddressValidator` then refuses: one bad cell is the fate of one message, never an exception in the middle
of a batch. It walks the text once from left to right (`_tokens`), so its time is linear in the length of the text,
however hostile that is.

Where RFC 5322 and the real world part, this is what happens:

- A comma or semicolon separates two addresses only after something that holds an ``@`` or angle brackets, so
  ``Kim, Jr <kim@example.com>`` is one address and ``a@example.com; b@example.com`` is two. Empty pieces are dropped.
- A group, ``team: a@example.com, b@example.com;``, stands for its members; its name is not kept, and
  ``undisclosed-recipients:;`` is nobody. Without the closing semicolon the text is no group, and the piece with the
  colon is refused later.
- Comments in parentheses are not part of a display name, except that the comment of ``kim@example.com (Kim)``, the
  older way to write one, becomes it. Comments inside an address stay there, and get it refused.
- Encoded-words (RFC 2047) in display names are decoded, in quoted strings too, because mailers put them there. Words
  in an unknown or unsafe charset, or that do not decode, stay as they are.
- ASCII white space around a piece, and inside its angle brackets, is trimmed. Nothing else is removed.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeAlias
from unicodedata import category

import attrs

_BLANK = " \t\r\n"

# What needs no splitting, which is nearly everything: a bare address, and a plain or quoted name before one in angle
# brackets. The name may hold no "=" (it could begin an encoded-word); the property tests hold the two ways equal.
_BARE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+")
_NAMED = re.compile(r"(?:([^\"<>(),;:\\@=]*)|\"([^\"\\=]*)\"[ \t\r\n]*)<([A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]+)>")

# Cc, and the two separators that `str.splitlines` and some mail software take for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PRINTABLE = re.compile(r"[ -~]*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN_IN_REPR = re.compile(r"[\w-]+(?:\.[\w-]+)+")


@attrs.frozen(repr=False)
class Address:
    """
    One mailbox: a display name, which may be empty, and an address.

    `Address.parse` makes it from what people write, unjudged. What comes back from `AddressValidator.validate` can go
    on the wire: the local part as written, the domain in lower-case Punycode. `repr` and `str` show the domain at most.

    Args:
        name: The display name as a person reads it: no quotes, no encoded-words.
        email: The address itself (``addr-spec``), without angle brackets.

    Raises:
        TypeError: One of the two is not a `str`.
    """

    name: str
    email: str

    def __attrs_post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.email, str)):
            wrong = self.email if isinstance(self.name, str) else self.name
            raise _wrong_type("the name and the email of an Address must be str", wrong)

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Split one address, such as ``김철수, Jr <kim@example.com>``, into name and email.

        Bad data does not raise: a text that is not exactly one address becomes an `Address` whose email is that text.

        Raises:
            TypeError: *text* is not a `str`.
        """
        if not isinstance(text, str):
            raise _wrong_type("an address must be a str", text)
        return _simple(text) or _one(text)

    @property
    def local(self) -> str:
        """What stands before the last ``@``; the whole email if there is none."""
        head, at, tail = self.email.rpartition("@")
        return head if at else tail

    @property
    def domain(self) -> str:
        """What stands after the last ``@``; empty if there is none."""
        _, at, tail = self.email.rpartition("@")
        return tail if at else ""

    @property
    def key(self) -> str:
        """
        The same for all spellings that mean one person: the email without regard to case.

        Meant for validated addresses; before that a domain may still be written in two ways.
        """
        return self.email.casefold()

    def header(self) -> str:
        """
        Write the address as a header or an SES request holds it.

        A plain name is written as it is or as a quoted-string, any other as UTF-8 encoded-words. Control characters,
        which `AddressValidator` refuses, become spaces, so that no line can ever be added to a header.

        Source: RFC 5322 section 3.4 and RFC 2047 section 5 (3).
        """
        email = self.email if self.email.isprintable() else _CONTROL.sub(" ", self.email)
        return f"{_phrase(self.name)} <{email}>" if self.name else email

    def __repr__(self) -> str:
        domain = self.domain
        return f"<Address …@{domain}>" if _DOMAIN_IN_REPR.fullmatch(domain) else "<Address …>"


def parse_addresses(value: str | Address | Iterable[str | Address]) -> tuple[Address, ...]:
    """
    Split *value* into addresses, in order.

    A single `str` may hold a list, separated by commas or semicolons; an empty one holds nobody. Each item of an
    iterable is one address, so that a cell of somebody's table cannot add recipients: an item that holds two, or none,
    is bad data.

    Raises:
        TypeError: *value* or one of its items is something else.
    """
    if isinstance(value, str):
        simple = _simple(value)
        return (simple,) if simple else tuple(_mailbox(value, piece) for piece in _pieces(value))
    if isinstance(value, Address):
        return (value,)
    if isinstance(value, bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type("addresses must be a str, an Address or an iterable of these", value)
    return tuple(item if isinstance(item, Address) else Address.parse(item) for item in value)


def has_control(text: str) -> bool:
    """Say whether *text* has a control character or a line separator, which no header may hold."""
    return _CONTROL.search(text) is not None


def needs_encoding(text: str) -> bool:
    """Say whether a header can hold *text* only as encoded-words: not printable ASCII, or taken for one."""
    return "=?" in text or _PRINTABLE.fullmatch(text) is None


def _wrong_type(rule: str, value: object) -> TypeError:
    return TypeError(f"{rule}, not {type(value).__name__}")


# --- splitting -------------------------------------------------------------------------------------------------------

_TEXT, _QUOTED, _COMMENT, _ANGLE, _BROKEN = "text", '"', "(", "<", "broken"

# Kind, start, end. The kind of a separator (comma, semicolon, colon) or an at-sign is itself.
_Token: TypeAlias = tuple[str, int, int]

_ENCODED_WORD = r"=\?([^?\s]+)\?([BbQq])\?([!->@-~]*)\?="
# A pair with a backslash and an encoded-word are text, whatever is in them.
_SPECIAL = re.compile(_ENCODED_WORD + r'|\\.|["(<,;:@]', re.DOTALL)
_IN_QUOTED = re.compile(r'\\.|"', re.DOTALL)
_IN_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_IN_ANGLE = re.compile(r'[">]')
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def _simple(text: str) -> Address | None:
    """Split the two common shapes without walking through them."""
    bare = text.strip(_BLANK)
    if _BARE.fullmatch(bare):
        return Address("", bare)
    if match := _NAMED.fullmatch(bare):
        plain, quoted, email = match.groups()
        return Address(quoted if plain is None else plain.strip(_BLANK), email)
    return None


def _one(text: str) -> Address:
    pieces = _pieces(text)
    return _mailbox(text, pieces[0]) if len(pieces) == 1 else Address("", text.strip(_BLANK))


def _tokens(text: str) -> Iterator[_Token]:
    """Cut *text* at the outermost level. What opens and never closes is one last broken token."""
    position = 0
    while match := _SPECIAL.search(text, position):
        start, end = match.span()
        if start > position:
            yield _TEXT, position, start
        kind = text[start] if text[start] in '"(<,;:@' else _TEXT
        if kind in _ENDS:
            end = _ENDS[kind](text, start)
        if end < 0:
            yield _BROKEN, start, len(text)
            return
        yield kind, start, end
        position = end
    if position < len(text):
        yield _TEXT, position, len(text)


def _end_of_quoted(text: str, start: int) -> int:
    for match in _IN_QUOTED.finditer(text, start + 1):
        if match[0] == '"':
            return match.end()
    return -1


def _end_of_comment(text: str, start: int) -> int:
    depth = 0
    for match in _IN_COMMENT.finditer(text, start):
        depth += (match[0] == "(") - (match[0] == ")")
        if not depth:
            return match.end()
    return -1


def _end_of_angle(text: str, start: int) -> int:
    position = start + 1
    while position > 0 and (match := _IN_ANGLE.search(text, position)):
        if match[0] == ">":
            return match.end()
        position = _end_of_quoted(text, match.start())
    return -1


_ENDS: dict[str, Callable[[str, int], int]] = {
    _QUOTED: _end_of_quoted,
    _COMMENT: _end_of_comment,
    _ANGLE: _end_of_angle,
}


def _pieces(text: str) -> list[list[_Token]]:
    """Gather the tokens of each address; separators and the names of groups are gone."""
    pieces: list[list[_Token]] = [[]]
    blank, complete = True, False  # complete: the piece holds an "@" or angle brackets, so a separator ends it
    group: tuple[int, int] | None = None  # where the colon of an open group is: piece, token
    for token in _tokens(text):
        kind = token[0]
        if group and kind == ";":
            pieces[group[0]] = pieces[group[0]][group[1] + 1 :]
            group = None
        elif kind not in ",;" or not (complete or blank):
            opens = kind == ":" and not (complete or group)
            if opens:
                group = len(pieces) - 1, len(pieces[-1])
            blank, complete = opens or (blank and _is_blank(text, [token])), complete or kind in "@<"
            pieces[-1].append(token)
            continue
        pieces.append([])
        blank, complete = True, False
    return [piece for piece in pieces if not _is_blank(text, piece)]


def _is_blank(text: str, piece: Iterable[_Token]) -> bool:
    return all(kind == _TEXT and not text[start:end].strip(_BLANK) for kind, start, end in piece)


def _mailbox(text: str, piece: list[_Token]) -> Address:
    """Make the address of one piece, or an address that is the whole piece if it is not one."""
    whole = text[piece[0][1] : piece[-1][2]].strip(_BLANK)
    kinds = [kind for kind, _, _ in piece]
    if _BROKEN in kinds or kinds.count(_ANGLE) > 1:
        return Address("", whole)
    if _ANGLE not in kinds:
        return _commented(text, piece) or Address("", whole)
    at = kinds.index(_ANGLE)
    after = [token for token in piece[at + 1 :] if token[0] != _COMMENT]
    if not _is_blank(text, after):
        return Address("", whole)
    _, start, end = piece[at]
    return Address(_name(text, piece[:at]) or _comments(text, piece), text[start + 1 : end - 1].strip(_BLANK))


def _commented(text: str, piece: list[_Token]) -> Address | None:
    """Take the comments off the ends of a bare address, if white space sets them apart from it."""
    first, last = 0, len(piece)
    while first < last and _is_aside(text, piece[first]):
        first += 1
    while last > first and _is_aside(text, piece[last - 1]):
        last -= 1
    if last - first in {0, len(piece)}:
        return None
    core = text[piece[first][1] : piece[last - 1][2]]
    apart = (not first or core[0] in _BLANK) and (last == len(piece) or core[-1] in _BLANK)
    return Address(_comments(text, piece[:first] + piece[last:]), core.strip(_BLANK)) if apart else None


def _is_aside(text: str, token: _Token) -> bool:
    return token[0] == _COMMENT or _is_blank(text, [token])


def _comments(text: str, piece: Iterable[_Token]) -> str:
    comments = (text[start:end] for kind, start, end in piece if kind == _COMMENT)
    return " ".join(decode_words(_inner(comment)).strip(_BLANK) for comment in comments)


def _name(text: str, phrase: Iterable[_Token]) -> str:
    """Read a display name: quoted strings without their quotes, all else as written, comments left out."""
    tokens = (token for token in phrase if token[0] != _COMMENT)
    runs = groupby(tokens, lambda token: token[1] if token[0] == _QUOTED else -1)
    parts = ["".join(text[start:end] for _, start, end in run) for _, run in runs] or [""]
    # A quoted string still has its quotes here, so that the white space in it is not at an end.
    parts[0] = parts[0].lstrip(_BLANK)
    parts[-1] = parts[-1].rstrip(_BLANK)
    return "".join(decode_words(_inner(part) if part[:1] == _QUOTED else part) for part in parts)


def _inner(text: str) -> str:
    """Take the quotes or parentheses off, and the backslashes before what they protect."""
    return _ESCAPED.sub(r"\1", text[1:-1])


# --- encoded-words ---------------------------------------------------------------------------------------------------

# Text charsets seen in mail, with the superset that senders mean by the name. Every other name stays undecoded: some
# of Python's codecs are no charsets at all, and looking a foreign name up imports a module.
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "cp1252",
    **{f"iso-8859-{part}": f"iso8859-{part}" for part in (*range(2, 12), *range(13, 17))},
    **{f"windows-{page}": f"cp{page}" for page in range(1250, 1259)},
    "windows-874": "cp874",
    "tis-620": "cp874",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "big5": "cp950",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb18030": "gb18030",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "cp949": "cp949",
    "iso-2022-kr": "iso2022_kr",
    "iso-2022-jp": "iso2022_jp",
    "euc-jp": "euc_jp",
    "shift_jis": "cp932",
}

_WORD = re.compile(_ENCODED_WORD)
_WORDS = re.compile(rf"{_ENCODED_WORD}(?:[ \t\r\n]++{_ENCODED_WORD})*+")

# RFC 2047 section 2: no encoded-word is longer than 75 characters; "=?UTF-8?B?" and "?=" are 12 of them.
_MAX_ENCODED = 63
_MAX_BASE64_BYTES = _MAX_ENCODED // 4 * 3
# RFC 2047 section 5 (3): what the Q encoding leaves alone where a display name stands.
_Q_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
_Q_TABLE = {byte: chr(byte) if byte in _Q_SAFE else f"={byte:02X}" for byte in range(256)} | {ord(" "): "_"}
# Five characters of four bytes each fit one word in either encoding, so such a cluster is never cut.
_MAX_CLUSTER = 5


def decode_words(text: str) -> str:
    """
    Decode the RFC 2047 encoded-words in *text*.

    Words of one charset that follow each other are decoded together, because some mailers cut characters in two. What
    is unknown, malformed or not a text charset stays as it is; nothing is raised.
    """
    return _WORDS.sub(_decode_run, text) if "=?" in text else text


def _decode_run(run: re.Match[str]) -> str:
    words = groupby(_WORD.finditer(run[0]), lambda word: word[1].partition("*")[0].lower())
    try:
        return "".join(b"".join(map(_payload, same)).decode(_CHARSETS[charset]) for charset, same in words)
    except (KeyError, ValueError):
        return run[0]


def _payload(word: re.Match[str]) -> bytes:
    if word[2] in "Qq":
        return binascii.a2b_qp(word[3], header=True)
    return binascii.a2b_base64(word[3] + "=" * (-len(word[3]) % 4))


def encode_words(text: str, *, room: int = 75) -> str:
    """
    Write *text* as a header holds it: as it is if it is printable ASCII, else as UTF-8 encoded-words.

    *room* is how many characters the first line has left for the first word; every other word has 75.

    Each word has at most 75 characters and decodes by itself: words end between characters, and not before a combining
    mark. One space stands between two words, where a header may be folded. Control characters become spaces.

    Source: RFC 2047 sections 2 and 5.
    """
    text = _CONTROL.sub(" ", text)
    if not needs_encoding(text):
        return text
    whole = text.encode("utf-8", "replace")
    room -= 75 - _MAX_ENCODED
    if _q_size(whole) < (len(whole) + 2) // 3 * 4:
        chunks = _chunks(text, _q_size, room, _MAX_ENCODED)
        return " ".join(f"=?UTF-8?Q?{''.join(map(_Q_TABLE.__getitem__, chunk))}?=" for chunk in chunks)
    chunks = _chunks(text, len, room // 4 * 3, _MAX_BASE64_BYTES)
    return " ".join(f"=?UTF-8?B?{binascii.b2a_base64(chunk, newline=False).decode()}?=" for chunk in chunks)


def _q_size(chunk: bytes) -> int:
    return len(chunk) + 2 * len(chunk.translate(None, _Q_SAFE))


def _chunks(text: str, size: Callable[[bytes], int], room: int, limit: int) -> Iterator[bytes]:
    """Cut *text* into UTF-8 pieces that each fit one word: *room* for the first, *limit* for the others."""
    chunk, used = bytearray(), 0
    for cluster in _clusters(text):
        more = cluster.encode("utf-8", "replace")
        needed = size(more)
        if used and used + needed > room:
            yield bytes(chunk)
            chunk, used, room = bytearray(), 0, limit
        chunk += more
        used += needed
    yield bytes(chunk)


def _clusters(text: str) -> Iterator[str]:
    """Keep characters together that a reader sees as one, as far as that is simple."""
    start = 0
    for position in range(1, len(text)):
        if position - start == _MAX_CLUSTER or not _joins(text[position - 1], text[position]):
            yield text[start:position]
            start = position
    yield text[start:]


def _joins(before: str, character: str) -> bool:
    """Combining marks, the vowels and finals of decomposed Hangul, and what a zero width joiner joins."""
    if character < "\u0300":
        return False
    return category(character)[0] == "M" or "\u1160" <= character <= "\u11ff" or "\u200d" in (before, character)


def _phrase(name: str) -> str:
    """Write a display name: atoms, a quoted-string, or encoded-words."""
    plain = _CONTROL.sub(" ", name)
    if needs_encoding(plain):
        return encode_words(plain)
    if _ATOMS.fullmatch(plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
