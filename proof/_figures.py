"""What a proof run found, line by line."""

from __future__ import annotations

import attrs


@attrs.frozen
class Figure:
    """One figure: what was measured, what came out, what it has to be, and whether it is."""

    what: str
    value: object
    target: str
    ok: bool

    def __str__(self) -> str:
        mark = "ok  " if self.ok else "MISS"
        return f"{mark}  {self.what}: {self.value}  (must be {self.target})"


def exactly(what: str, value: object, wanted: object) -> Figure:
    """The value must be the wanted one."""
    return Figure(what, value, f"{wanted}", value == wanted)


def at_most(what: str, value: float, limit: float, unit: str = "") -> Figure:
    """The value must not be above the limit."""
    return Figure(what, f"{_short(value)}{unit}", f"at most {_short(limit)}{unit}", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "") -> Figure:
    """The value must not be below the limit."""
    return Figure(what, f"{_short(value)}{unit}", f"at least {_short(limit)}{unit}", value >= limit)


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
