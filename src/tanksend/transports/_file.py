"""Messages as files: for looking at, and for handing on to something else that sends them."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import os
import secrets
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from .._messages import _entities as entities
from .._mime import render
from .._results import Receipt
from ..exceptions import ConfigurationError, Scope
from ._crew import Crew

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..typing import SendRequest

__all__ = ["FileTransport"]

_LONGEST: Final = 900  # Characters that fit into one line of a header whatever its name is.
_PIECE: Final = 11  # Characters of an encoded-word: four bytes each make 72 of the 75 that it may have.
_READ_ONLY: Final = "may not be written to", "Let this user write to it, or name another folder"
_FULL: Final = "cannot take more: the disk is full, or this user's share of it", "Make room on it, then send again"
_AWAY: Final = "is not there and cannot be made", "Name a folder on a disk of this machine that works"
_TEXTS: Final = {
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.ENOENT: _AWAY,
    errno.ENOTDIR: _AWAY,
    errno.EEXIST: _AWAY,
}
_NO_WAY: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
_BROKEN: Final = "cannot be written to", "Look at the disk, or name another folder"


class FileTransport:
    """
    Writes each message into a folder, as a ``.eml`` file that mail programs open. Nothing is sent.

    A file appears under its name only when it is whole. Names begin with the time in UTC, so that they sort by it, and
    end in a random part, so that any number of processes may write into one folder. A receipt's message id is the name
    without ``.eml``. Files are for this user alone, and so is the folder if it is made here.

    What SES takes apart from the mail itself stands in headers before it, so that nothing is lost:
    ``X-Tanksend-Message-ID``, ``X-Tanksend-Bcc`` (one for each), ``X-Tanksend-Configuration-Set``,
    ``X-Tanksend-Tag`` (``name=value``, one for each) and ``X-Tanksend-Key``. Whoever sends such a file on has to take
    them out. ``Date`` is there as well, which SES would write.

    It is not paced: a `Sender` without a limiter of its own writes as fast as it can. A templated message is refused
    with `InvalidMessageError`, because SES alone can make its content.

    Args:
        folder: Where to. Made when the first message comes, if it is not there.
        fsync: Have each message on the disk, and not only in the system's memory, before it counts as written.
    """

    paced: ClassVar[bool] = False

    def __init__(self, folder: str | os.PathLike[str], *, fsync: bool = False) -> None:
        self._folder = Path(folder)
        self._fsync = fsync
        self._crew = Crew("tanksend-files", 1)
        self._last = 0

    async def send(self, request: SendRequest) -> Receipt:
        """
        Write one message.

        Raises:
            InvalidMessageError: It cannot be written as a mail.
            ConfigurationError: The folder cannot be written to; the text says what to do. There is no file then.
        """
        return await self._crew.run(functools.partial(self._write, request))

    async def aclose(self) -> None:
        """Nothing is open. The thread ends by itself when it has had nothing to do for a while."""

    def __repr__(self) -> str:
        return f"<FileTransport {self._folder.name}>"

    def _write(self, request: SendRequest) -> Receipt:
        name = self._name()
        mail = b"".join(_envelope(name, request)) + render(request)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._put(name, mail)
        except OSError as error:
            raise _unwritable(self._folder, error) from None
        return Receipt(name)

    def _name(self) -> str:
        """Later than the one before, also where the clock stands still or goes back."""
        self._last = max(self._last + 1, time.time_ns())
        seconds, fraction = divmod(self._last, 1_000_000_000)
        return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{fraction:09}Z-{secrets.token_hex(8)}"

    def _put(self, name: str, mail: bytes) -> None:
        temporary, final = self._folder / f".{name}.part", self._folder / f"{name}.eml"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(mail)
                if self._fsync:
                    file.flush()
                    os.fsync(descriptor)
            temporary.rename(final)
            if self._fsync:
                _sync_folder(self._folder)
        except BaseException:
            # Whoever is told that there is no file writes it again.
            for path in (temporary, final):
                with contextlib.suppress(OSError):
                    path.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk, too. Windows and some shared folders have no way to ask for that."""
    if os.name == "nt":  # pragma: no cover
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_WAY:
            raise
    finally:
        os.close(descriptor)


def _envelope(name: str, request: SendRequest) -> Iterable[bytes]:
    """What belongs to the request and not into the mail, and the date that SES would write."""
    yield _line("X-Tanksend-Message-ID", name)
    for address in request.bcc:
        yield entities.field("X-Tanksend-Bcc", address.header())
    if request.configuration_set is not None:
        yield _line("X-Tanksend-Configuration-Set", request.configuration_set)
    for tag, value in request.tags.items():
        yield _line("X-Tanksend-Tag", f"{tag}={value}")
    if request.message.key is not None:
        yield _line("X-Tanksend-Key", request.message.key)
    yield _line("Date", formatdate())


def _line(name: str, value: str) -> bytes:
    """One header. What is not plain, a key may hold anything, is in encoded-words (RFC 2047), to the last character."""
    plain = value.isascii() and value.isprintable() and len(value) < _LONGEST
    # Readers take blanks at the edges for none of it, and what looks like an encoded-word for one.
    if plain and value == value.strip() and "=?" not in value:
        return entities.field(name, value)
    pieces = (value[start : start + _PIECE].encode(errors="replace") for start in range(0, len(value), _PIECE))
    return entities.fold(name, (f"=?UTF-8?B?{base64.b64encode(piece).decode()}?=" for piece in pieces))


def _unwritable(folder: Path, error: OSError) -> ConfigurationError:
    what, remedy = _TEXTS.get(error.errno or 0, _BROKEN)
    code = errno.errorcode.get(error.errno or 0)
    return ConfigurationError(
        f"The folder {folder} {what}",
        code=code,
        remedy=f"{remedy}. This message was not written",
        scope=Scope.ACCOUNT,
        cause_type=type(error).__name__,
    )
