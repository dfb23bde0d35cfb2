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
MAX_ENCODED_BYTES = 41_943_040  # 40 MB after base64; SES Developer Guide, "Service quotas"
MAX_PARTS = 500  # MIME parts; SES Developer Guide, "Service quotas"
SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
HALF_PAIR = "has half of a surrogate pair, which is no character"

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
        return "the name must be 1 to 126 printable ASCII characters without space or colon"
    if lowered.startswith("x-ses-"):
        return "X-SES-* headers steer SES and are not for messages; use configuration_set= or tags="
    if lowered in _OWN_HEADERS:
        return f"is not for headers=: {_OWN_HEADERS[lowered]}"
    if lowered in seen:
        return "is given twice"
    if not _HEADER_VALUE.fullmatch(value):
        return "the value must be 1 to 995 printable ASCII characters"
    if len(name) + len(value) > MAX_HEADER_CHARACTERS:
        return f"name and value have more than {MAX_HEADER_CHARACTERS} characters"
    return None


def check_tags(tags: Mapping[str, str]) -> Iterable[Problem]:
    """What is wrong with message tags; values may hold data and are not repeated."""
    for number, (name, value) in enumerate(tags.items(), 1):
        if not _TAG.fullmatch(name):
            yield Problem(f"tags[number {number}]", "the name must be 1 to 256 letters, digits, _ or -")
        elif name == KEY_TAG:
            yield Problem(f"tags[{name}]", "is written from key=")
        elif not _TAG.fullmatch(value):
            yield Problem(f"tags[{name}]", "the value must be 1 to 256 letters, digits, _ or -")
