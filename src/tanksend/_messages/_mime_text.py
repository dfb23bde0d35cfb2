"""Text as mail holds it: folded headers, bytes that say no charset, and charsets of all times."""

from __future__ import annotations

import binascii
import re
from itertools import groupby

from .._addresses import _CHARSETS, _WORD, _WORDS, _payload, decode_words, encode_words, parse_addresses

_FOLD = re.compile(r"\r?\n(?=[ \t])")
# Codecs of Python that are no charsets of text, or that only this machine knows.
_NO_CHARSETS = frozenset({"base64_codec", "bz2_codec", "hex_codec", "mbcs", "quopri_codec", "rot_13", "uu_codec"})
_NO_CHARSETS |= {"zlib_codec"}
_NAMES_IN_MAIL = {
    "iso-8859-8-e": "iso8859_8",
    "iso-8859-8-i": "iso8859_8",
    "ks_c_5601": "cp949",
    "x-euc-jp": "euc_jp",
    "x-gbk": "gb18030",
    "x-sjis": "cp932",
}


def unfolded(value: object) -> str:
    """A header's value in one line; breaks that do not fold it stay."""
    return _FOLD.sub("", str(value)).replace("\t", " ")


def readable(text: str) -> tuple[str, bool]:
    """
    Bytes that the parser could not read as ASCII as the UTF-8 they nearly always are.

    Returns:
        The text, and whether they were; where not, they are question marks.
    """
    if text.isascii():
        return text, True
    try:
        return text.encode("utf-8", "surrogateescape").decode(), True
    except ValueError:
        return text.encode("utf-8", "replace").decode(), False


_OF_ADDRESSES = frozenset(
    """
    bcc bounces-to cc disposition-notification-to errors-to from reply-to resent-bcc resent-cc resent-from
    resent-sender resent-to return-receipt-to sender to
    """.split()
)


def in_ascii(name: str, text: str) -> str:
    """
    The value of a header as it is where that can be, since what it means to whom it is for is not known here.

    Everything else becomes encoded-words. An address that is not ASCII stays what it is.
    """
    if text.isascii():
        return text.strip(" ")
    if name.lower() in _OF_ADDRESSES:
        return ", ".join(address.header() for address in parse_addresses(text))
    return encode_words(decode_words(text))


def decoded(raw: bytes, charset: str) -> str:
    """
    *raw* as text.

    Raises:
        ValueError: The bytes are none of this charset.
        LookupError: It is no charset that can be read.
    """
    failure: ValueError | LookupError = LookupError("no such charset")
    for codec in _codecs(charset):
        try:
            return raw.decode(codec)
        except ValueError as error:
            failure = error
    raise failure from None


def _codecs(charset: str) -> list[str]:
    """Python's names for *charset*: what senders mean by it first, then what it says."""
    from encodings import normalize_encoding  # only here: keeps the import of the package quick
    from encodings.aliases import aliases

    name = charset.strip().lower()
    known = _CHARSETS.get(name) or _NAMES_IN_MAIL.get(name)
    plain = normalize_encoding(name) if name.isascii() else ""
    exact = aliases.get(plain, plain)
    listed = [known] if known else []
    return [*listed, exact] if exact in aliases.values() and exact not in _NO_CHARSETS else listed


def known_words(text: str) -> tuple[str, bool]:
    """
    *text* with encoded-words of rare charsets written in UTF-8.

    Returns:
        The text, and whether all words could be read.
    """
    if "=?" not in text:
        return text, True
    unread: list[str] = []

    def read(run: re.Match[str]) -> str:
        if decode_words(run[0]) != run[0]:
            return run[0]
        try:
            return _in_utf8(run[0])
        except (LookupError, ValueError):
            unread.append(run[0])
            return run[0]

    return _WORDS.sub(read, text), not unread


def _in_utf8(run: str) -> str:
    words = groupby(_WORD.finditer(run), lambda word: word[1].partition("*")[0].lower())
    text = "".join(decoded(b"".join(map(_payload, same)), charset) for charset, same in words)
    return f"=?UTF-8?B?{binascii.b2a_base64(text.encode(), newline=False).decode()}?="
