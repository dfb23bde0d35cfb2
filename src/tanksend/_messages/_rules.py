"""What SES takes, as rules on text: headers, tags, sizes and counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..exceptions import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KEY_TAG = "tanksend-key"
MAX_RECIPIENTS = 50  # To + Cc + Bcc of one request; SES Developer Guide, "Service quotas"
MAX_HEADERS = 15  # SES API v2, MessageHeader
MAX_HEADER_CHARACTERS = 996  # name and value together; SES API v2, MessageHeader
MAX_ENCODED_BYTES = 41_943_040  # 40 MB after base64, line breaks included; SES Developer Guide, "Service quotas"
MAX_PARTS = 500  # MIME parts; SES Developer Guide, "Service quotas"
SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NO_HEADER = "the name must be 1 to 126 printable ASCII characters without space or colon"
HEADERS_OF_SES = "X-SES-* headers steer SES and are not for messages; use configuration_set= or tags="
HALF_PAIR = "has half of a surrogate pair, which is no character"

_PARAMETER = re.compile(r";\s*([A-Za-z0-9!#$&+.^_`|~-]+)\s*=\s*(\"(?:[^\"\\]|\\.)*\"|[^;\"\s]*)")
_MEDIA_TYPE = re.compile(r"\s*([A-Za-z0-9!#$&+.^_-]+/[A-Za-z0-9!#$&+.^_-]+)\s*(?=;|$)")

_HEADER_NAME = re.compile(r"[!-9;-@A-~]{1,126}")  # SES API v2, MessageHeader.Name
_HEADER_VALUE = re.compile(r"[ -~]{1,995}")  # SES API v2, MessageHeader.Value, printable ASCII
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")  # SES API v2, MessageTag

# Headers that another field of Message writes, or that SES writes itself; SES refuses a second one.
_OWN_HEADERS = {
    "bcc": "use bcc=",
    "cc": "use cc=",
    "content-disposition": "SES writes it",
    "content-transfer-encoding": "SES writes it",
    "content-type": "SES writes it",
    "date": "SES writes it",
    "from": "use from_=",
    "message-id": "SES writes it",
    "mime-version": "SES writes it",
    "reply-to": "use reply_to=",
    "return-path": "SES writes it",
    "sender": "use from_=",
    "subject": "use subject=",
    "to": "use to=",
}
# SES Developer Guide, "Unsupported attachment types".
BLOCKED_EXTENSIONS = frozenset(
    """
    ade adp app asp bas bat cer chm cmd com cpl crt csh der exe fxp gadget hlp hta inf ins isp its js jse ksh lib lnk
    mad maf mag mam maq mar mas mat mau mav maw mda mdb mde mdt mdw mdz msc msh msh1 msh2 mshxml msh1xml msh2xml msi
    msp mst ops pcd pif plg prf prg ps1 ps1xml ps2 ps2xml psc1 psc2 reg scf scr sct shb shs sys tmp url vb vbe vbs vps
    vsmacros vss vst vsw vxd ws wsc wsf wsh xnk
    """.split()
)


_UNKNOWN_TYPE = "application/octet-stream"
# What a reader opens a file with; the rest is application/octet-stream. A table of our own, because the one of the
# standard library depends on the machine.
_CONTENT_TYPES = {
    "7z": "application/x-7z-compressed",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
    "gif": "image/gif",
    "gz": "application/gzip",
    "heic": "image/heic",
    "htm": "text/html",
    "html": "text/html",
    "hwp": "application/x-hwp",
    "hwpx": "application/hwp+zip",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "wav": "audio/wav",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}


def extension_of(name: str) -> str:
    """What stands after the last dot of a file name, in lower case."""
    return name.rpartition(".")[2].strip().lower() if "." in name else ""


def blocked_extension(name: str) -> str | None:
    """The extension of a file that SES refuses, if it is one."""
    extension = extension_of(name)
    return extension if extension in BLOCKED_EXTENSIONS else None


def content_type_for(name: str, given: str | None) -> tuple[str, list[tuple[str, str]]]:
    """
    The MIME type of a file and its parameters: those *given*, or by the *name*.

    What is no type, or one of an entity with parts of its own, which base64 cannot carry, is
    ``application/octet-stream``. A ``name`` among the parameters is left out; the file has one.
    """
    written = _CONTENT_TYPES.get(extension_of(name), _UNKNOWN_TYPE) if given is None else given
    match = _MEDIA_TYPE.match(written)
    if match is None or match[1].lower().startswith(("message/", "multipart/")):
        return _UNKNOWN_TYPE, []
    found = ((key.lower(), value) for key, value in _PARAMETER.findall(written, match.end()))
    return match[1], [(key, _unquoted(value)) for key, value in found if key != "name"]


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value


def base64_size(length: int) -> int:
    """How many bytes *length* of them are in base64, in the lines of 76 characters that a mail has."""
    encoded = -(-length // 3) * 4
    return encoded + -(-encoded // 76) * 2


def is_header_name(name: str) -> bool:
    """Whether *name* is one that a header may have."""
    return _HEADER_NAME.fullmatch(name) is not None


def is_encodable(text: str) -> bool:
    """Whether *text* can be written as UTF-8."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_headers(headers: Mapping[str, str], *, written: int, taken: Iterable[str]) -> Iterable[Problem]:
    """What is wrong with a message's own headers, where *written* others are added; names *taken* are in lower case."""
    seen = set(taken)
    count = len(headers) + written
    if count > MAX_HEADERS:
        yield Problem("headers", f"has {count} headers; SES takes {MAX_HEADERS}")
    for number, (name, value) in enumerate(headers.items(), 1):
        reason = _header_problem(name, value, seen)
        seen.add(name.lower())
        if reason:
            # A name that is not a token may be data in the wrong place: show its position only.
            shown = name if _HEADER_NAME.fullmatch(name) else f"number {number}"
            yield Problem(f"headers[{shown}]", reason)


def _header_problem(name: str, value: str, seen: set[str]) -> str | None:
    lowered = name.lower()
    if not _HEADER_NAME.fullmatch(name):
        return NO_HEADER
    if lowered.startswith("x-ses-"):
        return HEADERS_OF_SES
    if lowered in _OWN_HEADERS:
        return f"is not for headers=: {_OWN_HEADERS[lowered]}"
    if lowered in seen:
        return "is given twice"
    if not _HEADER_VALUE.fullmatch(value):
        return "the value must be 1 to 995 printable ASCII characters"
    if len(name) + len(value) > MAX_HEADER_CHARACTERS:
        return f"name and value have more than {MAX_HEADER_CHARACTERS} characters"
    return None


def are_tags(tags: Mapping[str, str]) -> bool:
    """Whether nothing is wrong with message tags."""
    return KEY_TAG not in tags and all(map(_is_tag, tags)) and all(map(_is_tag, tags.values()))


def _is_tag(text: str) -> bool:
    # Letters and digits alone are quickly seen.
    return (text.isalnum() and text.isascii() and len(text) <= 256) or _TAG.fullmatch(text) is not None


def check_tags(tags: Mapping[str, str]) -> Iterable[Problem]:
    """What is wrong with message tags; values may hold data and are not repeated."""
    for number, (name, value) in enumerate(tags.items(), 1):
        if not _TAG.fullmatch(name):
            yield Problem(f"tags[number {number}]", "the name must be 1 to 256 letters, digits, _ or -")
        elif name == KEY_TAG:
            yield Problem(f"tags[{name}]", "is written from key=")
        elif not _TAG.fullmatch(value):
            yield Problem(f"tags[{name}]", "the value must be 1 to 256 letters, digits, _ or -")
