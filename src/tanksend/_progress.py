"""Progress of a batch, as a bar or as a callable of the caller's own, and the file its rows are saved to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Protocol

from ._report import RowFile
from .exceptions import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from ._report import Row
    from ._results import SendResult

Progress = Callable[[int, int | None], object]
"""Called with how many messages have their fate, and how many there are, or None where that is not known."""


class _Bar(Protocol):
    def update(self, n: int) -> object: ...

    def close(self) -> None: ...


class Outlet:
    """
    Where the results of a `send_all` go as they come: file, callback, progress.

    What cannot be used is refused first, then the file is made anew, and the bar is drawn last: whatever fails before
    anything is sent leaves the file of an earlier run whole, and no bar on the screen.
    """

    def __init__(
        self,
        messages: object,
        *,
        progress: bool | Progress | None,
        on_result: Callable[[SendResult], object] | None,
        save_to: str | Path | None,
    ) -> None:
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise TypeError(f"progress must be True, False or a callable, not {type(progress).__name__}")
        if not (on_result is None or callable(on_result)):
            raise TypeError(f"on_result must be a callable, not {type(on_result).__name__}")
        # Only when asked for: some collections (a Django QuerySet) load everything to know how long they are.
        self._total = len(messages) if progress and isinstance(messages, Sized) else None
        self._done = 0
        self._on_result = on_result
        self._call: Progress | None = progress if callable(progress) else None
        tqdm = _tqdm() if progress is True else None
        self._file = RowFile(save_to) if save_to is not None else None
        self._bar: _Bar | None = tqdm(total=self._total, unit="mail") if tqdm is not None else None

    @property
    def save(self) -> Callable[[Row], object] | None:
        """Writes a row into the file, if there is one; `put` does not, because it may be called late or not at all."""
        return self._file.write if self._file is not None else None

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to hear of results."""
        return not (self._bar is None and self._call is None and self._on_result is None)

    def put(self, result: SendResult) -> object:
        """One result; what the callback returned comes back, so that an async one can be awaited."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)
        if self._call is not None:
            self._call(self._done, self._total)
        return self._on_result(result) if self._on_result is not None else None

    def close(self) -> None:
        """Close the file, and leave the bar as it is."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._bar is not None:
                self._bar.close()


def _tqdm() -> Callable[..., _Bar]:
    try:
        with warnings.catch_warnings():
            # Of notebooks without ipywidgets: tqdm draws its bar in letters there, which needs no warning.
            warnings.filterwarnings("ignore", message="IProgress not found")
            from tqdm.auto import tqdm  # optional
    except ImportError:
        raise SettingError("progress=True needs tqdm: install tanksend[notebook], or give a callable") from None
    make: Callable[..., _Bar] = tqdm
    return make
