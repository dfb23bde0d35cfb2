"""Progress of a batch, as a bar or as a callable of the caller's own, and the file its rows are saved to."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Protocol

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
        # Only when asked for: some collections (a Django QuerySet) load everything to know how long they are.
        self._total = len(messages) if progress and isinstance(messages, Sized) else None
        self._done = 0
        self._on_result = on_result
        self._call: Progress | None = progress if callable(progress) else None
        tqdm = _tqdm() if progress is True else None
        self._file = RowFile(save_to) if save_to is not None else None
        self._bar: _Bar | None = tqdm(total=self._total, unit="mail") if tqdm is not None else None

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to hear of results."""
        return not (self._file is None and self._bar is None and self._call is None and self._on_result is None)

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
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._bar is not None:
                self._bar.close()


def _tqdm() -> Callable[..., _Bar]:
    try:
        from tqdm.auto import tqdm  # optional
    except ImportError:
        raise SettingError("progress=True needs tqdm: install tanksend[notebook], or give a callable") from None
    make: Callable[..., _Bar] = tqdm
    return make
