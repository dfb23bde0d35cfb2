"""Progress of a batch, as a bar or as a callable of the caller's own, and the file its rows are saved to."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any, Protocol

from ._report import RowFile, row_of
from .exceptions import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from ._results import SendResult

Progress = Callable[[int, int | None], object]
"""Called with how many messages have their fate, and how many there are, or None where that is not known."""


class _Bar(Protocol):
    def update(self, n: int) -> object: ...

    def close(self) -> None: ...


class Outlet:
    """Where the results of a `send_all` go as they come: file, callback, progress."""

    def __init__(
        self,
        messages: object,
        *,
        progress: bool | Progress | None,
        on_result: Callable[[SendResult], object] | None,
        save_to: str | Path | None,
    ) -> None:
        self._total = len(messages) if isinstance(messages, Sized) else None
        self._done = 0
        self._on_result = on_result
        self._call: Progress | None = progress if callable(progress) else None
        self._bar = _tqdm(self._total) if progress is True else None
        self._file = RowFile(save_to) if save_to is not None else None

    def put(self, result: SendResult) -> object:
        """One result; what the callback returned comes back, so that an async one can be awaited."""
        self._done += 1
        if self._file is not None:
            self._file.write(row_of(result))
        if self._bar is not None:
            self._bar.update(1)
        if self._call is not None:
            self._call(self._done, self._total)
        return self._on_result(result) if self._on_result is not None else None

    def close(self) -> None:
        """Write what is buffered, and leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            self._file.close()


def _tqdm(total: int | None) -> _Bar:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  (optional)
    except ImportError:
        msg = "progress=True needs tqdm: install tanksend[notebook], or give a callable"
        raise SettingError(msg) from None
    bar: Any = tqdm(total=total, unit="mail")
    return bar  # type: ignore[no-any-return]
